"""The report: strict JSON, no claims about unknown values, and a page in which hostile texts stay texts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import DecodeError
from msgspec.structs import replace

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity
from streamguard.batch.detection.clusters import peer_groups
from streamguard.batch.folded_history import FoldedHistory
from streamguard.batch.folding.fold_result import FoldResult
from streamguard.batch.folding.resume import HistoryMetadata
from streamguard.batch.reporting import html, report
from streamguard.batch.reporting.ranking import INCIDENTS_SHOWN, ranking
from streamguard.batch.reporting.users import export_users
from streamguard.events.event import Refusal
from streamguard.events.refusals import Refusals, count
from streamguard.fold.features import NAMES
from streamguard.models.train import train
from streamguard.pictures.wording import MAX_SHOWN
from streamguard.runs.report import Check, Model, Report, decode, encode
from streamguard.settings.schema import Clusters, Detection, Settings
from tests.batches import detected, fold_result, incident, with_incidents

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)",
    "{{ 7 * 7 }}{% include 'x' %}",
    "</style><script>alert(4)</script>",
    "ann\u202egnp.exe",
    "a\x00b\x1b[31m",
    "javascript:alert(5)",
    "x" * 500,
    "",
]


def made(history: FoldResult, *, algorithm: str = "both", drift: dict[str, float] | None = None) -> Report:
    forest = train(history.sample.features, trees=20) if algorithm != "kmeans" else None
    peers = peer_groups(history.usual, Clusters(), seed=0) if algorithm != "isolation_forest" else None
    found = detected(history, forest, peers)
    with tempfile.TemporaryDirectory() as directory:
        users = export_users(history, found, Path(directory))
    source = {"topic": "security-events", "cluster": "<b>c</b>"}
    n = len(history.sample)
    return report.build(
        "20260101T000000000000Z-abcd",
        FoldedHistory(HistoryMetadata(source, "", Detection(), n, {}, {}), history, "20251231T000000000000Z-0123"),
        found,
        users,
        settings=Settings(),
        algorithm=algorithm,
        started=1_767_225_600.0,
        finished=1_767_225_612.5,
        model=None
        if forest is None
        else Model(forest.version, False, "0123456789ab", "<i>Refused</i>: it alerts too much.", [
            Check("alert_rate", False, "0.9 % against 0.1 %: 9.0 times, 3.0 are allowed"),
            Check("trimmed_share", True, "1.2 %, 50 % are allowed"),
        ]),
        drift=drift,
        seconds={"plan": 0.5, "fold": 2.25},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> Report:
    return made(fold_result(), drift={name: 0.02 * k for k, name in enumerate(NAMES)})


def hostile() -> FoldResult:
    history = with_incidents(
        fold_result(names=HOSTILE),
        [
            replace(
                incident(name, k, event={"user": name, name: name}),
                severity="critical",
                reasons=(Reason(name, name, name, 3.0, 0.5),),
            )
            for k, name in enumerate(HOSTILE)
        ],
    )
    history.counts[0].refused_first.append((3, "not_json", HOSTILE[0]))
    count(
        history.counts[0].refusals, [Refusal(k, "not_json", "", name, name) for k, name in enumerate(HOSTILE)]
    )
    return history


class Page(HTMLParser):
    """The page as a browser parses it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def test_report_is_strict_json_and_round_trips(whole: Report) -> None:
    data = encode(whole)
    body = json.loads(data, parse_constant=refuse_constant)
    assert body["run_id"] == whole.run_id
    assert body["started"] == "2026-01-01T00:00:00.000Z"
    assert body["parameters"]["algorithm"] == "both"
    assert body["parameters"]["training"]["trees"] == 300
    assert encode(decode(data)) == data


def test_totals_add_up(whole: Report) -> None:
    totals = whole.totals
    assert totals.records == sum(r.records for r in whole.ranges) == 1000
    assert totals.events + totals.refused == totals.records
    assert totals.refused_by_reason == {"not_json": 4}
    assert totals.refusals == {"not_json": Refusals(4, {"ann": 4}, {"10.0.0.1": 2, "10.0.0.2": 2})}
    assert [r.detail for r in whole.refused_first] == ["expected a value", "<b>?"] * 2
    assert totals.alerted == sum(r.alerted for r in whole.ranges)
    assert totals.alert_rate == totals.alerted / totals.events
    assert sum(whole.distribution.events) == totals.sampled == 300
    assert (totals.training_rows, totals.trimmed_share) == (150, pytest.approx(4 / 300))


def test_page_names_the_users_and_sources_of_refused_records(whole: Report) -> None:
    text = Page(html.render(whole)).text
    assert "Most frequent users" in text
    assert all(name in text for name in ("ann", "10.0.0.1", "10.0.0.2"))


def test_bars_above_the_threshold_match_the_sampled_alerts() -> None:
    whole = made(fold_result(), algorithm="kmeans")
    width, bits = whole.distribution.width, whole.distribution.alert_bits
    first = int(np.ceil(bits / width))
    assert sum(whole.distribution.events[first:]) <= whole.totals.sampled_alerts
    assert whole.totals.sampled_alerts <= sum(whole.distribution.events[first - 1 :])


def test_groups_and_users_are_reported(whole: Report) -> None:
    assert sum(group.size for group in whole.groups) == whole.totals.users
    assert sum(group.at_risk for group in whole.groups) == whole.totals.users_at_risk
    assert all(len(group.traits) == report.TRAITS for group in whole.groups)
    risks = [user.evidence_bits for user in whole.users]
    assert risks == sorted(risks, reverse=True)
    assert whole.users[0].why


def test_incidents_have_the_peer_group_of_their_user() -> None:
    history = fold_result()
    crowd = replace(incident("partition 0", 9), entity=Entity("crowd", "partition 0"))
    history = with_incidents(history, [*history.incidents, crowd])
    incidents = made(history).incidents
    assert [type(one.peer_group) for one in incidents] == [int, int, int, type(None)]
    assert incidents[0].event == history.incidents[0].event
    assert {one.peer_group for one in made(history, algorithm="isolation_forest").incidents} == {None}


def test_users_are_reported_with_their_incidents() -> None:
    history = fold_result()
    crowd = replace(incident("user0000", 9), entity=Entity("crowd", "user0000"))
    history = with_incidents(history, [*history.incidents, incident("user0000", 1), crowd])
    reported = {user.user: (user.incidents, user.worst_incident_risk) for user in made(history).users}
    risk = history.incidents[0].risk
    assert reported["user0000"] == (2, max(risk, history.incidents[3].risk))
    assert reported["user0001"] == (1, risk)
    assert {reported[name] for name in reported.keys() - {"user0000", "user0001", "user0002"}} == {(0, None)}


def test_missing_parts_are_null() -> None:
    assert made(fold_result(), algorithm="kmeans").model is None
    assert made(fold_result()).drift is None
    alone = made(fold_result(), algorithm="isolation_forest")
    assert alone.groups == [] and alone.silhouette is None and alone.users[0].peer_group is None


@pytest.mark.parametrize("algorithm", ["both", "isolation_forest", "kmeans"])
def test_page_renders_for_every_algorithm(algorithm: str) -> None:
    page = Page(html.render(made(fold_result(), algorithm=algorithm)))
    assert "There is no earlier run that can be compared." in page.text
    assert ("This run computed no peer groups." in page.text) == (algorithm == "isolation_forest")


def test_page_renders_without_findings() -> None:
    nothing = with_incidents(fold_result(sampled=0, alerts=0, users=1), [])
    for tables in nothing.users.values():
        for table in tables:
            table.event_bits[:] = table.incident_bits[:] = 0
    page = Page(html.render(made(nothing, algorithm="kmeans")))
    assert "no event of this run reached the alert threshold" in page.text
    assert "There is no evidence against any user." in page.text


def test_numbers_on_the_page_agree_with_their_nouns(whole: Report) -> None:
    totals = replace(whole.totals, sampled=1, records=1, refused=0)
    incidents = [*whole.incidents[1:], *whole.incidents[:1] * (INCIDENTS_SHOWN + 1)]
    text = Page(html.render(replace(whole, totals=totals, incidents=incidents))).text
    assert "a uniform sample of 1 event from" in text
    assert "0 of 1 record refused" in text
    assert "1 more incident: see" in text


def test_one_ranking_has_everybody_once_in_the_order_of_the_evidence(whole: Report) -> None:
    crowd = replace(whole.incidents[0], entity=Entity("crowd", "partition 0"), evidence_bits=99.0)
    beyond = replace(whole.incidents[0], entity=Entity("user", "nobody else"), evidence_bits=0.01)
    entries = ranking(replace(whole, incidents=[*whole.incidents, crowd, beyond]))
    expected = {("user", user.user, user.evidence_bits) for user in whole.users}
    expected |= {("crowd", "partition 0", 99.0), ("user", "nobody else", 0.01)}
    assert {(one.entity.kind, one.entity.value, one.evidence) for one in entries} == expected
    assert len(entries) == len(expected)
    assert [one.evidence for one in entries] == sorted((bits for _, _, bits in expected), reverse=True)
    assert [one.place for one in entries] == list(range(1, len(entries) + 1))
    of_users = [len(one.incidents) for one in entries if one.user is not None]
    assert sum(of_users) == len(whole.incidents)


def test_users_and_addresses_of_the_same_events_are_linked(whole: Report) -> None:
    user = whole.incidents[0].entity.value
    event = {"user": user, "source_ip": "::ffff:192.0.2.7"}
    address = replace(
        whole.incidents[0], entity=Entity("source", "192.0.2.7"), event=event, evidence_bits=50.0
    )
    shown = replace(whole, incidents=[*whole.incidents, address])
    entries = {(one.entity.kind, one.entity.value): one for one in ranking(shown)}
    of_address, of_user = entries["source", "192.0.2.7"], entries["user", user]
    assert of_address.related == [of_user] and of_user.related == [of_address]
    text = html.render(shown)
    assert f'Connected with: <a href="#e{of_user.place}">user {user}</a>' in text
    assert f'Connected with: <a href="#e{of_address.place}">source 192.0.2.7</a>' in text


def test_every_link_leads_to_a_place_of_the_page(whole: Report) -> None:
    page = Page(html.render(whole))
    places = [value for _, name, value in page.attributes if name == "id"]
    assert len(places) == len(set(places))
    targets = {(value or "")[1:] for _, name, value in page.attributes if name == "href"}
    assert targets <= set(places)
    assert {f"e{place}" for place in range(1, min(html.SHOWN, len(ranking(whole))) + 1)} <= targets


def test_reasons_stand_with_what_is_usual_and_a_bar(whole: Report) -> None:
    page = Page(html.render(whole))
    reason = whole.incidents[0].reasons[0]
    assert f"seen {reason.actual}usual {reason.typical}" in page.text
    assert ("svg", "aria-label", f"{reason.share * 100:.0f} %") in page.attributes


def test_plots_of_time_count_every_incident_once(whole: Report) -> None:
    last = replace(whole.ranges[0], last_seen="2023-11-16T01:00:00.000Z")
    found = html._when(replace(whole, ranges=[last]))
    assert [(day.label, day.amount) for day in found.days] == [
        ("2023-11-14", len(whole.incidents)), ("2023-11-15", 0), ("2023-11-16", 0),
    ]  # fmt: skip
    hours = {hour: share for hour, share in enumerate(found.hours) if share}
    assert hours == {24 + 22: 1.0}  # a Tuesday, 22:13 UTC
    far = replace(whole.incidents[0], first_seen="2020-01-01T00:00:00.000Z")
    assert len(html._when(replace(whole, incidents=[*whole.incidents, far])).days) == html.MAX_DAYS


def test_report_of_another_format_is_refused(whole: Report) -> None:
    with pytest.raises(DecodeError, match="format 1, this version reads 2"):
        decode(encode(replace(whole, format=1)))


def test_hostile_texts_are_escaped() -> None:
    plain, text = Page(html.render(made(fold_result(), drift={}))), html.render(made(hostile(), drift={}))
    page = Page(text)
    assert page.tags == plain.tags
    assert {name for _, name, _ in page.attributes} == {name for _, name, _ in plain.attributes}
    assert page.tags.isdisjoint({"script", "img", "iframe", "link", "object", "form", "base"})
    assert HOSTILE[0] in page.text and "{{ 7 * 7 }}" in page.text
    assert not re.search("[\u202a-\u202e\x00\x1b]", text)
    assert "x" * 100 not in page.text.partition("Why")[0]
    assert "x" * (MAX_SHOWN + 1) not in re.sub("<pre.*?</pre>", "", text, flags=re.DOTALL)


def test_page_loads_nothing_and_runs_no_script(whole: Report) -> None:
    text = html.render(whole)
    page = Page(text)
    policy = next(
        v for t, n, v in page.attributes if (t, n) == ("meta", "content") and "default-src" in (v or "")
    )
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")
    assert {n for _, n, _ in page.attributes}.isdisjoint({"src", "style", "srcset", "action"})
    assert all((value or "").startswith("#") for _, name, value in page.attributes if name == "href")
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert not re.search(r"https?://|url\(|@import", text)


def test_content_security_policy_allows_the_style_sheet(whole: Report) -> None:
    import base64
    import hashlib

    text = html.render(whole)
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in text


def test_plots_stay_inside_their_frames(whole: Report) -> None:
    scores = html._scores(whole.distribution)
    width, height = html.PLOT
    assert len(scores.bars) == sum(count > 0 for count in whole.distribution.events)
    for bar in scores.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= width
        assert bar.height > 0 and 0 <= bar.y <= bar.y + bar.height <= height + 0.01
    assert 0 < scores.threshold <= width
    assert {bar.alarming for bar in scores.bars} == {False, True}


def test_report_modules_import_no_heavy_library() -> None:
    code = (
        "import sys, streamguard.batch.runs;"
        "import streamguard.batch.detection.clusters, streamguard.batch.detection.assessment;"
        "import streamguard.batch.reporting.export, streamguard.batch.reporting.report;"
        "import streamguard.batch.reporting.html;"
        "print(sorted({'sklearn', 'pyarrow', 'pandas', 'pyspark', 'jinja2', 'markupsafe'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert out.strip() == "[]"
