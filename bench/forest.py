"""A row's cost in the forest: 300 trees and 28 features, packed kernels beside scikit-learn, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.models.train import train

TREES = 300
FEATURES = 28


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU per row of one batch size, in microseconds: the best of some repetitions."""

    batch: int
    packed: float
    sklearn: float
    identical: bool
    """Whether both gave the same bits for every row."""


def sample(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows of which some columns are counts and some heavy-tailed."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, FEATURES)).astype(np.float32)
    rows[:, ::3] = np.round(rows[:, ::3] * 3)
    rows[:, 1::5] = np.exp(rows[:, 1::5])
    return rows


def best(call: Callable[[], object], repetitions: int) -> float:
    """Least CPU time of this thread for a call, in microseconds."""
    least = float("inf")
    for _ in range(repetitions):
        start = time.thread_time()
        call()
        least = min(least, time.thread_time() - start)
    return least * 1e6


def measure(batches: tuple[int, ...] = (1, 100, 1000)) -> list[Cost]:
    """Cost of a row by batch size; both score the same rows with the same trees."""
    from sklearn.ensemble import IsolationForest

    rows = sample(10_000)
    forest = train(rows, trees=TREES)
    model = IsolationForest(n_estimators=TREES, max_samples=256, random_state=0).fit(rows)
    forest.score_samples(rows[:100])
    costs = []
    for batch in batches:
        part = rows[:batch]
        packed = best(lambda part=part: forest.score_samples(part), max(20, 2000 // batch))
        sklearn = best(lambda part=part: model.score_samples(part), 5)
        identical = np.array_equal(forest.score_samples(part), model.score_samples(part))
        costs.append(Cost(batch, packed / batch, sklearn / batch, identical))
    return costs


def main() -> None:
    print(f"{'rows a call':>12} {'us a row':>10} {'scikit-learn':>14} {'ratio':>7}  same bits")
    for cost in measure():
        print(
            f"{cost.batch:>12} {cost.packed:>10.2f} {cost.sklearn:>14.1f} {cost.sklearn / cost.packed:>6.0f}x"
            f"  {'yes' if cost.identical else 'NO'}"
        )


if __name__ == "__main__":
    main()
