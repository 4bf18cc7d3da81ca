"""Assessment of events and users: one row for each kept event, risk by evidence, no claims about unknown values."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as replace_counts

from streamguard.alerts.verdict import verdict
from streamguard.batch.detection.assessment import assess
from streamguard.batch.detection.clusters import PeerGroups, peer_groups
from streamguard.batch.detection.users import PEER_SHARE, PEER_USUAL, UserAssessment, UserAssessor
from streamguard.batch.folding.fold_result import EventTable, FoldResult, no_users
from streamguard.batch.reporting.users import export_users
from streamguard.batch.source.offset_range import Counts
from streamguard.fold.features import NAMES
from streamguard.models.forest import Forest, weighted
from streamguard.models.train import train
from streamguard.risk import risk
from streamguard.settings.schema import Clusters
from tests.batches import ALERT_BITS, detected, fold_result, rows, users_of, with_users


@pytest.fixture(scope="module")
def history() -> FoldResult:
    return fold_result()


@pytest.fixture(scope="module")
def forest(history: FoldResult) -> Forest:
    return train(history.sample.features, trees=20)


@pytest.fixture(scope="module")
def peers(history: FoldResult) -> PeerGroups:
    return peer_groups(history.usual, Clusters(), seed=0)


def test_every_kept_event_is_assessed_once_and_in_order(history: FoldResult) -> None:
    found = assess(history, None, alert_bits=ALERT_BITS)
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
    found = assess(history, forest, alert_bits=ALERT_BITS)
    bits = forest.bits(found.rows.features)
    assert np.array_equal(found.forest, bits)
    assert np.array_equal(found.evidence, verdict(found.rows.strength, bits))
    assert np.array_equal(found.alerted, found.evidence >= ALERT_BITS)
    assert found.risk.min() >= 0 and found.risk.max() < 100


def test_only_statistics_and_patterns_count_without_a_forest(history: FoldResult) -> None:
    found = assess(history, None, alert_bits=ALERT_BITS)
    assert not found.forest.any()
    assert np.array_equal(found.alerted, found.rows.alerted)
    assert found.totals.forest_ranked == 0


def test_forest_without_a_say_changes_no_verdict(history: FoldResult) -> None:
    forest = train(history.sample.features, trees=20)
    without, silent = (
        assess(history, None, alert_bits=0.5),
        assess(history, weighted(forest, 0.0), alert_bits=0.5),
    )
    loud = assess(history, forest, alert_bits=0.5)
    assert np.array_equal(silent.evidence, without.evidence)
    assert silent.totals == without.totals
    assert not np.array_equal(loud.evidence, without.evidence)


def test_totals_count_all_events_and_the_forest_in_the_sample_only(history: FoldResult) -> None:
    found = assess(history, None, alert_bits=ALERT_BITS)
    low = 5.0  # bits; a forest alone never has the evidence of an alert at the default level
    strange = replace(found.rows, strength=np.full(len(found.rows), low - 0.1))
    almost = replace(history, sample=rows_of(strange, found.sampled), alerts=rows([], ["x"]))
    flat = train(np.random.default_rng(0).normal(size=(300, len(NAMES))).astype(np.float32) * 1e-3, trees=20)
    totals = assess(almost, flat, alert_bits=low).totals
    assert totals.events == sum(c.events for c in history.counts)
    assert totals.alerted == sum(c.alerted for c in history.counts)
    assert totals.alert_rate == totals.alerted / totals.events
    assert totals.sampled == totals.forest_ranked == totals.sampled_alerted == len(history.sample)


def rows_of(table: EventTable, among: np.ndarray) -> EventTable:
    return EventTable(**{f.name: getattr(table, f.name)[among] for f in fields(EventTable)})


def users_found(
    history: FoldResult, forest: Forest | None = None, peers: PeerGroups | None = None
) -> tuple[UserAssessor, UserAssessment]:
    assessor = detected(history, forest, peers).assessor
    return assessor, assessor.assess(users_of(history))


def changed(history: FoldResult, **columns: np.ndarray) -> FoldResult:
    """The history with other columns of its users."""
    return with_users(history, replace(users_of(history), **columns))


def test_user_evidence_is_that_of_the_strongest_event_of_this_run(
    history: FoldResult, forest: Forest
) -> None:
    events, users = assess(history, forest, alert_bits=ALERT_BITS), users_of(history)
    _, found = users_found(history, forest)
    for i in range(len(users)):
        mine = (
            (events.rows.partition == users.partition[i])
            & (events.rows.user == users.user[i])
            & (events.rows.offset >= 500)
        )
        assert found.event_bits[i] == max([users.event_bits[i], *events.evidence[mine]])
        if found.strongest[i] >= 0:
            assert mine[found.strongest[i]]
            assert events.evidence[found.strongest[i]] == found.event_bits[i]
    rare = np.maximum(found.event_bits - np.log2(found.events_seen), 0.0)
    assert np.array_equal(found.evidence, np.maximum(rare, users.incident_bits))
    assert np.array_equal(found.at_risk, found.risk >= 80.8)


def test_events_of_earlier_runs_do_not_count_against_users(history: FoldResult) -> None:
    none = np.zeros(len(users_of(history)))
    nobody = changed(history, event_bits=none, incident_bits=none)
    old = replace(nobody, counts=[Counts(c.partition, 1000, 1000) for c in history.counts])
    assert not users_found(old)[1].at_risk.any()


def test_distance_from_peers_adds_evidence(history: FoldResult, peers: PeerGroups) -> None:
    _, alone = users_found(history)
    assessor, found = users_found(history, peers=peers)
    bits = peers.assign(users_of(history).usual).bits
    assert np.array_equal(found.peer_bits, bits)
    assert found.evidence - alone.evidence == pytest.approx(PEER_SHARE * np.maximum(bits - PEER_USUAL, 0.0))
    loner = replace(found, peer_bits=np.where(np.arange(len(bits)) == 3, 20.0, 2.0))
    assert "unlike their peers: 20.0 bits" in assessor.why(loner, 3)
    assert not any("peers" in reason for reason in assessor.why(loner, 4))


def test_users_are_at_risk_by_evidence_and_not_by_a_fixed_share(history: FoldResult) -> None:
    n = len(users_of(history))
    silent = replace(
        history,
        sample=replace(history.sample, strength=np.zeros(len(history.sample))),
        alerts=rows([], ["x"]),
    )
    assert not users_found(changed(silent, event_bits=np.zeros(n), incident_bits=np.zeros(n)))[
        1
    ].at_risk.any()
    assert users_found(changed(history, event_bits=np.full(n, 30.0)))[1].at_risk.all()


def test_user_has_at_least_the_risk_of_their_worst_incident(history: FoldResult) -> None:
    """However many events the user has; an incident of another user changes nothing."""
    users = users_of(history)
    quiet = changed(
        history, event_bits=np.full(len(users), ALERT_BITS - 1), incident_bits=np.zeros(len(users))
    )
    quiet = replace(quiet, sample=rows([], ["x"]), alerts=rows([], ["x"]))
    bits = np.zeros(len(users))
    bits[7] = 110.4
    before, after = users_found(quiet)[1], users_found(changed(quiet, incident_bits=bits))[1]
    assert not before.at_risk.any()
    assert np.flatnonzero(after.at_risk).tolist() == [7]
    assert (after.evidence[7], after.risk[7]) == (110.4, risk(110.4))
    assert np.array_equal(np.delete(after.evidence, 7), np.delete(before.evidence, 7))
    assert users_found(changed(quiet, incident_bits=bits))[0].why(after, 7)[0] == "an incident of 110.4 bits"


def test_user_with_many_events_is_not_at_risk_for_a_rare_one(history: FoldResult) -> None:
    users = users_of(history)
    assert users_found(history)[1].events_seen == pytest.approx(25 * 498 / 1000)
    summary = users.summary.copy()
    summary["total_events"] = 1
    summary["total_events"][7] = 1_000_000
    busy = changed(
        history,
        summary=summary,
        event_bits=np.full(len(users), 14.0),
        incident_bits=np.zeros(len(users)),
    )
    ever = [int(summary["total_events"][users.partition == c.partition].sum()) for c in history.counts]
    counts = [replace_counts(c, events_ever=total) for c, total in zip(history.counts, ever, strict=True)]
    _, found = users_found(replace(busy, counts=counts, sample=rows([], ["x"]), alerts=rows([], ["x"])))
    assert found.events_seen[7] == pytest.approx(498, rel=0.01)
    assert np.flatnonzero(~found.at_risk[users.partition == 0]).tolist() == [7]


def test_reasons_describe_the_event_or_state_that_it_was_not_kept(history: FoldResult) -> None:
    assessor, found = users_found(history)
    events = assess(history, None, alert_bits=ALERT_BITS)
    kept = int(np.flatnonzero((found.strongest >= 0) & (found.event_bits > 15))[0])
    row = found.strongest[kept]
    assert assessor.why(found, kept) == [
        *(["an incident of 14.2 bits"] if found.incident_bits[kept] else []),
        f"{events.evidence[row]:.1f} bits, the strongest of about 12 events: auth_attempt from "
        f"{events.rows.source[row]} at partition {events.rows.partition[row]}, offset {events.rows.offset[row]} "
        "(brute force, password spray)",
    ]
    assessor, found = users_found(changed(history, event_bits=users_of(history).event_bits + 1))
    reason = assessor.why(found, kept)[-1]
    assert reason.endswith("the strongest of about 12 events: an event that was not kept")


def test_worst_users_are_those_of_all_tables(history: FoldResult, peers: PeerGroups, tmp_path: Path) -> None:
    findings = export_users(history, detected(history, None, peers), tmp_path)
    users = users_of(history)
    _, found = users_found(history, peers=peers)
    order = sorted(range(len(users)), key=lambda k: (-found.evidence[k], k))
    expected = [(users.user[k], users.partition[k]) for k in order if found.evidence[k] > 0][:50]
    assert [(one.user, one.partition) for one in findings.worst] == expected
    assert (findings.users, findings.at_risk) == (len(users), found.at_risk.sum())
    assert findings.group_sizes.tolist() == np.bincount(found.peers.group).tolist()  # type: ignore[union-attr]


def test_empty_history_is_accepted(forest: Forest, tmp_path: Path) -> None:
    none = rows([], ["x"])
    empty = FoldResult(none, none, {0: []}, {}, no_users().usual, [], {}, [Counts(0, 0, 0)])
    found = detected(empty, forest, peer_groups(empty.usual, Clusters(), seed=0))
    assert len(found.assessment.rows) == 0 and found.assessment.totals.alert_rate == 0.0
    assert export_users(empty, found, tmp_path).users == 0


def test_equal_offsets_of_two_partitions_and_the_first_offset_of_a_run_count(history: FoldResult) -> None:
    sample = rows([(0, 500), (1, 500)], ["ann", "bob"])
    found = assess(replace(history, sample=sample, alerts=rows([], [])), None, alert_bits=ALERT_BITS)
    assert found.rows.partition.tolist() == [0, 1]
    assert found.here.tolist() == [True, True]  # the run reads from offset 500 on
