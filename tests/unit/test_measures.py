"""The measures of the ranked list agree with a plain computation; the sweep and its page show them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.campaigns.budget import Decision, decide
from streamguard.campaigns.campaign import Campaign
from streamguard.campaigns.measures import LabelledCampaign, measure, sweep
from streamguard.cli import sweep_page
from streamguard.cli.sweep_text import curve, outcomes, summary

NAMES = ("spray", "tunnel", "insider", "older")
USERS = ("ann", "bob", "eve")
TRUTH = [
    LabelledCampaign("spray", "T1110.003", frozenset({"ann", "bob"})),
    LabelledCampaign("tunnel", None, frozenset()),
    LabelledCampaign("insider", None, frozenset({"eve"})),
]


def row(
    number: int, score: float, incidents: tuple[str, ...], entered: tuple[str, ...] = (), hour: int = 0
) -> Campaign:
    time = f"2025-01-{6 + hour // 24:02}T{hour % 24:02}:00:00.000Z"
    return Campaign(
        id=f"row-{number}", kind=f"kind-{number % 3}", technique="T1", first_seen=time, last_seen=time, score=score,
        evidence_bits=score, risk=1.0, severity="low", alerts=1, users=0, accounts=len(entered), addresses=0,
        size=len(incidents), tried=(), entered=entered, sources=(), incidents=incidents, patterns=(), reasons=(),
    )  # fmt: skip


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[Campaign], dict[str, Decision], dict[str, dict[str | None, int]]]:
    """A ranked list with decisions, and the labels of its incidents."""
    rows, labels = [], {}
    for number in range(draw(st.integers(0, 12))):
        ids = tuple(f"{number}-{k}" for k in range(draw(st.integers(1, 4))))
        for id in ids:
            labels[id] = draw(
                st.dictionaries(st.sampled_from((*NAMES, None)), st.integers(1, 5), min_size=1, max_size=3)
            )
        entered = tuple(sorted(draw(st.sets(st.sampled_from(USERS)))))
        rows.append(row(number, draw(st.floats(5.0, 45.0)), ids, entered, draw(st.integers(0, 47))))
    rows.sort(key=lambda one: -one.score)
    decisions = {one.id: Decision(draw(st.booleans()), 18.0, "above the floor") for one in rows}
    return rows, decisions, labels


@given(lists())
def test_measures_agree_with_a_plain_computation(
    given_list: tuple[list[Campaign], dict[str, Decision], dict[str, dict[str | None, int]]],
) -> None:
    rows, decisions, labels = given_list
    found = measure(rows, decisions, labels, TRUTH, 4)

    def has(one: Campaign, name: str) -> bool:
        return any(name in labels[id] for id in one.incidents)

    raised = [one for one in rows if decisions[one.id].raised]
    hits = {name: [one for one in raised if has(one, name)] for name in NAMES}
    benign = [one for one in raised if not any(has(one, name) for name in NAMES)]
    caught = [one for one in TRUTH if hits[one.name]]
    assert (found.rows, found.raised, found.benign) == (len(rows), len(raised), len(benign))
    assert (found.raised_per_day, found.benign_per_day) == (len(raised) / 4, len(benign) / 4)
    assert (found.total, found.caught) == (3, len(caught))
    if caught:
        assert found.rows_per_campaign == pytest.approx(sum(len(hits[c.name]) for c in caught) / len(caught))
    else:
        assert found.rows_per_campaign is None
    shares = [
        max(sum(name in labels[id] for id in one.incidents) for name in NAMES) / len(one.incidents)
        for one in raised
        if one not in benign
    ]
    assert found.purity == (pytest.approx(sum(shares) / len(shares)) if shares else None)
    assert found.accounts == sum(len(one.entered) for one in caught)
    named = sum(any(user in one.entered for one in hits[c.name]) for c in TRUTH for user in c.entered)
    assert found.named == named
    wrong = 0
    for one in raised:
        attacks = [c for c in TRUTH if has(one, c.name)]
        if attacks and not has(one, "older"):
            wrong += sum(not any(user in c.entered for c in attacks) for user in one.entered)
    assert found.wrong == wrong
    seen = [sum(any(has(one, c.name) for one in rows[:n]) for c in TRUTH) for n in range(1, len(rows) + 1)]
    reads = [n for n, number in enumerate(seen, 1) if number >= len(TRUTH) - 1]
    assert found.rows_to_read == (reads[0] if reads else None)
    for outcome, campaign in zip(found.outcomes, TRUTH, strict=True):
        assert (outcome.name, outcome.technique) == (campaign.name, campaign.technique)
        assert (outcome.caught, outcome.rows) == (bool(hits[campaign.name]), len(hits[campaign.name]))
        best = next(iter(hits[campaign.name] or [one for one in rows if has(one, campaign.name)]), None)
        assert outcome.score == (best.score if best else None)


@given(lists())
def test_each_point_of_a_sweep_is_the_measure_with_its_floor(
    given_list: tuple[list[Campaign], dict[str, Decision], dict[str, dict[str | None, int]]],
) -> None:
    rows, _, labels = given_list
    floors = (6.0, 18.0, 40.0)
    points = sweep(rows, [one.id for one in rows], labels, TRUTH, 2, floors)
    assert [point.floor for point in points] == list(floors)
    for point in points:
        decisions = decide(rows, point.floor)
        raised = [one for one in rows if decisions[one.id].raised]
        caught = {
            c.name for c in TRUTH if any(c.name in labels[id] for one in raised for id in one.incidents)
        }
        assert point.raised_per_day == len(raised) / 2
        assert point.caught == len(caught)
        assert set(point.missed) == {c.name for c in TRUTH} - caught


def test_rows_that_are_not_measured_still_count_for_the_quota() -> None:
    rows = [row(3 * k, 29.0, (f"i{k}",), hour=k) for k in range(3)]
    labels: dict[str, dict[str | None, int]] = {"i2": {"tunnel": 1}}
    (point,) = sweep(rows, [rows[2].id], labels, TRUTH, 1, [18.0])
    assert (point.caught, point.raised_per_day) == (0, 0.0)


def example() -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    hostile = LabelledCampaign("<script>\x1b[2J" + "x" * 200, "T1071", frozenset({"eve"}))
    rows = [row(0, 40.0, ("a", "b"), ("ann",)), row(1, 12.0, ("c",))]
    labels: dict[str, dict[str | None, int]] = {"a": {"spray": 3}, "b": {None: 1}, "c": {"tunnel": 1}}
    truth = [*TRUTH, hostile]
    measured = measure(rows, decide(rows), labels, truth, 2)
    points = sweep(rows, [one.id for one in rows], labels, truth, 2)
    return msgspec.to_builtins(measured), [msgspec.to_builtins(point) for point in points]


def test_text_names_what_was_missed_and_why() -> None:
    measures, points = example()
    text = "\n".join((*summary(measures), *outcomes(measures), *curve(points, measures["total"], 18.0)))
    assert "1 row, 0 of them benign" in text
    assert "1 of 4 campaigns raised" in text
    assert "1 of 2 accounts named, 0 wrong" in text
    assert re.search(r"T1110.003 +spray +yes +1 +40.0 +above the floor", text)
    assert re.search(r"T1 +tunnel +no +0 +12.0 +below the floor", text)
    assert re.search(r"insider +no +0 +- +no incident", text)
    assert re.search(r"^ 18.0 +0.50 +0.00 +1 of 4  <- detection.floor_bits$", text, re.MULTILINE)
    assert all(line.isprintable() and len(line) <= 100 for line in text.splitlines())


class Tags(HTMLParser):
    """Collects tags, and checks that they are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "circle":
            assert self.open.pop() == tag


def test_page_has_a_point_for_each_floor_and_no_script() -> None:
    measures, points = example()
    page = sweep_page.render(measures, points, 18.0)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen.count("circle") == len(points)
    assert not {"script", "img", "link", "a", "iframe"} & set(tags.seen)
    assert "default-src 'none'" in page
    assert "\x1b" not in page and "&lt;script&gt;" in page
    assert "1 of 4 campaigns are raised" in page


def test_page_of_nothing_is_drawn_too() -> None:
    measured = msgspec.to_builtins(measure([], {}, {}, [], 0))
    page = sweep_page.render(measured, [msgspec.to_builtins(p) for p in sweep([], [], {}, [], 0)], 18.0)
    assert "nan" not in page
    assert "0 of 0 campaigns" in page
