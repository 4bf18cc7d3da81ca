"""The training sample: independent of order and offset ranges, only quiet events, limited for each user."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamguard.fold.features import NAMES
from streamguard.models.sampling import (
    MIN_ROWS,
    QUIET_TAIL_BITS,
    calibration_rows,
    priority,
    quiet,
    settled,
    smallest,
    training_rows,
)

BLOCK = np.arange(20_000)


def test_priorities_are_distinct_and_evenly_spread() -> None:
    keys = np.concatenate([priority(partition, BLOCK) for partition in range(4)])
    assert len(np.unique(keys)) == len(keys)
    shares = np.histogram(keys.astype(float), 64, (0, 2.0**64))[0] / len(keys)
    assert abs(shares * 64 - 1).max() < 0.15


def test_priorities_of_neighbours_and_partitions_are_uncorrelated() -> None:
    keys = np.array([priority(partition, BLOCK) for partition in range(4)]).astype(float)
    assert abs(np.corrcoef(keys)[np.triu_indices(4, 1)]).max() < 0.05
    assert abs(np.corrcoef(keys[0, 1:], keys[0, :-1])[0, 1]) < 0.05


@given(st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=50), st.integers(0, 50), st.integers(1, 20))
def test_samples_of_two_offset_ranges_merge_into_the_sample_of_both(
    offsets: list[int], cut: int, size: int
) -> None:
    keys = priority(3, np.array(offsets, np.int64))
    parts = [keys[:cut], keys[cut:]]
    kept = np.concatenate([part[smallest(part, size)] for part in parts])
    assert np.array_equal(kept[smallest(kept, size)], keys[smallest(keys, size)])


def test_quiet_events_have_few_bits_no_patterns_and_no_alert() -> None:
    tail = np.array([0.0, QUIET_TAIL_BITS, QUIET_TAIL_BITS + 0.1, 0.0, 0.0])
    patterns = np.array([0, 0, 0, 4, 0], np.uint64)
    alerted = np.array([False, False, False, False, True])
    assert quiet(tail, patterns, alerted).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(("days", "expected"), [(0, False), (2, False), (3, True), (400, True)])
def test_user_is_settled_from_the_third_day_on(days: int, expected: bool) -> None:
    features = np.zeros((1, len(NAMES)), np.float32)
    features[0, NAMES.index("active_days")] = np.log2(1 + days)
    assert settled(features).tolist() == [expected]


def drawn(n: int = 4000, seed: int = 0) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    return priority(0, np.arange(n)), np.random.default_rng(seed).geometric(0.2, n)


def test_rows_with_the_smallest_keys_are_taken_of_each_user() -> None:
    keys, user = drawn()
    good = np.ones(len(keys), bool)
    rows = training_rows(keys, user, good, good, per_user=50)
    assert (np.diff(keys[rows].astype(float)) > 0).all()
    for one in np.unique(user):
        mine = np.sort(keys[user == one])
        assert np.array_equal(np.sort(keys[rows][user[rows] == one]), mine[:50])


def test_training_rows_do_not_depend_on_the_order_of_the_sample() -> None:
    keys, user = drawn()
    names = np.array([f"0:user{number}" for number in user])
    shuffled = np.random.default_rng(1).permutation(len(keys))
    good = np.random.default_rng(2).random(len(keys)) < 0.8
    first = training_rows(keys, user, good, good, per_user=70)
    second = training_rows(keys[shuffled], names[shuffled], good[shuffled], good[shuffled], per_user=70)
    assert np.array_equal(first, shuffled[second])


def test_new_users_are_used_only_if_few_are_settled() -> None:
    keys, user = drawn()
    calm = np.ones(len(keys), bool)
    many = np.arange(len(keys)) % 4 > 0
    few = ~many
    assert many[training_rows(keys, user, calm, many, per_user=5000)].all()
    assert len(training_rows(keys, user, calm, few, per_user=5000)) == len(keys)
    short = np.arange(len(keys)) < MIN_ROWS + 10
    assert len(training_rows(keys, user, short, many, per_user=5000)) == short.sum()


def test_calibration_takes_all_events_without_patterns_or_alerts() -> None:
    keys, user = drawn(1000)
    patterns = (np.arange(1000) % 10 == 0).astype(np.uint64)
    alerted = np.arange(1000) % 7 == 0
    rows = calibration_rows(keys, user, patterns, alerted, per_user=1000)
    assert set(rows.tolist()) == set(np.flatnonzero((patterns == 0) & ~alerted).tolist())


def test_empty_sample_gives_no_training_rows() -> None:
    none = np.zeros(0, bool)
    assert len(training_rows(np.zeros(0, np.uint64), np.zeros(0, np.int64), none, none, per_user=5)) == 0
