"""Time of one event from bytes to verdict, with its profile in memory: statistics, patterns and 300 trees."""

from __future__ import annotations

import time

import numpy as np

from bench.figures import Figure
from bench.traffic import habits, learn, values


def measure(*, quick: bool) -> list[Figure]:
    learned, timed = (6_000, 500) if quick else (30_000, 20_000)
    events = values(habits(learned + timed, users=1000))
    state, forest = learn(events[:learned])
    warm = timed // 5
    taken = np.empty(timed)
    for k, event in enumerate(events[learned:]):
        offset = np.array([learned + k])
        begun = time.perf_counter_ns()
        state.fold([event], offset, forest)
        taken[k] = time.perf_counter_ns() - begun
    p50, p99 = np.percentile(taken[warm:] / 1000, [50, 99])
    return [
        Figure("one event to verdict, p50", float(p50), "us", "<= 40"),
        Figure("one event to verdict, p99", float(p99), "us", "<= 100"),
    ]
