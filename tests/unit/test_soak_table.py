"""What a long run's samples come to: memory that grows is told from memory that swings."""

from __future__ import annotations

import numpy as np
import pytest

from bench.drift import Labels, Sample, Table, slope

PERIOD = 120.0
MIB = 2**20


def run(resident: list[float], warm: float = 300.0) -> list[Sample]:
    """A worker's samples, one every five seconds: its memory by period, swinging within each."""
    seconds = np.arange(0.0, len(resident) * PERIOD, 5.0)
    return [
        Sample(
            share=s / seconds[-1],
            seconds=s,
            worker="a",
            process=1,
            resident=(resident[int(s // PERIOD)] + 20.0 * (s % PERIOD > 60.0) + 50.0 * min(s / warm, 1.0))
            * MIB,
            rocksdb=12.0 * MIB,
            chunks={0.01: 90.0 * s, 0.1: 100.0 * s, float("inf"): 100.0 * s},
        )
        for s in seconds
    ]


def table(samples: list[Sample]) -> Table:
    return Table(samples, Labels(sent=10, live=7), [], PERIOD)


def test_what_swings_and_warms_up_does_not_grow() -> None:
    noise = np.random.default_rng(7).normal(0.0, 1.0, 10)
    steady = table(run((250.0 + noise).tolist()))
    assert not steady.grows


def test_what_grows_is_told_with_its_slope() -> None:
    noise = np.random.default_rng(7).normal(0.0, 0.5, 10)
    leaking = table(run((250.0 + 3.0 * np.arange(10) + noise).tolist()))
    assert leaking.grows
    gradient, error = slope(leaking.stayed, PERIOD)
    assert gradient == pytest.approx(90.0, abs=3 * error), "three MiB in each of thirty periods an hour"


def test_a_slope_that_is_certain_and_tiny_is_no_growth() -> None:
    creeping = table(run((250.0 + 0.2 * np.arange(10)).tolist()))
    gradient, error = slope(creeping.stayed, PERIOD)
    assert gradient > 10 * error and not creeping.grows


def test_of_too_short_a_run_nothing_is_said() -> None:
    short = table(run([250.0, 350.0]))
    assert not short.grows and np.isnan(slope(short.stayed, PERIOD)).all()
    assert "the run is too short" in short.text(10, {})


def test_the_table_has_counts_memory_and_latency() -> None:
    text = table(run([250.0] * 10)).text(10, {"events lost": 0, "events folded twice": 0})
    for row in (
        "events sent",
        "events lost",
        "events folded twice",
        "MiB by tenths",
        "p50 <= 10 ms, p99 <= 100 ms",
    ):
        assert row in text, row
