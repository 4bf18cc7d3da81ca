"""For any rows, the forest agrees with scikit-learn, batches do not matter, and bits are monotone."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from streamguard.models.forest import Forest
from streamguard.models.tail import measure
from streamguard.models.train import train

VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, -1e-45]),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.floats(-3, 3, width=32),
)


def matrices(rows: st.SearchStrategy[int], columns: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return rows.flatmap(lambda count: arrays(np.float32, (count, columns), elements=VALUES))


@functools.cache
def trained() -> Forest:
    rng = np.random.default_rng(5)
    return train(np.round(rng.normal(size=(800, 4)), 2).astype(np.float32), trees=30)


@given(matrices(st.integers(2, 40), 3), matrices(st.integers(1, 100), 3), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_any_forest_agrees_with_scikit_learn(
    training: NDArray[np.float32], rows: NDArray[np.float32], seed: int
) -> None:
    from sklearn.ensemble import IsolationForest

    forest = train(training, seed=seed, trees=7, background=0)
    model = IsolationForest(n_estimators=7, max_samples=len(training), random_state=seed).fit(training)
    assert np.array_equal(forest.score_samples(rows), model.score_samples(rows))


@given(matrices(st.integers(2, 40), 3), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_any_forest_with_a_background_is_reproducible(training: NDArray[np.float32], seed: int) -> None:
    first, second = (train(training, seed=seed, trees=7, background=0.5) for _ in range(2))
    assert first.version == second.version
    assert np.isfinite(first.bits(training)).all()


@given(matrices(st.integers(1, 200), 4), st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_row_scores_the_same_in_any_batch(rows: NDArray[np.float32], size: int) -> None:
    forest = trained()
    parts = [forest.score_samples(rows[start : start + size]) for start in range(0, len(rows), size)]
    assert np.array_equal(np.concatenate(parts), forest.score_samples(rows))


ANOMALIES = st.floats(0.001, 1.0)


@given(
    arrays(np.float64, st.integers(1, 300), elements=ANOMALIES), arrays(np.float64, 20, elements=ANOMALIES)
)
@settings(max_examples=200, deadline=None)
def test_bits_are_finite_and_monotone_and_zero_below_the_median(
    training: NDArray[np.float64], anomaly: NDArray[np.float64]
) -> None:
    tail = measure(training)
    near = np.concatenate([tail.anomaly, np.nextafter(tail.anomaly, 0), np.nextafter(tail.anomaly, 2)])
    asked = np.sort(np.concatenate([anomaly, near]))
    bits = tail.bits(asked)
    assert np.isfinite(bits).all()
    assert (np.diff(bits) >= 0).all()
    assert (bits[asked <= np.quantile(training, 0.5)] == 0).all()
    assert tail.bits(np.array([10.0])) > tail.bits(np.array([5.0])) > bits[-1]
