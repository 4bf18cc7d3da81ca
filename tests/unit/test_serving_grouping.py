"""Lists with one row for a campaign, compared with what plain Python selects from all incidents."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamguard.alerts.incident import rfc3339
from streamguard.campaigns.sighting import DAY, HOUR
from streamguard.events.event_time import epoch_ms
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.mute import scope_of
from streamguard.serving.decisions.record import CaseAction
from streamguard.serving.decisions.update import Update
from streamguard.serving.projection.store import Store
from streamguard.serving.query import grouping, matches
from streamguard.serving.query.actions import ActionQueries
from streamguard.serving.query.answers import IncidentRow
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.incidents import IncidentQueries
from tests.case_actions import action, close
from tests.serving_stores import filled, placed, queries
from tests.unit.test_campaigns import NOON, incident, spray

USERS = ("alice", "bob", "cem", "dan", "eve")
PATTERNS = ("password_spray", "brute_force", "exfiltration")


def some(count: int) -> Iterator[Any]:
    """Incidents of campaigns of different sizes and severities, and lone ones."""
    draw = random.Random(7)
    for k in range(count):
        start = NOON + k * 3 * DAY + draw.randrange(HOUR)
        users = draw.sample(USERS, k=draw.randrange(1, 5))
        for one in spray(start, users, entered=draw.choice((users[0], ""))):
            bits = one.evidence_bits + draw.choice((0.0, 0.0, 9.0, -12.0))
            yield replace(one, evidence_bits=bits, severity=draw.choice(("low", "high", "critical")))
        names = draw.sample(PATTERNS, k=draw.randrange(2))
        yield incident(draw.choice(USERS), start + 30 * HOUR, {"resource": 9.0 + draw.randrange(20)}, *names)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which people have closed, acknowledged and muted some of the incidents."""
    made, draw = list(some(25)), random.Random(3)
    store = filled(tmp_path_factory.mktemp("store"), placed(made))
    actions: list[CaseAction] = []
    for k, one in enumerate(made):
        kind = draw.choice(("close", "acknowledge", "mute", "", ""))
        if kind == "close":
            actions.append(close(f"a{k}", incidents=(one.id,), seen=99))
        elif kind == "acknowledge":
            actions.append(
                action(kind, f"a{k}", 99, incidents=(one.id,), assignee=draw.choice(("ann", "zoe")))
            )
        elif kind == "mute":
            own = scope_of([Update.of(one)], one.count, LATER)
            actions.append(action(kind, f"a{k}", 99, incidents=(one.id,), scope=own))
    logged = [(one.id.encode(), Logged(k, one)) for k, one in enumerate(actions)]
    store.add_actions("decisions", logged, [], {})
    yield store
    store.close()


LATER = rfc3339(NOON + 400 * DAY)
OPENED: dict[str, Any] = {"status": ("new", "acknowledged"), "muted": False}
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "raised, open": {"raised": True, **OPENED},
    "raised": {"raised": True},
    "not raised": {"raised": False},
    "open, also muted": {"status": ("new", "acknowledged")},
    "closed": {"status": ("closed",)},
    "muted": {"muted": True},
    "assignee": {"assignee": ("zoe",)},
    "user": {"entity": ("bob",)},
    "user, open": {"entity": ("bob",), **OPENED},
    "severity": {"severity": ("low",)},
    "severity, raised, open": {"severity": ("critical",), "raised": True, **OPENED},
    "pattern": {"pattern": ("password_spray",)},
    "technique": {"technique": ("T1110.003",)},
    "since": {"since": NOON + 9 * DAY + 40_000},
    "until": {"until": NOON + 30 * DAY + HOUR // 2},
    "window": {"since": NOON + 6 * DAY + 20_000, "until": NOON + 12 * DAY + 40_000},
    "text": {"text": "eve"},
    "several": {"entity": ("bob", "cem"), "severity": ("high", "low"), "until": NOON + 60 * DAY},
}


def walked(asked: IncidentQueries, wanted: IncidentFilter, sort: Any = "evidence") -> list[IncidentRow]:
    """The rows of all pages of a list."""
    rows, after = [], None
    while True:
        page = asked.page(wanted, sort, 7, after)
        rows += page.incidents
        if page.next is None:
            return rows
        after = page.next


def shown(found: Iterable[IncidentRow]) -> dict[str, tuple[IncidentRow, list[IncidentRow]]]:
    """By attack, the incident that its row shows, and all that were selected."""
    attacks: dict[str, list[IncidentRow]] = defaultdict(list)
    for row in found:
        attacks[row.campaign or row.id].append(row)
    return {
        id: (max(own, key=lambda one: (one.status != "closed" and not one.muted, one.evidence_bits, one.id)), own)
        for id, own in attacks.items()
    }  # fmt: skip


def values(rows: Iterable[IncidentRow], field: str) -> set[str]:
    """The values of a facet that some incidents have."""
    if field == "pattern":
        return {name for row in rows for name in row.patterns}
    return {getattr(row, field) for row in rows} - {""}


@pytest.fixture(params=["along the order", "as a whole"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list is read in both ways."""
    whole = request.param == "as a whole"
    monkeypatch.setattr(matches, "GATHERED", 10_000 if whole else 0)
    monkeypatch.setattr(grouping, "SCATTERED", 10_000 if whole else 0)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("sort", ["evidence", "time"])
@pytest.mark.parametrize("name", FILTERS)
def test_campaign_has_a_row_if_any_of_its_incidents_matches(store: Store, name: str, sort: str) -> None:
    asked = queries(store)
    expected = shown(walked(asked, IncidentFilter(**FILTERS[name])))
    rows = walked(asked, IncidentFilter(**FILTERS[name], grouped=True), sort)

    def order(row: IncidentRow) -> tuple[float, str]:
        return -(row.evidence_bits if sort == "evidence" else epoch_ms(row.last_seen) or 0), row.id

    assert rows == sorted((row for row, _ in expected.values()), key=order)
    assert expected
    targets = ActionQueries(store, lambda: ()).targets(IncidentFilter(**FILTERS[name], grouped=True), 999)
    assert {one.id for one in targets} == {row.id for row in rows}


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("name", FILTERS)
def test_facets_agree_with_the_list_and_with_the_list_of_each_value(store: Store, name: str) -> None:
    asked = queries(store)
    wanted = IncidentFilter(**FILTERS[name], grouped=True)
    facets, expected = asked.facets(wanted), shown(walked(asked, IncidentFilter(**FILTERS[name])))
    assert facets.total == len(expected) == len(walked(asked, wanted))
    for field in ("severity", "status", "kind", "assignee", "pattern"):
        counted = {one.value: one.count for one in getattr(facets, field)}
        every = {value for _, own in expected.values() for value in values(own, field)}
        assert counted == {
            value: sum(value in values(own, field) for _, own in expected.values()) for value in every
        }
        for value, count in counted.items():
            if field != "kind" and field not in FILTERS[name]:
                assert len(walked(asked, replace(wanted, **{field: (value,)}))) == count, (field, value)


def test_campaign_is_found_by_an_incident_that_does_not_lead(tmp_path: Path) -> None:
    attack = spray(NOON, ["alice", "bob", "cem"], entered="alice")
    store = filled(tmp_path, placed(attack))
    asked = queries(store)
    (lead,) = asked.page(IncidentFilter(grouped=True)).incidents
    assert lead.entity.value == "cem"
    (row,) = asked.page(IncidentFilter(grouped=True, raised=True, entity=("bob",), **OPENED)).incidents
    assert (row.entity.value, row.campaign, row.campaign_incidents) == ("bob", lead.campaign, len(attack))
    store.close()


def test_list_of_a_campaign_reads_no_table_for_lone_incidents(store: Store) -> None:
    """Which incident of a campaign is shown is looked up in an index of campaigns alone."""
    statement = grouping.shown(matches.both(matches._any_of([1, 2])))
    plan = " ".join(
        row["detail"]
        for row in store.reader().execute(
            f"EXPLAIN QUERY PLAN SELECT id FROM incidents WHERE {statement.text}", statement.values
        )
    )
    assert "SEARCH other USING COVERING INDEX incidents_by_campaign (campaign=?)" in plan
