"""Acting on incidents by the API and by the page, with a topic in memory that orders what is written."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from streamguard.campaigns.sighting import HOUR
from streamguard.errors import UnavailableError
from streamguard.serving.api import keys
from streamguard.serving.api.app import application
from streamguard.serving.api.keys import Keyring, new_key
from streamguard.serving.decisions import codec
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.record import CaseAction
from streamguard.serving.decisions.writer import key_of
from streamguard.serving.log.freshness import Position, Progress
from streamguard.serving.page.routes import ROUTES, problem_page
from streamguard.serving.projection.store import Store
from streamguard.serving.query import cases
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.service import QueryService
from streamguard.settings.schema import Serve
from tests.serving_forms import confirmed, forms
from tests.serving_stores import ALERTS, add, at, filled, placed, privacy
from tests.unit.test_campaigns import NOON, incident, spray

TOPIC = "streamguard-decisions"


class Topic:
    """A topic of decisions in memory: written actions get the next offset, and reach the store at once unless held."""

    def __init__(self, store: Store) -> None:
        self.topic = TOPIC
        self.progress = Progress(TOPIC)
        self.caught_up = threading.Event()
        self.store, self.offset, self.held, self.failing = store, 0, False, False
        self.others: list[Any] = []
        self.written: list[CaseAction] = []
        self._reached()

    def write(self, action: CaseAction) -> int:
        codec.encode(action)
        self.written.append(action)
        offset, self.offset = self.offset, self.offset + 1
        if not self.held:
            self.store.add_actions(
                TOPIC, [(key_of(action), Logged(offset, action))], [], {0: (self.offset, 1)}
            )
            self._reached()
        return offset

    def write_together(
        self, actions: Sequence[CaseAction], others: Sequence[Any] = ()
    ) -> tuple[int, list[int]]:
        if self.failing:
            raise UnavailableError("no broker answers")
        self.others += others
        return [self.write(one) for one in actions][-1], [7 for _ in others]

    def end(self) -> int:
        return self.offset

    def release(self) -> None:
        """Let the store have what was held."""
        self.held = False
        for offset, action in enumerate(self.written):
            self.store.add_actions(
                TOPIC, [(key_of(action), Logged(offset, action))], [], {0: (self.offset, 1)}
            )
        self._reached()

    def _reached(self) -> None:
        self.progress.reached({0: Position(0, self.offset)}, whole=True, changed=True)


class Site:
    def __init__(self, directory: Path) -> None:
        self.incidents = [
            incident("ann", NOON, {"resource": 21.0}, "exfiltration", count=3),
            incident("bob", NOON, {"resource": 25.0}),
            *spray(NOON, ["a", "b", "c"], entered="a"),
        ]
        self.ann, self.bob = self.incidents[0].id, self.incidents[1].id
        self.store = filled(directory / "store", placed(self.incidents))
        self.topic = Topic(self.store)
        self.service = QueryService(self.store, [self.topic], self.topic)  # type: ignore[list-item, arg-type]
        self.service.privacy = privacy()
        self.keys: dict[str, str] = {}
        held = []
        for name, role in (
            ("alice", "investigator"),
            ("carl", "investigator"),
            ("vera", "viewer"),
            ("root", "admin"),
        ):
            self.keys[name], key = new_key(name, role, 3600)  # type: ignore[arg-type]
            held.append(key)
        keys.write(directory / "keys.json", held)
        own = Serve(requests_per_minute=10_000)
        self.app: Any = application(self.service, Keyring(directory / "keys.json"), own, ROUTES, problem_page)

    def client(self, name: str = "alice") -> TestClient[Any]:
        client: TestClient[Any] = TestClient(self.app, base_url="http://localhost:8080")
        client.headers["Authorization"] = f"Bearer {self.keys[name]}"
        return client

    def act(self, id: str, by: str = "alice", headers: dict[str, str] | None = None, **fields: Any) -> Any:
        return self.client(by).post(f"/v1/incidents/{id}/actions", json=fields, headers=headers)

    def signed_in(self, name: str = "alice") -> TestClient[Any]:
        client: TestClient[Any] = TestClient(self.app, base_url="http://localhost:8080")
        client.post("/sign-in", data={"key": self.keys[name]})
        return client


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


def test_answer_has_the_action_and_so_has_the_list(site: Site) -> None:
    answer = site.act(site.ann, kind="acknowledge", assignee="alice", reason="looking")
    assert answer.status_code == 200
    case = answer.json()["case"]
    assert (case["status"], case["assignee"], case["acknowledged_by"]) == ("acknowledged", "alice", "alice")
    rows = site.client().get("/v1/incidents?assignee=alice").json()["incidents"]
    assert [row["id"] for row in rows] == [site.ann]
    facets = site.client().get("/v1/incidents/facets").json()
    assert {one["value"]: one["count"] for one in facets["status"]}["acknowledged"] == 1


def test_closed_incident_leaves_the_open_ones_and_opens_again_when_it_rises(site: Site) -> None:
    closed = site.act(site.ann, kind="close", classification="false_positive", reason="a test").json()
    assert (closed["row"]["status"], closed["row"]["classification"]) == ("closed", "false_positive")
    open_ones = [row["id"] for row in site.client().get("/v1/incidents?status=new").json()["incidents"]]
    assert site.ann not in open_ones
    ann = site.incidents[0]
    risen = msgspec.structs.replace(ann, count=9, evidence_bits=ann.evidence_bits + 2)
    site.store.add_updates(ALERTS, [at(77, risen)], {0: (78, 1)})
    case = site.client().get(f"/v1/incidents/{site.ann}").json()["case"]
    assert (case["status"], case["reopened_by"]["growth"]["why"]) == ("new", "evidence")


def test_counts_follow_what_people_do_and_what_is_published(site: Site) -> None:
    site.act(site.ann, kind="acknowledge", assignee="alice")
    site.act(site.bob, kind="close")
    risen = msgspec.structs.replace(site.incidents[0], count=9)
    site.store.add_updates(ALERTS, [at(78, risen)], {0: (79, 1)})
    facets = site.client().get("/v1/incidents/facets").json()
    assert facets["total"] == len(site.incidents)
    for name in ("status", "assignee", "severity", "kind"):
        for one in facets[name]:
            rows = site.service.incidents.page(IncidentFilter(), limit=200).incidents
            assert one["count"] == sum(getattr(row, name) == one["value"] for row in rows), one
    assert {one["value"]: one["count"] for one in facets["status"]} == {
        "new": 4,
        "acknowledged": 1,
        "closed": 1,
    }


def test_mute_hides_what_is_alike_until_something_differs(site: Site) -> None:
    assert site.act(site.bob, kind="mute", reason="backup job").json()["row"]["muted"]
    again = incident("bob", NOON + 3_600_000, {"resource": 26.0})
    other = incident("bob", NOON + 7_200_000, {"resource": 26.0}, "exfiltration")
    site.store.add_updates(ALERTS, [at(80, again), at(81, other)], {0: (82, 1)})
    muted = {
        row["id"]: row["muted"] for row in site.client().get("/v1/incidents?entity=bob").json()["incidents"]
    }
    assert muted == {site.bob: True, again.id: True, other.id: False}
    shown = site.client().get("/v1/incidents?entity=bob&muted=false").json()["incidents"]
    assert [row["id"] for row in shown] == [other.id]
    action = site.topic.written[0].id
    assert not site.act(site.bob, kind="undo", undoes=action).json()["row"]["muted"]
    rows = site.client().get("/v1/incidents?entity=bob").json()["incidents"]
    assert not any(row["muted"] for row in rows)


def test_campaign_is_shown_by_an_incident_that_is_still_open(site: Site) -> None:
    grouped = "/v1/incidents?grouped=true&status=new&status=acknowledged"
    (lead,) = [row for row in site.client().get(grouped).json()["incidents"] if row["campaign"]]
    assert site.act(lead["id"], kind="close").status_code == 200
    (next_one,) = [row for row in site.client().get(grouped).json()["incidents"] if row["campaign"]]
    assert (next_one["campaign"], next_one["id"] != lead["id"]) == (lead["campaign"], True)


def test_second_of_two_people_is_told_who_was_first(site: Site) -> None:
    seen = site.client().get(f"/v1/incidents/{site.ann}").json()["case"]["last_action"]
    site.act(site.ann, by="carl", kind="close", classification="true_positive")
    refused = site.act(site.ann, kind="acknowledge", expected=seen)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")
    assert "carl has done close" in refused.json()["detail"]
    assert site.act(site.ann, kind="comment", text="me too", expected=seen).status_code == 200


def test_if_match_refuses_before_anything_is_written(site: Site) -> None:
    tag = site.client().get(f"/v1/incidents/{site.ann}").headers["ETag"]
    answer = site.act(site.ann, kind="acknowledge", headers={"If-Match": tag})
    assert answer.status_code == 200 and answer.headers["ETag"] != tag
    assert site.act(site.ann, kind="close", headers={"If-Match": tag}).status_code == 412
    assert len(site.topic.written) == 1


def test_repeated_request_with_a_key_acts_once(site: Site) -> None:
    headers = {"Idempotency-Key": "ticket-4711"}
    first = site.act(site.ann, kind="comment", text="seen", headers=headers).json()
    second = site.act(site.ann, kind="comment", text="seen", headers=headers).json()
    assert first["case"] == second["case"]
    assert len(site.topic.written) == 1
    assert site.act(site.ann, kind="reopen", headers={"Idempotency-Key": "a/b"}).status_code == 400


def test_list_is_acted_on_as_a_whole(site: Site) -> None:
    body = {"kind": "acknowledge", "assignee": "alice"}
    answer = site.client().post("/v1/incidents/actions?entity=a&entity=b&entity=c", json=body).json()
    assert (answer["incidents"], answer["accepted"]) == (4, 4)
    assert len(site.client().get("/v1/incidents?status=acknowledged").json()["incidents"]) == 4
    (written,) = site.topic.written
    assert len(written.incidents) == 4
    nothing = site.client().post("/v1/incidents/actions?entity=nobody", json=body).json()
    assert (nothing["incidents"], nothing["action"]) == (0, "")
    single = site.client().post("/v1/incidents/actions", json={"kind": "mute"})
    assert single.status_code == 409 and "a single incident" in single.json()["detail"]


def test_long_list_is_written_in_parts_and_counted_as_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamguard.serving.decisions.bulk.MAX_INCIDENTS", 2)
    answer = site.client().post("/v1/incidents/actions", json={"kind": "acknowledge"}).json()
    assert (answer["incidents"], answer["accepted"]) == (6, 6)
    assert len(site.topic.written) == 3
    monkeypatch.setattr(cases, "MAX_BULK", 5)
    assert site.client().post("/v1/incidents/actions", json={"kind": "acknowledge"}).status_code == 409


def test_action_on_a_list_is_undone_in_one_step_where_nobody_has_acted_since(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamguard.serving.decisions.bulk.MAX_INCIDENTS", 2)
    client = site.client()
    body = {"kind": "close", "classification": "benign_positive", "reason": "a test"}
    done = client.post("/v1/incidents/actions", json=body).json()
    site.act(site.bob, by="carl", kind="reopen")
    undone = client.post(
        f"/v1/actions/{done['action']}/undo?reason=wrong", headers={"Idempotency-Key": "undo-shift-1"}
    ).json()
    assert (undone["incidents"], undone["accepted"], undone["action"]) == (6, 5, "undo-shift-1")
    cases_now = {id: site.service.incidents.incident(id).case for id in [one.id for one in site.incidents]}
    assert {one.status for one in cases_now.values()} == {"new"}
    assert [one.kind for one in cases_now[site.bob].history if not one.rejected] == ["close", "reopen"]
    (closed, undo) = cases_now[site.ann].history
    assert closed.undone_by == undo.id and undo.text == "wrong"
    again = client.post(f"/v1/actions/{done['action']}/undo", headers={"Idempotency-Key": "undo-shift-1"})
    assert again.json()["accepted"] == 5 and len(site.topic.written) == 3 + 1 + 3
    for action, status in (("none", 404), (undone["action"], 409)):
        assert client.post(f"/v1/actions/{action}/undo").status_code == status, action
    assert site.client("vera").post(f"/v1/actions/{done['action']}/undo").status_code == 403


def test_page_undoes_an_action_on_a_list(site: Site) -> None:
    client = site.signed_in()
    back = "view=open&sort=time"
    done = confirmed(client, "/act?view=open", kind="close", reason="a test", back=back).text
    ((address, fields),) = forms(done, "/act/")
    assert fields == {"back": back} and f'href="/?{html.escape(back)}"' in done
    undone = client.post(address, data=fields)
    assert (
        "Undo: done for 6 of 6 incidents." in undone.text and f'href="/?{html.escape(back)}"' in undone.text
    )
    assert len(client.get("/v1/incidents?status=new").json()["incidents"]) == 6


def test_incident_is_closed_as_a_duplicate_from_its_page(site: Site) -> None:
    client = site.signed_in()
    for given in ("no-such-id", site.ann):
        form = {"kind": "close", "duplicate_of": given, "reason": "same"}
        assert client.post(f"/incidents/{site.ann}/act", data=form).status_code in (400, 409), given
    form = {"kind": "close", "duplicate_of": f" http://localhost:8080/incidents/{site.bob}", "reason": "same"}
    page = client.post(f"/incidents/{site.ann}/act", data=form).text
    assert f'duplicate of <a href="/incidents/{site.bob}">' in page
    assert site.service.incidents.incident(site.ann).case.duplicate_of == site.bob


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "comment", "text": " "},
        {"kind": "close", "classification": "duplicate", "duplicate_of": "no-such-id"},
        {"kind": "snooze", "until": "soon"},
        {"kind": "snooze"},
        {"kind": "close", "classification": "duplicate"},
        {"kind": "close", "classification": "wrong"},
        {"kind": "undo", "undoes": "unknown"},
        {"kind": "other"},
        {"kind": "comment", "text": "x" * 2001},
        {"kind": "comment", "text": "x", "at": "2026-11-30T00:00:00.000Z"},
        {},
    ],
)
def test_action_that_makes_no_sense_is_refused(site: Site, fields: dict[str, Any]) -> None:
    answer = site.act(site.ann, **fields)
    assert answer.status_code in (400, 409) and answer.json()["detail"]
    case = site.client().get(f"/v1/incidents/{site.ann}").json()["case"]
    assert case["status"] == "new" and not case["comments"]


def test_roles_limit_who_acts_and_who_reads_the_trail(site: Site) -> None:
    assert site.act(site.ann, by="vera", kind="acknowledge").status_code == 403
    assert site.client("vera").post("/v1/incidents/actions", json={"kind": "reopen"}).status_code == 403
    assert site.client("alice").get("/v1/audit").status_code == 403
    site.act(site.ann, kind="acknowledge")
    site.act(site.bob, by="carl", kind="comment", text="hm")
    trail = site.client("root").get("/v1/audit").json()["actions"]
    assert [(one["incident"], one["action"]["kind"], one["action"]["by"]) for one in trail] == [
        (site.bob, "comment", "carl"),
        (site.ann, "acknowledge", "alice"),
    ]
    assert site.client("root").get("/v1/audit?before=1").json()["actions"][0]["incident"] == site.ann


@pytest.mark.parametrize("path", ["audit?before=", "batch/anomalies?after_partition="])
def test_number_that_no_database_has_is_refused(site: Site, path: str) -> None:
    assert site.client("root").get(f"/v1/{path}{1 << 63}").status_code == 400
    assert site.client("root").get(f"/v1/{path}{(1 << 63) - 1}").status_code in (200, 404)


def test_action_that_the_server_does_not_see_in_time_is_said_to_be_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WAIT_SECONDS", 0.02)
    site.topic.held = True
    answer = site.act(site.ann, kind="acknowledge")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-up-to-bound")
    assert "what was written is not lost" in answer.json()["detail"]
    late = site.client().get("/v1/incidents?at_least=d1")
    assert late.status_code == 503
    assert site.client().get("/v1/incidents?at_least=d0").status_code == 200
    assert site.client().get("/v1/incidents?at_least=x").status_code == 400


def test_token_of_an_answer_is_reached(site: Site) -> None:
    token = site.act(site.ann, kind="acknowledge").json()["token"]
    assert token == "d1"
    assert site.client().get(f"/v1/incidents/{site.ann}?at_least={token}").status_code == 200


def test_page_acts_by_its_forms(site: Site) -> None:
    client = site.signed_in()
    page = client.get(f"/incidents/{site.ann}").text
    form = page[page.index('data-key="a"') :]
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[: form.index("</form>")]))
    shown = client.post(f"/incidents/{site.ann}/act", data=fields)
    assert shown.status_code == 200 and '<strong id="status">acknowledged</strong>' in shown.text
    assert "Undo acknowledge" in shown.text
    stale = client.post(
        f"/incidents/{site.ann}/act", data=fields | {"kind": "close"}, headers={"Accept": "text/html"}
    )
    assert stale.status_code == 409 and "alice has done acknowledge" in stale.text
    done = confirmed(client, "/act?view=all&entity=bob", kind="close", reason="a test")
    assert "Done for 1 of 1 incident." in done.text


def test_page_of_an_incident_shows_a_rejected_action_and_a_broken_mute(site: Site) -> None:
    site.act(site.ann, by="carl", kind="mute", reason="known")
    site.act(site.ann, kind="close", expected="")
    ann = site.incidents[0]
    risen = msgspec.structs.replace(ann, count=9, evidence_bits=ann.evidence_bits + 9)
    site.store.add_updates(ALERTS, [at(77, risen)], {0: (78, 1)})
    page = site.signed_in().get(f"/incidents/{site.ann}").text
    assert "no effect: its author had not seen the last action" in page
    assert "A mute does not hide it: its evidence is more than 3 bits above the muted one" in page


def test_tag_of_a_request_is_what_the_action_expects(site: Site) -> None:
    tag = site.client().get(f"/v1/incidents/{site.ann}").headers["ETag"]
    headers = {"If-Match": tag, "Idempotency-Key": "ticket-4712"}
    assert site.act(site.ann, kind="acknowledge", headers=headers).status_code == 200
    assert site.act(site.ann, kind="acknowledge", headers=headers).status_code == 200
    assert site.topic.written[0].incidents[0].expected == ""
    assert site.act(site.ann, kind="acknowledge", headers={"If-Match": "nonsense"}).status_code == 412


def test_viewer_sees_no_forms_and_cannot_use_them(site: Site) -> None:
    client = site.signed_in("vera")
    assert "/act" not in client.get(f"/incidents/{site.ann}").text
    assert "/act" not in client.get("/?view=all").text
    assert client.post(f"/incidents/{site.ann}/act", data={"kind": "acknowledge"}).status_code == 403


def test_deleted_record_takes_its_action_back(site: Site) -> None:
    site.act(site.ann, kind="close")
    written = site.store.reader().execute("SELECT key FROM actions").fetchall()
    site.store.add_actions(TOPIC, [], [key for (key,) in written], {0: (2, 1)})
    assert site.service.incidents.incident(site.ann).case.status == "new"
    assert site.service.incidents.page(IncidentFilter(status=("closed",))).incidents == ()


def bulk(site: Site, key: str = "shift-0001", query: str = "status=new") -> Any:
    body = {"kind": "acknowledge", "assignee": "alice"}
    return site.client().post(
        f"/v1/incidents/actions?{query}", json=body, headers={"Idempotency-Key": key} if key else {}
    )


def newcomer(site: Site) -> str:
    """One more incident that matches the list."""
    one = incident("zoe", NOON, {"resource": 22.0})
    site.store.add_updates(ALERTS, [at(90, one)], {0: (91, 1)})
    return one.id


def status(site: Site, id: str) -> str:
    return site.service.incidents.incident(id).case.status


def test_repeated_action_on_a_list_acts_on_the_incidents_of_the_first_request(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WAIT_SECONDS", 0.02)
    site.topic.held = True
    first = bulk(site)
    assert (first.status_code, first.json()["type"]) == (503, "/problems/not-up-to-bound")
    assert int(first.headers["Retry-After"]) > 0
    late = newcomer(site)
    assert bulk(site).status_code == 503, "it may be written, so nothing is written again"
    site.topic.release()
    again = bulk(site)
    assert (again.status_code, again.json()["incidents"], again.json()["accepted"]) == (200, 6, 6)
    assert again.json() == bulk(site).json(), "and once more"
    assert len(site.topic.written) == 1
    assert (status(site, site.ann), status(site, late)) == ("acknowledged", "new")
    assert bulk(site, "shift-0002").json()["incidents"] == 1, "another key is another action"


def test_action_on_a_list_that_kafka_did_not_take_is_repeated_with_the_same_incidents(site: Site) -> None:
    site.topic.failing = True
    failed = bulk(site)
    assert (failed.status_code, failed.json()["type"]) == (503, "/problems/kafka-unavailable")
    assert int(failed.headers["Retry-After"]) > 0
    late = newcomer(site)
    site.topic.failing = False
    assert bulk(site).json()["incidents"] == 6
    assert status(site, late) == "new"
    assert len(bulk(site, "").json()) and status(site, late) == "acknowledged", (
        "without a key, as the list is now"
    )


def test_server_remembers_a_bounded_number_of_actions_that_were_not_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "MAX_UNSURE", 2)
    site.topic.failing = True
    for k in range(5):
        assert bulk(site, f"shift-000{k}").status_code == 503
    assert site.service.cases is not None
    assert list(site.service.cases._unsure) == ["shift-0003", "shift-0004"]


def test_list_names_what_an_action_on_a_row_has_to_expect(site: Site) -> None:
    row = site.client().get("/v1/incidents?entity=ann").json()["incidents"][0]
    assert (row["alerts"], row["last_action"]) == (3, "")
    action = site.act(site.ann, by="carl", kind="close").json()["case"]["last_action"]
    page = site.signed_in().get("/rows?view=all&entity=ann").text
    assert f'data-seen="3" data-expected="{action}"' in page
    stale = site.act(site.ann, kind="acknowledge", seen=row["alerts"], expected=row["last_action"])
    assert stale.status_code == 409 and "carl has done close" in stale.json()["detail"]
    site.act(site.ann, kind="comment", text="hm")
    (now,) = site.client().get("/v1/incidents?entity=ann").json()["incidents"]
    assert now["last_action"] == action, "a comment conflicts with nothing"


def test_incident_shows_how_earlier_ones_like_it_were_closed(site: Site) -> None:
    same = [incident("ann", NOON + (k + 1) * HOUR, {"hour": 20.0}) for k in range(3)]
    alike = [incident(f"u{k}", NOON + (k + 5) * HOUR, {"resource": 20.0}, "exfiltration") for k in range(4)]
    still_open = incident("ann", NOON + 9 * HOUR, {"hour": 20.0})
    now = incident("ann", NOON + 20 * HOUR, {"resource": 21.0}, "exfiltration", count=4)
    later = incident("ann", NOON + 30 * HOUR, {"hour": 20.0})
    add(site.store, [at(100 + k, one) for k, one in enumerate([*same, *alike, still_open, now, later])])
    for one in (*same, *alike, later):
        site.act(one.id, by="carl", kind="close", classification="benign_positive", reason="a test")
    site.act(same[2].id, kind="reopen")
    site.act(same[2].id, kind="close", classification="false_positive", reason="new office")
    found = site.client().get(f"/v1/incidents/{now.id}/earlier").json()["earlier"]
    assert [(one["incident"]["id"], one["same_entity"], one["same_kind"]) for one in found] == [
        *((one.id, True, False) for one in same[::-1]),
        *((one.id, False, True) for one in alike[:1:-1]),
    ]
    assert [(one["closed"]["by"], one["closed"]["value"], one["closed"]["text"]) for one in found[:2]] == [
        ("alice", "false_positive", "new office"),
        ("carl", "benign_positive", "a test"),
    ]
    page = site.signed_in().get(f"/incidents/{now.id}").text
    section = page[page.index("<h2>Seen before</h2>") :]
    assert re.findall(r'<td><a href="/incidents/([^"]+)"', section) == [
        one["incident"]["id"] for one in found
    ]
    assert "new office" in section
    assert site.client().get("/v1/incidents/none/earlier").status_code == 404
