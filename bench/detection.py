"""Caught attacks and false alerts in 30 simulated days of 14 users, with default settings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from bench.figures import Figure
from streamguard.events.event import parse
from streamguard.history.evaluate import evaluate
from streamguard.history.files import Batch, read
from streamguard.history.labels import ColumnLabels
from streamguard.history.replay import Replay
from streamguard.simulate import SCENARIOS, Simulation

DAYS = 30
LEARNING_DAYS = 9
"""False alerts are counted after these days: `streamguard evaluate` also does not measure the first three tenths."""

DAY_MS = 86_400_000


@dataclass
class Outcome:
    """One simulated company.

    Attributes
    ----------
    caught
        Scenarios with an alerted event.
    benign_share
        Alerted share of the benign events after the learning days.
    false_incidents
        Incidents a day without an event of an attack, after the learning days.
    """

    caught: set[str] = field(default_factory=set)
    benign_share: float = 0.0
    false_incidents: float = 0.0


def play(seed: int, scenarios: tuple[str, ...], *, users: int = 14, days: int = DAYS) -> Outcome:
    """Simulate a company, replay its events over four partitions, and compare the alerts with the labels."""
    simulation = Simulation(users, seed, duration_ms=days * DAY_MS, scenarios=scenarios)
    replay = Replay(partitions=4)
    learned = simulation.start_ms + days * DAY_MS * LEARNING_DAYS // DAYS
    caught: set[str] = set()
    attacked, suspected = set(), set()
    benign = alerted = 0
    stream = iter(simulation)
    while events := list(islice(stream, 1000)):
        values: list[bytes | None] = [event.value for event in events]
        scored = replay.feed(Batch(0, [], values, *parse(values), {}))
        for event, incident in zip(events, scored.incident.tolist(), strict=True):
            if event.scenario is not None:
                if incident >= 0:
                    caught.add(event.scenario)
                    attacked.add(incident)
            elif event.timestamp >= learned:
                benign += 1
                if incident >= 0:
                    alerted += 1
                    suspected.add(incident)
    return Outcome(caught, alerted / benign, len(suspected - attacked) / (days * (1 - LEARNING_DAYS / DAYS)))


def measure(*, quick: bool) -> list[Figure]:
    """Figures of simulated companies without attacks, and with one attack of each scenario."""
    days, seeds, quiet_seeds = (8, 1, 1) if quick else (DAYS, 10, 8)
    quiet = [play(seed, (), days=days) for seed in range(quiet_seeds)]
    attacked = [play(seed, tuple(SCENARIOS), days=days) for seed in range(seeds)]
    found = Counter(name for outcome in attacked for name in outcome.caught)
    share = [outcome.benign_share * 100 for outcome in quiet]
    figures = [
        Figure(f"benign events alerted, mean of {quiet_seeds} seeds", float(np.mean(share)), "%", "<= 0.2"),
        Figure("benign events alerted, worst seed", max(share), "%"),
        Figure("false incidents a day, without attacks", _false_a_day(quiet)),
        Figure("false incidents a day, with the attacks below", _false_a_day(attacked)),
    ]
    for name, scenario in SCENARIOS.items():
        wanted = round((0.6 if scenario.slow else 0.9) * seeds)
        figures.append(Figure(f"{name}, seeds of {seeds} that caught it", found[name], "", f">= {wanted}"))
    return figures


def _false_a_day(outcomes: list[Outcome]) -> float:
    return float(np.mean([outcome.false_incidents for outcome in outcomes]))


def labelled(path: Path) -> list[Figure]:
    """Figures of `streamguard evaluate FILE` with its defaults: labels in `is_attack`, campaigns in `attack_id`."""
    labels = ColumnLabels("is_attack", "attack_id")
    result = evaluate(read(str(path), extra=["is_attack"], optional=["attack_id"]), labels)
    labels.check()
    figures = [
        Figure(f"{score}: {name.replace('_', ' ')}", value)
        for score, measures in result["scores"].items()
        for name, value in (measures or {}).items()
        if value is not None
    ]
    campaigns = result["campaigns"]
    figures += [
        Figure(f"campaigns caught of {campaigns['total']}", campaigns["caught"]),
        Figure("incidents", result["incidents"]),
        Figure("CPU without start-up", result["cpu_seconds"], "s"),
    ]
    optional = [
        ("delay of the first alert, median", campaigns["median_delay_seconds"], "s"),
        ("false incidents a day", result["incidents_per_benign_day"], ""),
    ]
    return figures + [Figure(what, value, unit) for what, value, unit in optional if value is not None]
