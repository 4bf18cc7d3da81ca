"""Calibration from scores to tail probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamguard.compute.compiler import kernel
from streamguard.fold import calibration
from streamguard.fold import population as crowd


@kernel
def tails(p, scores, out):  # type: ignore[no-untyped-def]
    for i in range(scores.shape[0]):
        out[i] = calibration.tail_bits(p[0], scores[i])


@kernel
def learn(p, scores, usual):  # type: ignore[no-untyped-def]
    for i in range(scores.shape[0]):
        tail = calibration.tail_bits(p[0], scores[i]) if usual else calibration.STRANGE_BITS - 1.0
        calibration.record(p[0], scores[i], tail, 1.0)
        p[0].events += 1.0


def tail(p: NDArray[np.void], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty(len(scores))
    tails(p, scores, out)
    return out


def learned(scores: NDArray[np.float64]) -> NDArray[np.void]:
    """A population that has recorded scores, whatever their tails were."""
    p = crowd.blank()
    learn(p, scores, False)
    return p


BENIGN = np.random.default_rng(1).gamma(2.0, 3.0, 200_000)


def test_tail_is_zero_before_any_event() -> None:
    assert tail(crowd.blank(), np.array([0.0, 1e6])).tolist() == [0.0, 0.0]


@given(st.lists(st.floats(0.0, 200.0), max_size=200), st.integers(0, 20))
def test_tail_increases_with_the_score_and_is_finite(scores: list[float], repeat: int) -> None:
    bits = tail(learned(np.array(scores * repeat)), np.arange(0.0, 600.0, 0.05))
    assert np.isfinite(bits).all()
    assert (bits >= 0).all()
    assert (np.diff(bits) >= -1e-9).all()


@pytest.mark.parametrize("events", [1, 50, 1000, 200_000])
def test_tail_has_no_upper_limit(events: int) -> None:
    """A higher score is always rarer, so no two attacks look equal because a scale ends."""
    bits = tail(learned(BENIGN[:events]), np.array([50.0, 100.0, 200.0, 1000.0, 1e5]))
    assert (np.diff(bits) > 1.0 * events / (events + 100.0)).all()


def test_tail_of_7_and_10_bits_is_one_event_in_a_hundred_and_in_a_thousand() -> None:
    bits = tail(learned(BENIGN), np.random.default_rng(2).gamma(2.0, 3.0, 200_000))
    assert np.mean(bits >= np.log2(100)) == pytest.approx(1e-2, rel=0.1)
    assert np.mean(bits >= np.log2(1000)) == pytest.approx(1e-3, rel=0.25)


def test_new_partition_gives_little_evidence() -> None:
    few, many = learned(BENIGN[:20]), learned(BENIGN)
    assert tail(few, np.array([40.0]))[0] < 0.5 * tail(many, np.array([40.0]))[0]


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=50))
def test_histogram_loses_no_weight(scores: list[float]) -> None:
    p = learned(np.array(scores))
    assert p["scores"].sum() == p["scores_total"][0] == len(scores)


def test_planted_strange_events_do_not_make_strange_events_usual() -> None:
    p = learned(BENIGN[:20_000])
    p["recent"] = 3_000.0  # of which one day's events are a part
    before = tail(p, np.array([60.0]))[0]
    learn(p, np.full(500, 60.0), True)
    assert tail(p, np.array([60.0]))[0] > 0.7 * before
    assert p["strange"][0] <= p["recent"][0] * calibration.STRANGE_SHARE + calibration.STRANGE_PRIOR


def test_a_lasting_change_becomes_usual_within_days() -> None:
    p = learned(BENIGN[:20_000])
    changed = np.random.default_rng(3).gamma(2.0, 3.0, 3_000) + 15.0
    for _ in range(10):
        learn(p, changed, True)
        p["strange"] *= 0.5  # a day passes
        p["recent"] *= 0.5
    assert tail(p, np.array([float(np.median(changed))]))[0] < 3.0
