"""Forms of the page without a browser: durations, questions, what a refused form keeps, and history in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamguard.errors import UnavailableError
from streamguard.events.ending import EndError, end_ms
from streamguard.events.event_time import epoch_ms
from streamguard.models.key import key_of
from streamguard.serving.page import bulk as bulk_page
from streamguard.serving.query import cases, requests
from streamguard.serving.query.bulk import ChangedListError
from streamguard.serving.query.detection import DetectionDesk, DetectionRequest
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.requests import ActionRequest
from streamguard.settings.schema import Models, Settings
from tests.serving_forms import asked, confirmed, forms
from tests.serving_stores import add, at
from tests.unit import test_serving_masking as masking
from tests.unit.test_campaigns import NOON, incident
from tests.unit.test_serving_actions import Site

DAY = 86_400_000
NOW = NOON + 100 * DAY


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


@pytest.fixture
def masked(tmp_path: Path) -> Iterator[masking.Site]:
    site = masking.Site(tmp_path)
    yield site
    site.store.close()


def case(site: Site, id: str = "") -> Any:
    return site.service.incidents.incident(id or site.ann).case


def alert(page: str) -> str:
    (found,) = re.findall(r'<p [^>]*role="alert" id="problem"[^>]*>(.*?)</p>', page)
    return html.unescape(found)


def value(page: str, form: str, field: str) -> str:
    """What a field of a form that is unfolded has."""
    part = page[page.index(f'<details data-key="{form}" open>') :]
    (found,) = re.findall(rf'name="{field}" value="([^"]*)"', part[: part.index("</form>")])
    return html.unescape(found)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("7d", NOW + 7 * DAY),
        ("12h", NOW + DAY // 2),
        (" 90m ", NOW + 5_400_000),
        ("2099-12-31", epoch_ms("2099-12-31")),
        ("2099-12-31T08:00:00+02:00", epoch_ms("2099-12-31T06:00:00Z")),
    ],
)
def test_end_is_a_time_or_a_duration_from_now(text: str, end: int) -> None:
    assert end_ms(text, NOON, NOW) == end


def test_duration_begins_at_the_latest_alert_if_that_is_later_than_now() -> None:
    assert end_ms("1d", NOW + DAY, NOW) == NOW + 2 * DAY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "not a time and not a duration"),
        ("", "not a time and not a duration"),
        ("7", "is not later than"),
        ("2001-01-01", "is not later than"),
        ("1s", "out of range"),
        ("400d", "out of range"),
        ("9" * 40 + "d", "not a time and not a duration"),
        ("9e23", "not a time and not a duration"),
        ("\u0667d", "not a time and not a duration"),
    ],
)
def test_text_that_is_no_end_is_refused(text: str, why: str) -> None:
    with pytest.raises(EndError, match=why):
        end_ms(text, NOON, NOW)


def test_mute_snooze_and_their_preview_take_durations(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "now_ms", lambda: NOW)
    preview = site.client().get(f"/v1/incidents/{site.ann}/mute?until=7d").json()
    assert epoch_ms(preview["until"]) == NOW + 7 * DAY
    assert site.act(site.ann, kind="mute", until="7d").json()["row"]["muted"]
    assert epoch_ms(case(site).own_mutes[0].scope.until) == NOW + 7 * DAY
    assert site.act(site.bob, kind="snooze", until="12h").status_code == 200
    assert epoch_ms(case(site, site.bob).snoozed_until) == NOW + DAY // 2
    for kind in ("mute", "snooze"):
        past = site.act(site.bob, kind=kind, until="2001-01-01")
        assert past.status_code == 409 and "is not later than" in past.json()["detail"]


def test_mute_is_asked_about_with_the_end_as_a_time_and_with_what_the_person_saw(site: Site) -> None:
    client = site.signed_in()
    risen = msgspec.structs.replace(site.incidents[0], count=9)
    add(site.store, [at(50, risen)])
    to, fields = asked(
        client, f"/incidents/{site.ann}/act", kind="mute", until="7d", reason="a job", seen="3", expected=""
    )
    assert site.topic.written == []
    assert (to, fields["seen"], fields["expected"]) == (f"/incidents/{site.ann}/act", "3", "")
    assert epoch_ms(fields["until"]) is not None
    assert client.post(to, data=fields).status_code == 200
    (written,) = site.topic.written
    assert (written.scope.until, written.reason) == (fields["until"], "a job")  # type: ignore[union-attr]


def test_masked_person_is_asked_about_pseudonyms(masked: masking.Site) -> None:
    page = masked.client("analyst").post(f"/incidents/{masked.ann}/act", data={"kind": "mute"})
    assert page.status_code == 200 and "What it hides" in page.text
    assert not re.search(r"canary-|203\.0\.113\.77", page.text)


@pytest.mark.parametrize(
    ("key", "status", "fields"),
    [
        ("m", 409, {"kind": "mute", "until": "next week", "reason": "a job"}),
        ("s", 409, {"kind": "snooze", "until": "1s", "reason": "lunch"}),
        ("c", 409, {"kind": "comment", "text": " "}),
        ("k-close", 409, {"kind": "close", "classification": "wrong", "reason": "r"}),
        ("k-duplicate", 409, {"kind": "close", "duplicate_of": "none", "reason": "the same"}),
        ("k-duplicate", 400, {"kind": "close", "duplicate_of": "SELF", "reason": "the same"}),
        ("c", 409, {"kind": "comment", "text": '"><script>alert(1)</script>' * 200}),
    ],
)
def test_refused_form_is_shown_again_as_it_was_filled_in(
    site: Site, key: str, status: int, fields: dict[str, str]
) -> None:
    given = {name: site.ann if one == "SELF" else one for name, one in fields.items()}
    answer = site.signed_in().post(f"/incidents/{site.ann}/act", data=given)
    assert answer.status_code == status
    assert alert(answer.text) and "autofocus" in answer.text
    for name in given.keys() - {"kind", "classification"}:
        assert value(answer.text, key, name) == given[name]
    assert "<script>alert" not in answer.text
    assert site.topic.written == []


def test_field_that_is_wrong_is_marked_and_described_by_the_message(site: Site) -> None:
    answer = site.signed_in().post(f"/incidents/{site.ann}/act", data={"kind": "snooze", "until": "soon"})
    (marked,) = re.findall(
        r'<input name="(\w+)"[^>]*aria-invalid="true" aria-describedby="problem"', answer.text
    )
    assert marked == "until" and alert(answer.text).startswith("Until is not a time")


def test_button_that_is_refused_says_so_above_the_incident(site: Site) -> None:
    client = site.signed_in()
    answer = client.post(f"/incidents/{site.ann}/act", data={"kind": "undo", "undoes": "none"})
    assert answer.status_code == 409 and "there is no such action" in alert(answer.text)
    assert answer.text.index('id="problem"') < answer.text.index("<h1>")
    assert client.post("/incidents/none/act", data={"kind": "reopen"}).status_code == 404
    assert client.post("/incidents/none/act", data={"kind": "comment"}).status_code == 404


def test_form_that_may_have_been_written_is_repeated_as_the_same_action(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WAIT_SECONDS", 0.02)
    site.topic.held = True
    client = site.signed_in()
    late = client.post(f"/incidents/{site.ann}/act", data={"kind": "comment", "text": "hm"})
    assert late.status_code == 503 and "is not lost" in alert(late.text) and late.headers["Retry-After"]
    part = late.text[late.text.index('<details data-key="c" open>') :]
    ((to, fields), *_) = forms(part, f"/incidents/{site.ann}/act")
    site.topic.release()
    again = client.post(to, data=fields | {"text": value(late.text, "c", "text")})
    assert again.status_code == 200
    assert [one.text for one in case(site).comments] == ["hm"]
    refused = client.post(to, data={"kind": "comment", "text": " "})
    assert 'name="action"' not in refused.text


def test_address_of_an_answer_to_a_form_leads_back_when_it_is_opened_again(site: Site) -> None:
    client = site.signed_in()
    for path, to in (
        (f"/incidents/{site.ann}/act", f"/incidents/{site.ann}"),
        (f"/incidents/{site.ann}/decide", f"/incidents/{site.ann}"),
        ("/act?view=open&kind=user", "/?view=open&kind=user"),
    ):
        answer = client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, to)
        assert client.get(path).status_code == 200
    assert client.get("/act?statsu=new").status_code == 400
    assert site.topic.written == []


def test_error_is_shown_alone_if_the_incident_cannot_be(site: Site) -> None:
    client = site.signed_in()
    site.service.privacy.audit.broken = True
    answer = client.post(
        f"/incidents/{site.ann}/act",
        data={"kind": "snooze", "until": "soon"},
        headers={"Accept": "text/html"},
    )
    assert answer.status_code == 503 and "<details" not in answer.text


def test_unmasking_form_that_is_refused_keeps_its_reason(masked: masking.Site) -> None:
    client = masked.client("analyst")
    answer = client.post(f"/incidents/{masked.ann}/unmask", data={"reason": "x" * 2001})
    assert answer.status_code == 400 and alert(answer.text)
    assert f'name="reason" value="{"x" * 2001}"' in answer.text
    assert client.post(f"/incidents/{masked.ann}/unmask", data={"reason": " "}).status_code == 400


def test_answer_to_a_request_that_is_refused_keeps_its_reason(masked: masking.Site) -> None:
    client = masked.client("privacy_officer")
    request = masked.client("analyst").post(
        f"/v1/incidents/{masked.ann}/unmask", json={"reason": "a mail of the helpdesk"}
    )
    path = f"/privacy/{request.json()['id']}"
    answer = client.post(path, data={"granted": "no", "reason": "y" * 2001})
    assert answer.status_code == 400 and alert(answer.text)
    assert f'name="reason" value="{"y" * 2001}"' in answer.text
    assert client.post(path, data={"granted": "yes", "reason": "agreed"}).status_code == 200
    other = masked.client("officer2").post(path, data={"granted": "no", "reason": "no"})
    assert other.status_code == 409 and "has answered at" in alert(other.text)
    assert client.post("/privacy/none", data={"granted": "yes"}).status_code == 404


def test_filter_that_is_no_time_is_shown_again_without_a_list(site: Site) -> None:
    page = site.signed_in().get("/?view=open&since=yesterday&text=ann&severity=critical")
    assert page.status_code == 400 and alert(page.text).startswith("Since is not a time")
    assert 'name="since" value="yesterday"' in page.text and 'name="text" value="ann"' in page.text
    assert '<input type="hidden" name="severity" value="critical">' in page.text
    assert 'data-id="' not in page.text and "/act" not in page.text and 'data-page=""' in page.text
    assert site.client().get("/v1/incidents?since=yesterday").status_code == 400


def test_action_on_a_list_is_confirmed_for_its_incidents_and_no_others(site: Site) -> None:
    desk = site.service.cases
    assert desk is not None
    close, everything = ActionRequest(kind="close", reason="a drill"), IncidentFilter(status=("new",))
    preview = desk.preview_list(everything, close)
    assert preview.incidents == 6
    site.act(site.ann, by="carl", kind="close")
    zoe = incident("zoe", NOON, {"resource": 22.0})
    add(site.store, [at(60, zoe)])
    with pytest.raises(ChangedListError) as changed:
        desk.act_on_list(everything, close, "alice", confirmed=preview.fingerprint)
    found = changed.value.found
    assert found.incidents == 6 and found.fingerprint != preview.fingerprint
    answer = desk.act_on_list(everything, close, "alice", confirmed=found.fingerprint)
    assert (answer.incidents, answer.accepted) == (6, 6)


def test_page_says_what_is_different_from_what_was_confirmed(site: Site) -> None:
    client = site.signed_in()
    to, fields = asked(client, "/act?view=open", kind="close", reason="a drill", back="view=open")
    assert fields["count"] == "6" and fields["reason"] == "a drill"
    site.act(site.ann, by="carl", kind="close")
    fewer = client.post(to, data=fields)
    assert fewer.status_code == 409 and "it had 6 incidents, and has 5 now" in alert(fewer.text)
    assert len(site.topic.written) == 1
    ((to, fields),) = forms(fewer.text, "/act")
    site.act(site.bob, by="carl", kind="close")
    zoe = incident("zoe", NOON, {"resource": 22.0})
    add(site.store, [at(60, zoe)])
    others = client.post(to, data=fields)
    assert "it has 5 incidents as before, but other ones" in alert(others.text)
    ((to, fields),) = forms(others.text, "/act")
    done = client.post(to, data=fields)
    assert "Done for 5 of 5 incidents." in done.text and 'href="/?view=open"' in done.text
    assert case(site, zoe.id).reason == "a drill"
    gone = client.post(to, data=fields | {"action": ""})
    assert gone.status_code == 409 and 'id="filter"' in gone.text and alert(gone.text)


def test_confirmation_that_is_sent_twice_acts_once(site: Site) -> None:
    client = site.signed_in()
    to, fields = asked(client, "/act?view=open", kind="acknowledge", assignee="alice")
    for _ in range(2):
        assert "Done for 6 of 6 incidents." in client.post(to, data=fields).text
    assert len(site.topic.written) == 1


def test_confirmation_that_kafka_did_not_take_is_asked_for_again_as_the_same_action(site: Site) -> None:
    client = site.signed_in()
    to, fields = asked(client, "/act?view=open", kind="close", reason="a drill")
    site.topic.failing = True
    failed = client.post(to, data=fields)
    assert failed.status_code == 503 and alert(failed.text) == str(UnavailableError("no broker answers"))
    site.topic.failing = False
    ((to, again),) = forms(failed.text, "/act")
    assert again == fields
    assert "Done for 6 of 6 incidents." in client.post(to, data=again).text


def test_list_that_is_too_long_is_shown_again_with_the_form(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "MAX_BULK", 5)
    fields = {"kind": "close", "classification": "benign_positive", "reason": "a drill", "back": "sort=time"}
    page = site.signed_in().post("/act?view=open&kind=user&kind=source&kind=crowd", data=fields)
    assert page.status_code == 409 and "narrow it by a filter" in alert(page.text)
    part = page.text[page.text.index('<details class="bulk" open>') :]
    assert 'name="reason" value="a drill"' in part
    assert '<option value="benign_positive" selected>' in part
    assert '<option value="time" selected>' in page.text


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example/?a=b", '"><b>', "a=b&" * 5000])
def test_way_back_is_always_a_list_of_this_page(site: Site, back: str) -> None:
    done = confirmed(site.signed_in(), "/act?view=open", kind="acknowledge", back=back[:15_000])
    links = [html.unescape(one) for one in re.findall(r'<a id="back" href="([^"]*)"', done.text)]
    assert len(links) == 1 and links[0].startswith("/?") and "<b>" not in done.text
    assert len(links[0]) <= 2 + bulk_page.MAX_BACK


def test_action_that_is_undone_already_has_a_way_back(site: Site) -> None:
    client = site.signed_in()
    done = confirmed(client, "/act?view=open", kind="acknowledge", back="view=open").text
    ((to, fields),) = forms(done, "/act/")
    assert client.post(to, data=fields).status_code == 200
    again = client.post(to, data=fields)
    assert again.status_code == 409 and "has no effect any more" in again.text
    assert 'href="/?view=open"' in again.text


def test_history_says_in_words_what_was_undone(site: Site) -> None:
    site.act(site.ann, by="carl", kind="close", classification="false_positive", reason="a test")
    closed = case(site).last_action
    site.act(site.ann, kind="undo", undoes=closed)
    at_time = case(site).history[0].at[:16].replace("T", " ")
    page = html.unescape(site.signed_in().get(f"/incidents/{site.ann}").text)
    history = page[page.index('<table class="history">') :]
    history = history[: history.index("</table>")]
    assert f"undo of what carl did at {at_time} UTC: close as false positive" in history
    assert "close as false positive (undone by alice)" in history
    assert closed not in history


def incident_page(site: masking.Site) -> str:
    return html.unescape(site.client("investigator").get(f"/incidents/{site.ann}").text)


def test_decision_without_a_key_says_what_is_missing_and_how_to_get_it(masked: masking.Site) -> None:
    page = incident_page(masked)
    for key in ("e", "!"):
        part = page[page.index(f'<details data-key="{key}">') :]
        part = part[: part.index("</details>")]
        assert "this server has no key: create one with `openssl rand -out models.key 32`" in part
        assert "models.key_file" in part and "<form" not in part
    refused = masked.client("investigator").post(
        f"/v1/incidents/{masked.ann}/detection", json={"decision": "expected"}
    )
    assert refused.status_code == 501 and "openssl rand" in refused.json()["detail"]


def test_decision_with_a_key_has_its_form_and_a_mistake_keeps_it(
    masked: masking.Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "models.key"
    key.write_bytes(bytes(range(32)))
    settings = Settings(models=Models(key_file=str(key)))
    assert key_of(settings.models)
    sources, own = masked.service.sources, masked.service.cases
    assert sources is not None and own is not None
    desk = DetectionDesk(settings, masked.service.incidents, own)
    masked.service.sources = sources._replace(detection=desk)
    page = incident_page(masked)
    assert "openssl" not in page
    (choice,) = set(re.findall(r'<option value="(resource=[^"]*)"', page))
    fields = {"decision": "expected", "field": choice, "until": "next year", "reason": "a new share"}
    answer = masked.client("investigator").post(f"/incidents/{masked.ann}/decide", data=fields)
    assert answer.status_code == 409 and alert(answer.text).startswith("Until is not a time")
    assert value(answer.text, "e", "until") == "next year"
    assert value(answer.text, "e", "reason") == "a new share"
    assert f'<option value="{choice}" selected>' in answer.text
    monkeypatch.setattr(requests, "now_ms", lambda: NOW)
    preview = desk.preview(masked.ann, DetectionRequest(decision="expected", until="7d"))
    assert epoch_ms(preview.until or "") == NOW + 7 * DAY
    key.unlink()
    assert "models.key_file" in incident_page(masked)
