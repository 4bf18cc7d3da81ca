"""Detection in simulated months with default settings: `python -m bench detection` with fewer seeds."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice

import pytest

from bench.detection import DAY_MS, DAYS, Outcome, play
from streamguard.events.event import parse
from streamguard.history.evaluate import evaluate
from streamguard.history.files import Batch
from streamguard.simulate import SCENARIOS, Simulation

pytestmark = pytest.mark.integration
SEEDS = range(3)


@pytest.fixture(scope="module")
def months() -> list[Outcome]:
    """Simulated months of a small company, each with every attack scenario."""
    return [play(seed, tuple(SCENARIOS)) for seed in SEEDS]


def test_at_most_0_2_percent_of_benign_events_are_alerted(months: list[Outcome]) -> None:
    assert sum(month.benign_share for month in months) / len(months) <= 0.002


def test_every_scenario_is_detected_in_at_least_two_of_three_months(months: list[Outcome]) -> None:
    found = Counter(name for month in months for name in month.caught)
    assert {name: found[name] for name in SCENARIOS if found[name] < 2} == {}


def test_forest_of_the_first_days_detects_later_attacks_without_a_worse_verdict() -> None:
    stream = iter(Simulation(14, 0, duration_ms=DAYS * DAY_MS, scenarios=tuple(SCENARIOS)))
    truth: deque[str | None] = deque()

    def batches() -> Iterator[Batch]:
        while events := list(islice(stream, 1000)):
            values: list[bytes | None] = [event.value for event in events]
            truth.extend(event.scenario for event in events)
            yield Batch(0, [], values, *parse(values), {})

    def labels(batch: Batch) -> tuple[list[bool], list[str | None]]:
        names = [truth.popleft() for _ in batch.values]
        return [name is not None for name in names], names

    scores = evaluate(batches(), labels, partitions=4)["scores"]
    assert scores["forest"]["average_precision"] >= 0.6
    assert scores["verdict"]["average_precision"] >= scores["statistical"]["average_precision"] - 0.01
