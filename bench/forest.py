"""Cost of scoring a row with 300 trees and 28 features: StreamGuard's kernels compared with scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure
from streamguard.models.train import train

TREES = 300
FEATURES = 28


def sample(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random rows, in which some columns are counts and some have a heavy tail."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, FEATURES)).astype(np.float32)
    rows[:, ::3] = np.round(rows[:, ::3] * 3)
    rows[:, 1::5] = np.exp(rows[:, 1::5])
    return rows


def best(
    score: Callable[[NDArray[np.float32]], object], rows: NDArray[np.float32], repetitions: int
) -> float:
    """Lowest CPU time of this thread for scoring the rows together, in microseconds."""
    lowest = float("inf")
    for _ in range(repetitions):
        start = time.thread_time()
        score(rows)
        lowest = min(lowest, time.thread_time() - start)
    return lowest * 1e6


def measure(*, quick: bool) -> list[Figure]:
    """Costs of both, which score the same rows with the same trees."""
    from sklearn.ensemble import IsolationForest

    rows = sample(1_000 if quick else 10_000)
    forest = train(rows, trees=TREES, background=0)
    model = IsolationForest(n_estimators=TREES, max_samples=256, random_state=0).fit(rows)
    forest.score_samples(rows[:100])
    figures = []
    for batch, wanted in ((1, ""), (100, ""), (1000, "<= 2.5")):
        packed = best(forest.score_samples, rows[:batch], 5 if quick else max(20, 2000 // batch))
        figures.append(Figure(f"a row in batches of {batch}", packed / batch, "us", wanted))
        sklearn = best(model.score_samples, rows[:batch], 1 if quick else 5)
        figures.append(Figure(f"a row in batches of {batch}, scikit-learn", sklearn / batch, "us"))
    differ = int((forest.score_samples(rows) != model.score_samples(rows)).sum())
    figures.append(
        Figure(f"rows of {len(rows):,} with another score than scikit-learn's", differ, "", "<= 0")
    )
    return figures
