"""Assessment of events and users: one row for each kept event, risk by evidence, no claims about unknown values."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from streamguard.alerts.verdict import FOREST_SHARE, FOREST_USUAL, verdict
from streamguard.batch.detection.assessment import assess
from streamguard.batch.detection.clusters import PeerGroups, peer_groups
from streamguard.batch.folding.fold_result import EventTable, FoldResult
from streamguard.models.forest import Forest
from streamguard.models.train import train
from streamguard.settings.schema import Clusters
from tests.batches import ALERT_BITS, fold_result, rows


@pytest.fixture(scope="module")
def history() -> FoldResult:
    return fold_result()


@pytest.fixture(scope="module")
def forest(history: FoldResult) -> Forest:
    return train(history.sample.features, trees=20)


@pytest.fixture(scope="module")
def peers(history: FoldResult) -> PeerGroups:
    return peer_groups(history.users.usual, Clusters(), seed=0)


def test_every_kept_event_is_assessed_once_and_in_order(history: FoldResult) -> None:
    found = assess(history, None, None, alert_bits=ALERT_BITS)
    keys = list(zip(found.rows.partition.tolist(), found.rows.offset.tolist(), strict=True))
    assert keys == sorted(set(keys))
    kept = [
        set(zip(part.partition.tolist(), part.offset.tolist(), strict=True))
        for part in (history.sample, history.alerts)
    ]
    assert kept[0] & kept[1], "the sample and the alerts must overlap in this test"
    assert set(keys) == kept[0] | kept[1]
    for f in fields(EventTable):
        assert np.array_equal(getattr(found.rows, f.name)[found.sampled], getattr(history.sample, f.name))


def test_evidence_equals_that_of_a_worker_with_the_same_forest(history: FoldResult, forest: Forest) -> None:
    found = assess(history, forest, None, alert_bits=ALERT_BITS)
    bits = forest.bits(found.rows.features)
    assert np.array_equal(found.forest, bits)
    assert np.array_equal(found.evidence, verdict(found.rows.strength, bits))
    assert np.array_equal(found.alerted, found.evidence >= ALERT_BITS)
    assert found.risk.min() >= 0 and found.risk.max() <= 100


def test_only_statistics_and_patterns_count_without_a_forest(history: FoldResult) -> None:
    found = assess(history, None, None, alert_bits=ALERT_BITS)
    assert not found.forest.any()
    assert np.array_equal(found.alerted, found.rows.alerted)
    assert found.totals.forest_added == 0


def test_totals_count_all_events_and_forest_alerts_of_the_sample_only(history: FoldResult) -> None:
    found = assess(history, None, None, alert_bits=ALERT_BITS)
    strange = replace(found.rows, strength=np.full(len(found.rows), ALERT_BITS - 0.1))
    almost = replace(history, sample=rows_of(strange, found.sampled), alerts=rows([], ["x"]))
    flat = train(np.random.default_rng(0).normal(size=(300, 28)).astype(np.float32) * 1e-3, trees=20)
    totals = assess(almost, flat, None, alert_bits=ALERT_BITS).totals
    assert totals.events == sum(c.events for c in history.counts)
    assert totals.alerted == sum(c.alerted for c in history.counts)
    assert totals.alert_rate == totals.alerted / totals.events
    assert totals.sampled == totals.forest_added == len(history.sample)
    assert totals.sampled_alerted == 0
    assert totals.forest_added == totals.sampled


def rows_of(table: EventTable, among: np.ndarray) -> EventTable:
    return EventTable(**{f.name: getattr(table, f.name)[among] for f in fields(EventTable)})


def test_user_evidence_is_that_of_the_strongest_event_of_this_run(
    history: FoldResult, forest: Forest
) -> None:
    found = assess(history, forest, None, alert_bits=ALERT_BITS)
    users = history.users
    for i in range(len(users)):
        mine = (
            (found.rows.partition == users.partition[i])
            & (found.rows.user == users.user[i])
            & (found.rows.offset >= 500)
        )
        assert found.event_bits[i] == max([users.peak[i], *found.evidence[mine]])
        if found.strongest[i] >= 0:
            assert mine[found.strongest[i]]
            assert found.evidence[found.strongest[i]] == found.event_bits[i]
    assert np.array_equal(found.user_evidence, np.maximum(found.event_bits - np.log2(found.events_seen), 0.0))
    assert np.array_equal(found.user_at_risk, found.user_evidence >= ALERT_BITS)


def test_events_of_earlier_runs_do_not_count_against_users(history: FoldResult) -> None:
    nobody = replace(history, users=replace(history.users, peak=np.zeros(len(history.users))))
    old = replace(nobody, counts=[replace_range(c.partition) for c in history.counts])
    assert not assess(old, None, None, alert_bits=ALERT_BITS).user_at_risk.any()


def replace_range(partition: int):  # type: ignore[no-untyped-def]
    from streamguard.batch.source.offset_range import Counts

    return Counts(partition, 1000, 1000)


def test_peer_distance_adds_evidence_like_a_forest(history: FoldResult, peers: PeerGroups) -> None:
    loners = replace(peers, bits=np.where(np.arange(len(history.users)) == 3, 20.0, 2.0))
    alone = assess(history, None, None, alert_bits=ALERT_BITS)
    found = assess(history, None, loners, alert_bits=ALERT_BITS)
    more = found.user_evidence - alone.user_evidence
    assert more[3] == pytest.approx(FOREST_SHARE * (20.0 - FOREST_USUAL))
    assert not np.delete(more, 3).any()
    assert "unlike their peers: 20.0 bits" in found.why(3)
    assert np.array_equal(found.alerted, alone.alerted)


def test_users_are_at_risk_by_evidence_and_not_by_a_fixed_share(history: FoldResult) -> None:
    quiet = replace(
        history,
        sample=replace(history.sample, strength=np.zeros(len(history.sample))),
        alerts=rows([], ["x"]),
        users=replace(history.users, peak=np.zeros(len(history.users))),
    )
    found = assess(quiet, None, None, alert_bits=ALERT_BITS)
    assert found.totals.users_at_risk == 0
    loud = replace(history, users=replace(history.users, peak=np.full(len(history.users), 30.0)))
    assert assess(loud, None, None, alert_bits=ALERT_BITS).totals.users_at_risk == len(history.users)


def test_user_with_many_events_is_not_at_risk_for_a_rare_one(history: FoldResult) -> None:
    found = assess(history, None, None, alert_bits=ALERT_BITS)
    assert found.events_seen == pytest.approx(25 * 498 / 1000)
    summary = history.users.summary.copy()
    summary["total_events"] = 1
    summary["total_events"][7] = 1_000_000
    busy = replace(
        history,
        users=replace(history.users, summary=summary, peak=np.full(len(history.users), ALERT_BITS + 1)),
    )
    found = assess(
        replace(busy, sample=rows([], ["x"]), alerts=rows([], ["x"])), None, None, alert_bits=ALERT_BITS
    )
    assert found.events_seen[7] == pytest.approx(498, rel=0.01)
    assert np.flatnonzero(~found.user_at_risk[history.users.partition == 0]).tolist() == [7]


def test_reasons_describe_the_event_or_state_that_it_was_not_kept(history: FoldResult) -> None:
    found = assess(history, None, None, alert_bits=ALERT_BITS)
    kept = int(np.flatnonzero((found.strongest >= 0) & (found.event_bits > 15))[0])
    row = found.strongest[kept]
    assert found.why(kept) == [
        f"{found.evidence[row]:.1f} bits, the strongest of about 12 events: auth_attempt from "
        f"{found.rows.source[row]} at partition {found.rows.partition[row]}, offset {found.rows.offset[row]} "
        "(brute force, password spray)"
    ]
    lost = replace(history, users=replace(history.users, peak=history.users.peak + 1))
    found = assess(lost, None, None, alert_bits=ALERT_BITS)
    (reason,) = found.why(kept)
    assert reason.endswith("the strongest of about 12 events: an event that was not kept")


def test_empty_history_is_accepted(forest: Forest) -> None:
    none = rows([], ["x"])
    whole = fold_result()
    users = whole.users
    nobody = type(users)(**{f.name: getattr(users, f.name)[:0] for f in fields(users)})
    empty = FoldResult(none, none, nobody, [], [])
    found = assess(empty, forest, peer_groups(nobody.usual, Clusters(), seed=0), alert_bits=ALERT_BITS)
    assert len(found.rows) == 0 and found.totals.alert_rate == 0.0
