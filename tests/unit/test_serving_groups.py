"""Campaigns of incidents in the projection: the same rows in whatever order they change, by work for changes alone."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from streamguard.alerts.incident import rfc3339
from streamguard.campaigns.budget import Decision
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.record import CampaignRecord, encode
from streamguard.campaigns.sighting import DAY
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.mute import scope_of
from streamguard.serving.decisions.update import Update as Reduced
from streamguard.serving.projection import rows, shapes
from streamguard.serving.projection.store import Store
from tests.case_actions import action, close
from tests.serving_stores import ALERTS, CAMPAIGNS, add, at, filled, placed
from tests.unit.test_campaigns import NOON, incident, lone

MADE = [lone(f"user-{k}", NOON + k * 1000, bits=12.0 + k % 4) for k in range(8)]
UPDATES = placed(
    replace(one, count=count, evidence_bits=one.evidence_bits + bonus)
    for count, bonus in ((1, 0.0), (3, 2.5))
    for one in MADE
)
(PATTERN,) = campaigns(MADE[:1])
CLOSED, MUTED, COMMENTED = MADE[1], MADE[3], MADE[4]
ACTIONS = [
    (b"1", Logged(0, close("1", 99, incidents=(CLOSED.id,)))),
    (
        b"2",
        Logged(
            1,
            action(
                "mute", "2", 99, incidents=(MUTED.id,), scope=scope_of([Reduced.of(MUTED)], 9, rfc3339(NOON + DAY))
            ),
        ),
    ),
    (b"3", Logged(2, action("comment", "3", incidents=(COMMENTED.id,), text="seen"))),
]  # fmt: skip


def record(
    members: tuple[str, ...], size: int, accounts: int, *, raised: bool, alerts: int
) -> CampaignRecord:
    campaign = replace(
        PATTERN, id=members[0], incidents=tuple(sorted(members)), size=size, accounts=accounts, alerts=alerts
    )
    return CampaignRecord(1, campaign, Decision(raised, 18.0, "above the floor"))


@st.composite
def steps(draw: Any) -> list[tuple[str, Any]]:
    """Changes of campaigns: some overlap for a while, as when a server reads half of a round."""
    found = []
    for _ in range(draw(st.integers(1, 8))):
        members = draw(
            st.lists(st.sampled_from([one.id for one in MADE]), min_size=1, max_size=6, unique=True)
        )
        if draw(st.integers(0, 3)) == 0:
            found.append((members[0], None))
            continue
        size = len(members) + draw(st.sampled_from((0, 0, 0, 1)))
        accounts, alerts = draw(st.integers(0, 1)), draw(st.integers(1, 2))
        made = record(tuple(members), size, accounts, raised=draw(st.booleans()), alerts=alerts)
        found.append((members[0], made))
    return found


def put(store: Store, id: str, made: CampaignRecord | None) -> None:
    values = {} if made is None else {id: encode(made.campaign, made.decision)}
    store.put_campaigns(CAMPAIGNS, {id: made}, {}, values)


def contents(store: Store) -> list[Any]:
    """The export, and the shape of each incident."""
    db = store.reader()
    columns = ", ".join(f"s.{name}" for name in shapes.COLUMNS)
    of = [
        tuple(row)
        for row in db.execute(
            f"SELECT i.id, {columns} FROM incidents i JOIN shapes s ON s.number = i.shape ORDER BY i.id"
        )
    ]
    counted = db.execute("SELECT shape, count(*) FROM incidents GROUP BY 1 ORDER BY 1").fetchall()
    kept = db.execute("SELECT number, incidents FROM shapes ORDER BY 1").fetchall()
    assert list(map(tuple, counted)) == list(map(tuple, kept))
    return [*store.export(), *of]


@settings(max_examples=150)
@given(steps(), st.randoms(use_true_random=False), st.booleans())
def test_rows_depend_on_the_sets_alone(
    changes: list[tuple[str, Any]], draw: random.Random, expires: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        store, straight = Store(Path(name) / "a", 18.0), Store(Path(name) / "b", 18.0)
        left = UPDATES[4:] if expires else UPDATES
        for id, made in dict(changes).items():
            put(straight, id, made)
        straight.add_actions("decisions", ACTIONS, [], {})
        add(straight, left)

        mixed = [*UPDATES, *draw.sample(UPDATES, k=5)]
        draw.shuffle(mixed)
        waiting: list[list[Any]] = [list(changes), mixed, draw.sample(ACTIONS, k=len(ACTIONS))]
        while any(waiting):
            queue = draw.choice([one for one in waiting if one])
            if queue is waiting[0]:
                put(store, *queue.pop(0))
            elif queue is waiting[1]:
                part, queue[:3] = queue[:3], []
                store.add_updates(ALERTS, part, {})
            else:
                store.add_actions("decisions", [queue.pop(0)], [], {})
        if expires:
            store.drop_before({0: UPDATES[4].offset})
        assert contents(store) == contents(straight)
        for campaign, own in led(store).items():
            assert sum(lead for *_, lead in own) == 1, campaign
            assert max(own)[-1] == 1, "the open one that is not hidden, the strongest"
        store.close()
        straight.close()


def led(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """By campaign, by what its lead is chosen, and whether it leads."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for campaign, *one in store.reader().execute(
        "SELECT campaign, status <> 'closed' AND NOT muted, evidence, id, lead FROM incidents WHERE campaign <> ''"
    ):
        found.setdefault(campaign, []).append(tuple(one))
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The incidents that are computed, one for each time."""
    found: list[str] = []
    entry = rows.entry

    def counting(updates: Any, now: Any, *rest: Any) -> Any:
        found.append(now.id)
        return entry(updates, now, *rest)

    monkeypatch.setattr(rows, "entry", counting)
    return found


def test_update_of_one_of_many_incidents_computes_that_one(tmp_path: Path, computed: list[str]) -> None:
    many = [
        incident(f"user-{k:03}", NOON + 1000 * k, {"source": 12.0}, source="203.0.113.9") for k in range(200)
    ]
    store = filled(tmp_path, placed(many))
    ((members,),) = store.reader().execute("SELECT count(*) FROM incidents GROUP BY campaign").fetchall()
    assert members == len(many)
    computed.clear()
    risen = [replace(one, count=2, evidence_bits=one.evidence_bits + k % 5) for k, one in enumerate(many)]
    for k, one in enumerate(risen):
        store.add_updates(ALERTS, [at(1000 + k, one)], {})
    assert computed == [one.id for one in many]
    computed.clear()
    store.add_actions("decisions", [(b"1", Logged(0, close("1", 99, incidents=(many[7].id,))))], [], {})
    assert computed == [many[7].id]
    (lead,) = store.reader().execute("SELECT id FROM incidents WHERE lead = 1").fetchone()
    assert lead == max(risen, key=lambda one: (one.evidence_bits, one.id)).id
    store.close()


def test_record_of_a_campaign_computes_none_of_its_incidents_again(
    tmp_path: Path, computed: list[str]
) -> None:
    ids = tuple(one.id for one in MADE)
    store = filled(tmp_path, UPDATES, grouped=False)
    computed.clear()
    before = store._db.total_changes
    put(store, ids[0], record(ids, 8, 0, raised=True, alerts=1))
    assert store._db.total_changes - before > len(ids)
    before = store._db.total_changes
    put(store, ids[0], record(ids, 8, 0, raised=True, alerts=2))  # alerts are not in the rows
    assert store._db.total_changes - before < len(ids)
    put(store, ids[0], record(ids[:5], 5, 1, raised=True, alerts=2))
    assert set(computed) == set(ids[5:]), "those without a campaign are decided alone"
    store.close()
