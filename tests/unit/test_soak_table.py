"""Evaluation of the samples of a long run: growing memory is distinguished from fluctuating memory."""

from __future__ import annotations

import numpy as np
import pytest

from bench.soak_table import Labels, Sample, Table, slope

PERIOD = 120.0
MIB = 2**20


def run(resident: list[float], warm: float = 300.0) -> list[Sample]:
    """Samples of a worker every five seconds: its memory by period, fluctuating within each period."""
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


def test_fluctuation_and_warm_up_are_not_growth() -> None:
    noise = np.random.default_rng(7).normal(0.0, 1.0, 10)
    steady = table(run((250.0 + noise).tolist()))
    assert not steady.grows


def test_growth_is_reported_with_its_slope() -> None:
    noise = np.random.default_rng(7).normal(0.0, 0.5, 10)
    leaking = table(run((250.0 + 3.0 * np.arange(10) + noise).tolist()))
    assert leaking.grows
    gradient, error = slope(leaking.stayed, PERIOD)
    assert gradient == pytest.approx(90.0, abs=3 * error), "three MiB in each of thirty periods an hour"


def test_significant_but_tiny_slope_is_not_growth() -> None:
    creeping = table(run((250.0 + 0.2 * np.arange(10)).tolist()))
    gradient, error = slope(creeping.stayed, PERIOD)
    assert gradient > 10 * error and not creeping.grows


def test_too_short_run_gives_no_verdict() -> None:
    short = table(run([250.0, 350.0]))
    assert not short.grows and np.isnan(slope(short.stayed, PERIOD)).all()
    assert "the run is too short" in short.text(10, {})


def test_table_shows_counts_memory_and_latency() -> None:
    text = table(run([250.0] * 10)).text(10, {"events lost": 0, "events folded twice": 0})
    for row in (
        "events sent",
        "events lost",
        "events folded twice",
        "MiB by tenths",
        "p50 <= 10 ms, p99 <= 100 ms",
    ):
        assert row in text, row
