"""Whoever sees pseudonyms finds no name and no text of an event in any answer: names are planted, and searched for."""

from __future__ import annotations

import asyncio
import base64
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from litestar.testing import TestClient

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity, Involved, Names
from streamguard.errors import ConfigurationError
from streamguard.kafka.connection import Brokers
from streamguard.serving.api import keys
from streamguard.serving.api.app import application
from streamguard.serving.api.keys import Keyring, Principal, new_key
from streamguard.serving.api.sessions import Access
from streamguard.serving.api.stream import Streams, _changes
from streamguard.serving.decisions.record import CaseAction
from streamguard.serving.log.record import LogRecord
from streamguard.serving.masking import classification, seen, seen_people
from streamguard.serving.masking.pseudonyms import KEY_NAME, Pseudonyms, is_pseudonym, key_of
from streamguard.serving.masking.roles import RIGHTS, ROLES, may
from streamguard.serving.page.routes import ROUTES, problem_page
from streamguard.serving.peers.holders import Holders
from streamguard.serving.peers.profiles import Profiles
from streamguard.serving.peers.sources import SourceStates
from streamguard.serving.projection.store import Store
from streamguard.serving.query import answers
from streamguard.serving.query.archived import ArchivedQueries
from streamguard.serving.query.compare import CompareQueries
from streamguard.serving.query.detection import DetectionDesk
from streamguard.serving.query.events import EventQueries
from streamguard.serving.query.service import QueryService, Sources
from streamguard.serving.query.sources import SourceQueries
from streamguard.serving.query.unmasking import NameQueries
from streamguard.serving.query.users import UserQueries
from streamguard.serving.replica.replica import ReplicaNotReadyError
from streamguard.serving.results.archive import ArchivedEvents
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.dead_letters import DeadLetters, DeadLetterSummary
from streamguard.serving.results.models import Models
from streamguard.serving.results.run_answers import BatchTotals, RunEntry
from streamguard.settings.schema import Serve, Settings
from tests.serving_stores import ALERTS, PSEUDONYMS, add, at, filled, placed, privacy
from tests.unit.test_campaigns import NOON, incident, spray
from tests.unit.test_serving_actions import Topic

NAMES = ("canary-ann", "canary-tried", "canary-entered", "203.0.113.77")
TEXTS = (
    "canary-path", "canary-usual", "canary-event", "canary-repaired", "canary-comment", "canary-closing",
    "canary-muting", "canary-letter",
)  # fmt: skip
MASKED = ("viewer", "analyst", "privacy_officer")


class NoReplica:
    """A replica that knows no profile yet."""

    def as_of(self) -> Any:
        raise ReplicaNotReadyError("profiles are not known yet")

    profiles = users = totals = crowds = failing = as_of
    partitions = 1
    ready_partitions = held = frozenset[int]()


class Site:
    """A server over incidents in which every name and every text is a canary, and a key of each role."""

    def __init__(self, directory: Path) -> None:
        ann = msgspec.structs.replace(
            incident(NAMES[0], NOON, {"resource": 21.0}, "exfiltration", count=3),
            reasons=(Reason("resource", TEXTS[0], TEXTS[1], 21.0, 1.0),),
            event={"user": NAMES[0], "path": TEXTS[2], TEXTS[2]: [TEXTS[2], {"deep": TEXTS[2]}]},
            severity="high",
            repaired=(f"{TEXTS[3]}: replaced",),
            involved=Involved(*(Names(1, (name,)) for name in (NAMES[0], NAMES[2], NAMES[3]))),
        )
        address = msgspec.structs.replace(
            incident("x", NOON, {"source": 14.0}), entity=Entity("source", NAMES[3]), id="s0-7-1"
        )
        attack = spray(NOON, [NAMES[1], NAMES[2], "canary-other"], entered=NAMES[2])
        self.incidents = [
            msgspec.structs.replace(one, id=f"0-{k}-18bcfe5687b")
            for k, one in enumerate([ann, address, *attack])
        ]  # ids as workers make them have no names
        self.ann = self.incidents[0].id
        self.store = filled(directory / "store", placed(self.incidents))
        self.topic = Topic(self.store)
        self.service = QueryService(self.store, [self.topic], self.topic)  # type: ignore[list-item, arg-type]
        self.service.privacy = self.privacy = privacy()
        self.service.sources = self._sources()
        self.keys: dict[str, str] = {}
        held = []
        for name, role in [*((role, role) for role in ROLES), ("officer2", "privacy_officer")]:
            self.keys[name], key = new_key(name, role, 3600)  # type: ignore[arg-type]
            held.append(key)
        keys.write(directory / "keys.json", held)
        own = Serve(requests_per_minute=100_000)
        self.app: Any = application(self.service, Keyring(directory / "keys.json"), own, ROUTES, problem_page)

    def _sources(self) -> Sources:
        letters = DeadLetters()
        headers = (
            ("sg.reason", b"not_json"),
            ("sg.detail", TEXTS[7].encode()),
            ("sg.subject", TEXTS[7].encode()),
        )
        letters.add(LogRecord(0, 7, 0, None, TEXTS[7].encode(), headers))
        settings = Settings()
        cases = self.service.cases
        assert cases is not None
        no_replica: Any = NoReplica()
        return Sources(
            users=UserQueries(self.service.incidents, Profiles(Holders(no_replica)), BatchResults(None)),
            events=EventQueries(self.service.incidents, Brokers("127.0.0.1:1"), ArchivedEvents(None)),
            batch=BatchResults(None),
            models=Models(settings),
            detection=DetectionDesk(settings, self.service.incidents, cases),
            compare=CompareQueries(
                self.service.totals,
                no_replica,
                BatchResults(None),
                lambda: False,
                settings.detection.forget_ms,
            ),
            archived=ArchivedQueries(self.service.incidents, ArchivedEvents(None)),
            addresses=SourceQueries(
                self.store,
                self.service.incidents,
                self.service.totals,
                SourceStates(Holders(no_replica)),
                BatchResults(None),
            ),
            dead_letters=letters.summary,
        )

    def client(self, name: str) -> TestClient[Any]:
        client: TestClient[Any] = TestClient(self.app, base_url="http://localhost:8080")
        client.headers["Authorization"] = f"Bearer {self.keys[name]}"
        return client

    def act(self, by: str, **fields: Any) -> Any:
        return self.client(by).post(f"/v1/incidents/{self.ann}/actions", json=fields)

    def pseudonym(self, name: str = NAMES[0]) -> str:
        return PSEUDONYMS.of("user", name)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    for fields in (
        {"kind": "comment", "text": TEXTS[4]},
        {"kind": "mute", "reason": TEXTS[6]},
        {"kind": "close", "classification": "false_positive", "reason": TEXTS[5]},
    ):
        assert site.act("investigator", **fields).status_code == 200
    yield site
    site.store.close()


def paths(site: Site) -> Iterator[str]:
    """The address of every route that is read, API and page, about every incident and every name."""
    ids = [one.id for one in site.incidents]
    names = [*NAMES, *(PSEUDONYMS.of("user", name) for name in NAMES), "nobody"]
    app = site.app
    while not hasattr(app, "routes"):
        app = app._app
    for route in app.routes:
        if "GET" not in getattr(route, "methods", ()) or route.path in ("/v1/stream", "/v1/docs"):
            continue
        if "{path" in route.path or route.path.startswith(("/static", "/v1/openapi", "/sign-in", "/v1/peer")):
            continue
        template = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for id in ids if "{id}" in template else [""]:
            for name in names if re.search(r"\{(name|address)\}", template) else [""]:
                yield template.format(id=id, name=name, address=name)
    yield from ("/?view=all", "/rows?view=all", "/v1/incidents?status=closed", "/v1/unmaskings?state=open")
    yield from (f"/v1/incidents?entity={name}" for name in names)
    yield from (f"/v1/incidents/facets?text={name}" for name in (*NAMES, *TEXTS))
    yield f"/v1/incidents/{site.ann}/detection?decision=expected&field=resource&value=x"
    yield "/v1/incidents?limit=1&sort=time"


def found(site: Site, name: str) -> dict[str, set[str]]:
    """By address, the canaries in the answers to a caller: in the body and in the headers."""
    client, result = site.client(name), {}
    for accept in ("application/json", "text/html"):
        for path in paths(site):
            answer = client.get(path, headers={"Accept": accept})
            assert answer.status_code in (200, 400, 403, 404, 501, 503), (path, answer.status_code)
            text = answer.text + str(dict(answer.headers))
            text = text.replace(path, "")  # what the caller has typed
            for typed in re.findall(r"canary-\w+|203\.0\.113\.77", path):
                text = text.replace(f"&#39;{typed}&#39;", "").replace(f"'{typed}'", "")
            seen_here = set(re.findall(r"canary-[a-z]+|203\.0\.113\.77", text))
            if seen_here:
                result[path] = seen_here
    return result


@pytest.mark.parametrize("role", MASKED)
def test_no_answer_has_a_name_or_a_text_of_an_event_for_those_who_see_pseudonyms(
    site: Site, role: str
) -> None:
    unmask(site, "privacy_officer")
    answer(site, unmask(site).json()["id"], granted=False)
    assert found(site, role) == {}


def test_those_who_see_people_find_every_planted_name_and_text(site: Site) -> None:
    assert set().union(*found(site, "investigator").values()) >= {*NAMES, *TEXTS}


@pytest.mark.parametrize("role", ["analyst"])
def test_no_answer_to_an_action_has_a_name(site: Site, role: str) -> None:
    client = site.client(role)
    answers = [
        site.act(role, **fields)
        for fields in (
            {"kind": "reopen"}, {"kind": "acknowledge", "assignee": role}, {"kind": "mute"},
            {"kind": "snooze", "until": "2026-12-24"}, {"kind": "undo", "undoes": "none"}, {"kind": "close"},
            {"kind": "comment", "text": "seen"}, {"kind": "assign", "assignee": "carl", "expected": "other"},
        )
    ]  # fmt: skip
    answers += [
        client.post("/v1/incidents/actions?status=new", json={"kind": "acknowledge"}),
        client.post(f"/v1/incidents/{site.ann}/detection", json={"decision": "expected"}),
        client.post(f"/v1/incidents/{site.ann}/unmask", json={"reason": "a mail from the helpdesk"}),
        client.post(f"/incidents/{site.ann}/act", data={"kind": "comment", "text": "once more"}),
        client.post(f"/incidents/{site.ann}/decide", data={"decision": "expected", "field": "resource=x"}),
    ]
    for answer in answers:
        assert not re.search(r"canary-|203\.0\.113\.77", answer.text), answer.request.url
    assert [one.status_code for one in answers[:3]] == [200, 200, 200]


def test_stream_has_numbers_only(site: Site) -> None:
    async def first() -> Any:
        access = Access(lambda: Principal("viewer", "viewer"))
        return await anext(_changes(site.service, -1, Streams(), "viewer", access))

    message = asyncio.run(first())
    assert (message.event, message.data) == ("changed", str(int(message.data)))


def test_filter_by_a_name_answers_as_for_an_unknown_one_and_by_a_pseudonym_it_finds(site: Site) -> None:
    client = site.client("analyst")
    for path in ("/v1/incidents", "/v1/incidents/facets"):
        by_name, unknown = (client.get(f"{path}?entity={name}") for name in (NAMES[0], "nobody"))
        assert by_name.status_code == 200
        assert {**by_name.json(), "as_of": 0} == {**unknown.json(), "as_of": 0}
    for role in ("analyst", "investigator"):
        (row,) = site.client(role).get(f"/v1/incidents?entity={site.pseudonym()}").json()["incidents"]
        assert row["id"] == site.ann
    page = client.get(f"/?view=all&entity={site.pseudonym()}").text
    assert re.findall(r'data-id="([^"]+)"', page) == [site.ann]
    bulk = client.post(f"/v1/incidents/actions?entity={NAMES[0]}", json={"kind": "acknowledge"})
    assert bulk.json()["incidents"] == 0
    words = client.get("/v1/incidents?text=canary")
    assert (words.status_code, words.json()["type"]) == (403, "/problems/masked")


def test_pages_of_a_masked_list_follow_each_other_without_a_name_in_the_cursor(site: Site) -> None:
    client, ids, after = site.client("viewer"), [], ""
    while True:
        page = client.get(f"/v1/incidents?limit=2{after}").json()
        ids += [row["id"] for row in page["incidents"]]
        if page["next"] is None:
            break
        after = f"&cursor={page['next']}"
        assert b"canary" not in base64.b64decode(page["next"] + "==", b"-_")
    assert sorted(ids) == sorted(one.id for one in site.incidents)


def test_profiles_and_rankings_of_people_need_the_right(site: Site) -> None:
    people = ["/v1/users", "/v1/ranking", f"/v1/users/{NAMES[0]}", "/v1/users/nobody", "/v1/batch/report",
              "/v1/batch/anomalies", f"/v1/batch/users/{NAMES[0]}", f"/v1/users/{NAMES[0]}/timeline",
              f"/v1/incidents/{site.ann}/events"]  # fmt: skip
    for role in MASKED:
        for path in people:
            answer = site.client(role).get(path)
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/masked"), path
    assert site.client("investigator").get("/v1/ranking").status_code == 200


def test_texts_of_people_who_see_pseudonyms_are_shown_to_their_colleagues(site: Site) -> None:
    assert site.act("analyst", kind="comment", text="ticket 4711").status_code == 200
    for role in MASKED:
        case = site.client(role).get(f"/v1/incidents/{site.ann}").json()["case"]
        assert [one["text"] for one in case["comments"]] == ["(masked)", "ticket 4711"]
    case = site.client("investigator").get(f"/v1/incidents/{site.ann}").json()["case"]
    assert [one["text"] for one in case["comments"]] == [TEXTS[4], "ticket 4711"]


def test_every_name_that_is_shown_is_recorded_first_and_none_is_shown_without_a_record(site: Site) -> None:
    audit = site.privacy.audit
    audit.records.clear()
    client = site.client("investigator")
    for path in (
        f"/v1/incidents/{site.ann}",
        "/v1/incidents",
        f"/v1/users/{NAMES[0]}",
        f"/incidents/{site.ann}",
    ):
        client.get(path)
    assert [(by, what, subject) for by, _, what, subject, _ in audit.records] == [
        ("investigator", "GET /v1/incidents/{id}", site.ann),
        ("investigator", "GET /v1/incidents", ""),
        ("investigator", "GET /v1/users/{name}", site.pseudonym()),
        ("investigator", "GET /incidents/{id}", site.ann),
    ]
    audit.records.clear()
    assert site.client("analyst").get(f"/v1/incidents/{site.ann}").status_code == 200
    assert audit.records == []
    audit.broken = True
    refused = client.get(f"/v1/incidents/{site.ann}")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/no-audit")
    assert found(site, "investigator") == {}
    assert site.client("analyst").get(f"/v1/incidents/{site.ann}").status_code == 200


def test_server_without_keys_of_pseudonyms_shows_nothing(site: Site) -> None:
    site.service.privacy = None
    for role in ROLES:
        assert site.client(role).get("/v1/incidents").status_code == 503
        assert site.client(role).get(f"/v1/incidents/{site.ann}").status_code == 503


def texts_of(kind: Any, seen: set[Any]) -> Iterator[tuple[type, str]]:
    """(type, field) of every text that a type can hold, in itself and in the types of its fields."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind in seen:
            return
        seen.add(kind)
        for name, hint in get_type_hints(kind, include_extras=False).items():
            if name.startswith("__"):
                continue
            leaves = list(leaves_of(hint))
            if any(leaf in (str, Any, bytes) for leaf in leaves):
                yield kind, name
            for leaf in leaves:
                yield from texts_of(leaf, seen)


def leaves_of(hint: Any) -> Iterator[Any]:
    """The types that a hint names; the texts of a literal are one text."""
    parts = get_args(hint)
    if not parts or not any(isinstance(part, type) or get_args(part) or part is Any for part in parts):
        yield str if parts else hint
        return
    for part in parts:
        yield from leaves_of(part)


def test_every_text_of_an_answer_is_classified() -> None:
    masked = (
        answers.Incidents, answers.Facets, answers.IncidentAnswer, answers.CampaignAnswer, answers.Statistics,
        answers.BulkAnswer, answers.EarlierIncidents, answers.Audit, answers.Unmaskings, DeadLetterSummary,
        RunEntry, BatchTotals,
        *CaseAction.__args__,
    )  # fmt: skip
    special = {("Entity", "value"), ("Scope", "entity")}
    missing = [
        f"{kind.__name__}.{name}"
        for answer in masked
        for kind, name in texts_of(answer, set())
        if name not in classification.classes(kind) and (kind.__name__, name) not in special
    ]
    assert not missing
    for kind, fields in classification.CLASSES.items():
        assert set(fields) <= set(kind.__struct_fields__), kind


def test_every_question_is_asked_through_the_view_of_the_caller() -> None:
    for module in (seen, seen_people):
        for view in vars(module).values():
            if isinstance(view, type) and view.__name__.startswith("Seen") and view is not seen.SeenService:
                inner = view.__bases__[0]
                public = {name for name in vars(inner) if not name.startswith("_")} - {"close"}
                assert public <= set(vars(view)), f"{view.__name__} lacks {public - set(vars(view))}"


def test_rights_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
    for right, roles in RIGHTS.items():
        (cells,) = re.findall(rf"^\| `{right}` \|(.*)\|$", text, re.MULTILINE)
        marks = [cell.strip() for cell in cells.split("|")[1:]]
        assert [bool(mark) for mark in marks] == [role in roles for role in ROLES], right
    assert not any(may(role, "see_people") for role in MASKED)  # type: ignore[arg-type]


def test_pseudonym_is_stable_for_a_key_and_differs_for_another_key_and_kind() -> None:
    made = PSEUDONYMS.of("user", "ann")
    assert made == Pseudonyms(bytes(range(32))).of("user", "ann") and is_pseudonym(made)
    assert len({made, Pseudonyms(bytes(32)).of("user", "ann"), PSEUDONYMS.of("source", "ann")}) == 3
    assert PSEUDONYMS.of("crowd", "partition 2") == "partition 2"
    assert len({PSEUDONYMS.of("user", f"user-{k}") for k in range(20_000)}) == 20_000


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    made = key_of("", tmp_path)
    assert len(made) == 32 and key_of("", tmp_path) == made
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
    given = tmp_path / "given"
    given.write_bytes(b"k" * 20)
    assert key_of(str(given), tmp_path) == b"k" * 20
    given.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="has 5 bytes"):
        key_of(str(given), tmp_path)
    with pytest.raises(ConfigurationError, match=r"serve\.pseudonym_key_file"):
        key_of(str(tmp_path / "missing"), tmp_path)


def test_store_of_another_key_gives_every_incident_its_pseudonym_again(tmp_path: Path) -> None:
    updates = placed([incident("ann", NOON, {"resource": 21.0})])
    store = filled(tmp_path, updates)
    before = list(store.export())
    store.close()
    other = Pseudonyms(bytes(32))
    again = Store(tmp_path, 18.0, other.of, other.fingerprint)
    assert list(again.export()) == before  # an export has no pseudonyms, so servers with different keys agree
    (row,) = again.reader().execute("SELECT pseudonym FROM incidents").fetchall()
    assert row[0] == other.of("user", "ann")
    again.close()


def unmask(site: Site, by: str = "analyst", **body: Any) -> Any:
    return site.client(by).post(
        f"/v1/incidents/{site.ann}/unmask", json=body or {"reason": "a mail was sent"}
    )


def answer(site: Site, id: str, by: str = "privacy_officer", granted: bool = True) -> Any:
    return site.client(by).post(f"/v1/unmaskings/{id}", json={"granted": granted, "reason": "as agreed"})


def names_seen(site: Site, by: str = "analyst") -> bool:
    found = site.client(by).get(f"/v1/incidents/{site.ann}").json()
    assert found["masked"] == (NAMES[0] not in str(found["incident"]))
    return not found["masked"]


def test_earlier_incidents_stay_masked_beside_one_that_is_unmasked(site: Site) -> None:
    other = msgspec.structs.replace(
        incident("canary-other", NOON - 3_600_000, {"resource": 20.0}, "exfiltration"), id="0-90-18bcfe5687b"
    )
    add(site.store, [at(90, other)])
    body = {"kind": "close", "classification": "false_positive", "reason": TEXTS[5]}
    assert site.client("investigator").post(f"/v1/incidents/{other.id}/actions", json=body).status_code == 200
    answer(site, unmask(site).json()["id"])
    assert names_seen(site)
    path = f"/v1/incidents/{site.ann}/earlier"
    (shown,) = site.client("analyst").get(path).json()["earlier"]
    assert shown["incident"]["entity"]["value"] == PSEUDONYMS.of("user", "canary-other")
    assert shown["closed"]["text"] == "(masked)" and shown["closed"]["value"] == "false_positive"
    page = site.client("analyst").get(f"/incidents/{site.ann}", headers={"Accept": "text/html"}).text
    assert NAMES[0] in page and "canary-other" not in page
    (named,) = site.client("investigator").get(path).json()["earlier"]
    assert (named["incident"]["entity"]["value"], named["closed"]["text"]) == ("canary-other", TEXTS[5])


def clock(site: Site, monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    for module in ("requests", "unmasking"):
        monkeypatch.setattr(f"streamguard.serving.query.{module}.now", lambda: time)


def test_names_are_shown_after_somebody_else_has_granted_them_and_for_eight_hours(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(site, monkeypatch, "2026-11-30T08:00:00.000Z")
    asked = unmask(site).json()
    assert (asked["state"], asked["by"], asked["until"]) == ("open", "analyst", None)
    assert not names_seen(site)
    assert unmask(site).json()["id"] == asked["id"], "an open request is the answer to the next one"
    (open_one,) = site.client("privacy_officer").get("/v1/unmaskings?state=open").json()["requests"]
    assert (open_one["id"], open_one["reason"]) == (asked["id"], "a mail was sent")
    clock(site, monkeypatch, "2026-11-30T09:00:00.000Z")
    granted = answer(site, asked["id"]).json()
    assert (granted["state"], granted["until"]) == ("granted", "2026-11-30T17:00:00.000Z")
    assert names_seen(site) and not names_seen(site, "viewer")
    detail = site.client("analyst").get(f"/v1/users/{NAMES[0]}")
    assert detail.json()["type"] != "/problems/masked", "the profile opens from the incident"
    assert site.client("analyst").get("/v1/users/bob").status_code == 403
    row = site.client("analyst").get(f"/v1/incidents?entity={site.pseudonym()}").json()["incidents"][0]
    assert row["entity"]["value"] == site.pseudonym(), "lists stay masked"
    clock(site, monkeypatch, "2026-11-30T17:00:00.001Z")
    assert not names_seen(site)
    assert site.client("analyst").get(f"/v1/users/{NAMES[0]}").status_code == 403
    details = [(by, subject, detail) for by, _, _, subject, detail in site.privacy.audit.records if detail]
    assert ("analyst", site.ann, "asked") in details
    assert ("privacy_officer", asked["id"], "granted") in details


def test_nobody_grants_their_own_request(site: Site) -> None:
    asked = unmask(site, "privacy_officer").json()
    own = answer(site, asked["id"])
    assert own.status_code == 409 and "somebody else" in own.json()["detail"]
    assert answer(site, asked["id"], "officer2").json()["state"] == "granted"
    assert names_seen(site, "privacy_officer")


def test_answer_stands_and_refusal_shows_nothing(site: Site) -> None:
    asked = unmask(site).json()
    assert answer(site, asked["id"], granted=False).json()["state"] == "refused"
    assert answer(site, asked["id"], granted=False).status_code == 200
    assert answer(site, asked["id"], "officer2").status_code == 409
    assert not names_seen(site)
    answers = [
        one["id"] for one in site.client("admin").get(f"/v1/incidents/{site.ann}").json()["case"]["history"]
    ]
    undone = site.act("analyst", kind="undo", undoes=answers[-1])
    assert undone.status_code == 409 and "cannot be undone" in undone.json()["detail"]
    assert unmask(site).json()["id"] != asked["id"], "a person may ask again"


def test_critical_incident_is_unmasked_at_once_and_looked_at_afterwards(site: Site) -> None:
    (ann,) = (one for one in site.incidents if one.id == site.ann)
    risen = msgspec.structs.replace(ann, count=9, evidence_bits=80.0, severity="critical")
    site.store.add_updates(ALERTS, placed([*site.incidents, risen])[-1:], {0: (99, 1)})
    asked = unmask(site).json()
    assert asked["state"] == "at_once" and names_seen(site)
    (notice,) = site.client("privacy_officer").get("/v1/unmaskings?state=at_once").json()["requests"]
    assert notice["id"] == asked["id"]
    assert answer(site, asked["id"], granted=False).json()["until"] is None
    assert not names_seen(site)
    again = unmask(site).json()
    assert (again["state"], names_seen(site)) == ("open", False), "who was masked again waits for an answer"
    answer(site, again["id"])
    assert names_seen(site)


@pytest.mark.parametrize(
    ("role", "status"), [("viewer", 403), ("investigator", 403), ("analyst", 200), ("privacy_officer", 200)]
)
def test_roles_limit_who_asks(site: Site, role: str, status: int) -> None:
    assert unmask(site, role).status_code == status
    asked = unmask(site, "analyst").json()["id"]
    assert answer(site, asked, role).status_code == (200 if role == "privacy_officer" else 403)


def test_request_needs_a_reason_and_an_incident(site: Site) -> None:
    assert unmask(site, reason=" ").status_code == 400
    assert unmask(site, other="x").status_code == 400
    client = site.client("analyst")
    assert client.post("/v1/incidents/none/unmask", json={"reason": "x"}).status_code == 404
    assert answer(site, "none").status_code == 404


def test_people_see_their_own_requests_and_those_who_answer_see_all(site: Site) -> None:
    unmask(site)
    assert len(site.client("privacy_officer").get("/v1/unmaskings").json()["requests"]) == 1
    assert site.client("viewer").get("/v1/unmaskings").json()["requests"] == []
    assert len(site.client("analyst").get("/v1/unmaskings").json()["requests"]) == 1


def test_requests_are_part_of_the_export_and_follow_from_the_topic(site: Site, tmp_path: Path) -> None:
    answer(site, unmask(site).json()["id"])
    assert b"granted" in b"".join(site.store.export())
    again = filled(tmp_path / "again", placed(site.incidents))
    rebuilt = Topic(again)
    for action in site.topic.written:
        rebuilt.write(action)
    assert list(again.export()) == list(site.store.export())
    assert NameQueries(again, lambda: ()).shown_of(site.ann, "analyst")
    with again.transaction() as db:
        again.clear_actions(db)
    assert not NameQueries(again, lambda: ()).shown_of(site.ann, "analyst")
    again.close()
