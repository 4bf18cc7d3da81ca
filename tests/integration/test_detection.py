"""Detection in the simulator's month with default settings: `python -m bench detection` in fewer seeds."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.detection import Outcome, play
from streamguard.simulate import SCENARIOS

pytestmark = pytest.mark.integration
SEEDS = range(3)


@pytest.fixture(scope="module")
def months() -> list[Outcome]:
    """Months of a small company, with every scenario in each."""
    return [play(seed, tuple(SCENARIOS)) for seed in SEEDS]


def test_little_of_what_is_benign_is_alerted(months: list[Outcome]) -> None:
    assert sum(month.benign_share for month in months) / len(months) <= 0.002


def test_every_scenario_is_caught_in_most_months(months: list[Outcome]) -> None:
    found = Counter(name for month in months for name in month.caught)
    assert {name: found[name] for name in SCENARIOS if found[name] < 2} == {}
