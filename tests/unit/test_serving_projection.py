"""The projection of incidents: a pure function of sets, whatever the order, the repetitions and the cuts."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.alerts.incident import Incident
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.sighting import HOUR
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.record import VERSION, Close, Target
from streamguard.serving.projection import database as module
from streamguard.serving.projection.store import Store
from streamguard.serving.projection.update import Update
from streamguard.serving.query.filters import IncidentFilter
from tests.serving_stores import ALERTS, CAMPAIGNS, add, at, filled, placed, put_campaigns, queries
from tests.unit.test_campaigns import NOON, incident, lone, spray


def risen(one: Incident, count: int, bits: float) -> Incident:
    """A later update of an incident."""
    return msgspec.structs.replace(one, count=count, evidence_bits=bits)


def some_updates(seed: int) -> list[Update]:
    """Updates of a few incidents, some of them of one campaign, each with an event of its own."""
    draw = random.Random(seed)
    found: list[Incident] = []
    for k in range(6):
        one = lone(f"user-{k}", NOON + k * HOUR, draw.choice(("resource", "volume")), bits=9.0 + k)
        found += [risen(one, count, 9.0 + k + count) for count in range(1, draw.randrange(2, 5))]
    found += spray(NOON, ["a", "b", "c"], entered="a")
    return placed(found)


def lines(store: Store) -> list[bytes]:
    return list(store.export())


@settings(max_examples=25)
@given(st.integers(0, 50), st.randoms(use_true_random=False), st.integers(1, 9), st.booleans())
def test_export_depends_on_the_sets_alone(seed: int, draw: random.Random, batch: int, first: bool) -> None:
    updates = some_updates(seed)
    mixed = updates + draw.sample(updates, k=len(updates) // 2)
    draw.shuffle(mixed)
    with tempfile.TemporaryDirectory() as name:
        straight = filled(Path(name) / "straight", updates)
        other = Store(Path(name) / "other", 18.0)
        if first:  # the campaigns topic may be read before the alerts topic
            put_campaigns(other, [one.incident for one in updates])
        add(other, mixed, batch)
        if not first:
            put_campaigns(other, [one.incident for one in updates])
        assert lines(other) == lines(straight)
        assert len(lines(straight)) == len({one.incident.id for one in updates}) + len(
            campaigns(one.incident for one in updates)
        )
        for one in (straight, other):
            one.close()


def totals(store: Store) -> tuple[dict[tuple[str, str], list[float]], dict[int, list[int]]]:
    """Rows of the kept totals: (score, incidents, open, severity, last) by entity, and (incidents, alerts) by day."""
    db = store.reader()
    entities = {(kind, name): rest for kind, name, *rest in db.execute("SELECT * FROM entities")}
    return entities, {day: rest for day, *rest in db.execute("SELECT * FROM days")}


def counted_totals(store: Store) -> tuple[dict[tuple[str, str], list[float]], dict[int, list[int]]]:
    """The same, counted from the incidents."""
    entities: dict[tuple[str, str], list[float]] = {}
    days: dict[int, list[int]] = {}
    for row in store.reader().execute("SELECT * FROM incidents ORDER BY risk DESC, id"):
        one = entities.setdefault((row["entity_kind"], row["entity"]), [0.0, 0, 0, 0, 0])
        one[1] += 1
        one[0] += row["risk"] / one[1] ** 1.5
        one[2] += row["status"] != "closed"
        one[3] = max(one[3], row["severity"])
        one[4] = max(one[4], row["last_ms"])
        day = days.setdefault(row["last_ms"] // 86_400_000, [0, 0])
        day[0] += 1
        day[1] += row["alerts"]
    return {key: [pytest.approx(one[0]), *one[1:]] for key, one in entities.items()}, days


@settings(max_examples=25)
@given(st.integers(0, 50), st.randoms(use_true_random=False), st.booleans())
def test_kept_totals_are_those_of_the_incidents(seed: int, draw: random.Random, loading: bool) -> None:
    updates = some_updates(seed)
    draw.shuffle(updates)
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name), 18.0)
        if loading:
            store.loading |= {ALERTS, CAMPAIGNS}
        add(store, updates, 3)
        store.loaded(ALERTS)
        put_campaigns(store, [one.incident for one in updates])
        store.loaded(CAMPAIGNS)
        assert totals(store) == counted_totals(store)
        assert len(totals(store)[0]) > 1
        one = Target(id=draw.choice(updates).incident.id, seen=9)
        close = Close(
            version=VERSION, id="1", incidents=(one,), by="ann", at="2026-01-01T00:00:00.000Z",
            classification="benign_positive",
        )  # fmt: skip
        store.add_actions("decisions", [(b"1", Logged(0, close))], [], {})
        assert totals(store) == counted_totals(store)
        store.drop_before({0: updates[4].offset})
        assert totals(store) == counted_totals(store)
        with store.transaction() as db:
            store.clear_updates(db)
        assert totals(store) == ({}, {})
        store.close()


def test_latest_update_of_an_incident_counts_and_a_repetition_does_not(tmp_path: Path) -> None:
    one = lone("ann", NOON)
    store = filled(tmp_path, [at(5, risen(one, 4, 14.0)), at(3, one), at(9, one, origin=3)])
    found = queries(store).incident(one.id)
    assert (found.incident.count, found.incident.evidence_bits) == (4, 14.0)
    assert [(update.offset, update.incident.count) for update in found.updates] == [(9, 1), (5, 4)]
    store.close()


def test_strongest_incident_of_a_campaign_stands_for_it_in_a_list(tmp_path: Path) -> None:
    attack = spray(NOON, ["a", "b", "c"], entered="a")
    store = filled(tmp_path, placed([*attack, lone("zoe", NOON + 40 * HOUR)]))
    strongest = max(attack, key=lambda one: (one.evidence_bits, one.id))
    rows = queries(store).page(IncidentFilter(grouped=True)).incidents
    assert {row.id for row in rows} == {strongest.id, lone("zoe", NOON + 40 * HOUR).id}
    (led,) = [row for row in rows if row.campaign]
    assert (led.campaign_incidents, led.entered) == (len(attack), 1)
    assert len(queries(store).page(IncidentFilter(campaign=led.campaign or "")).incidents) == len(attack)
    # A stronger incident of the campaign, which arrives later, leads from then on.
    weaker = next(one for one in attack if one.id != strongest.id)
    add(store, [at(99, risen(weaker, 9, strongest.evidence_bits + 5))])
    assert weaker.id in {row.id for row in queries(store).page(IncidentFilter(grouped=True)).incidents}
    store.close()


def test_campaign_that_is_withdrawn_leaves_its_incidents(tmp_path: Path) -> None:
    attack = spray(NOON, ["a", "b", "c"])
    store = filled(tmp_path, placed(attack))
    (record,) = campaigns(attack)
    store.put_campaigns(CAMPAIGNS, {record.id: None}, {0: (9, 1)}, {})
    without = filled(tmp_path / "without", placed(attack), grouped=False)
    assert lines(store) == lines(without)
    store.close()
    without.close()


def test_updates_that_the_topic_has_no_longer_leave_the_store(tmp_path: Path) -> None:
    updates = some_updates(3)
    store = filled(tmp_path, updates)
    store.drop_before({0: updates[4].offset})
    rest = filled(tmp_path / "rest", updates[4:], grouped=False)
    put_campaigns(rest, [one.incident for one in updates])
    assert lines(store) == lines(rest)
    store.drop_before({0: 10_000})
    assert queries(store).page(IncidentFilter()).incidents == ()
    store.close()
    rest.close()


def test_incident_without_a_campaign_is_raised_as_one_of_its_own_would_be(tmp_path: Path) -> None:
    weak, strong = incident("ann", NOON, {"resource": 12.0}), incident("bob", NOON, {"resource": 19.0})
    store = filled(tmp_path, placed([weak, strong]), grouped=False)
    assert [row.entity.value for row in queries(store).page(IncidentFilter(raised=True)).incidents] == ["bob"]
    store.close()


def test_positions_move_with_the_updates_and_another_topic_clears_them(tmp_path: Path) -> None:
    store = filled(tmp_path, placed([lone("ann", NOON)]))
    assert store.positions(ALERTS) == {0: (1, 1)}
    store.follow(ALERTS, "another")
    assert (store.positions(ALERTS), store.topic_id(ALERTS)) == ({}, "another")
    store.close()
    again = Store(tmp_path, 18.0)
    assert again.topic_id(ALERTS) == "another"
    assert len(lines(again)) == 2
    again.close()


@pytest.mark.parametrize("damage", ["text", "format"])
def test_database_that_does_not_fit_is_built_again(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, placed([lone("ann", NOON)]))
    store.close()
    if damage == "text":
        for path in tmp_path.glob("incidents.sqlite*"):
            path.write_bytes(b"this is no database" * 100)
    else:
        monkeypatch.setattr(module, "FORMAT", 99)
    again = Store(tmp_path, 18.0)
    assert (lines(again), again.positions(ALERTS)) == ([], {})
    again.close()


def test_reader_cannot_write(tmp_path: Path) -> None:
    store = filled(tmp_path, placed([lone("ann", NOON)]))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.reader().execute("DELETE FROM incidents")
    store.close()
