"""Memory and time of a local retrain by the number of users, and by the number of partitions.

Ten thousand, a hundred thousand and a million users have two million events together in a file. The driver holds no
users, so its memory hardly grows with them; a task holds the users of its partition. Then a topic has a thousand
partitions, or 16 with the same events.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import chain, repeat
from pathlib import Path

from msgspec.structs import replace

from bench.batch import Ran, fill, ran, retrain
from bench.figures import Figure
from bench.traffic import Invented
from bench.worker import settings
from streamguard.testing.broker import LocalKafka

EVENTS = 2_000_000
"""The same for all numbers of users, because the driver holds a sample of the events, which more events fill."""


def measure(*, quick: bool) -> list[Figure]:
    figures: list[Figure] = []
    drivers = {}
    for users in (1_000, 2_000) if quick else (10_000, 100_000, 1_000_000):
        done = retrained(users, EVENTS // 100 if quick else EVENTS)
        drivers[users] = done.driver
        figures += [
            Figure(f"{users:,} users: a retrain", done.wall, "s"),
            Figure("  its CPU", done.cpu, "s"),
            Figure("  memory of the driver", done.driver, "MB"),
            Figure("  memory of all processes", done.memory, "MB"),
        ]
    few, many = min(drivers), max(drivers)
    what = f"memory of the driver, {many:,} users / {few:,} users"
    figures.append(Figure(what, drivers[many] / drivers[few], "x", "<= 1.3"))
    events, counts = (2_000, (16,)) if quick else (100_000, (16, 1_000))
    for count in counts:
        done = of_partitions(count, events)
        figures += [
            Figure(f"{events:,} events in {count:,} partitions: a retrain", done.wall, "s"),
            Figure("  memory of the driver", done.driver, "MB"),
        ]
    return figures


def of_partitions(count: int, events: int) -> Ran:
    """Fill a topic of so many partitions, and retrain from it with the local engine."""
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        chosen = settings(kafka.bootstrap_servers, Path(name))
        chosen = replace(chosen, kafka=replace(chosen.kafka, partitions=count))
        fill(chosen, chosen.kafka.events_topic, events, 10_000)
        return retrain(chosen, chosen.kafka.events_topic, Path(name, "runs"), "local")


def retrained(users: int, events: int) -> Ran:
    """Write a file with so many events of so many users, and retrain from it with the local engine."""
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name:
        file = Path(name, "events.jsonl")
        numbers = chain.from_iterable(repeat(range(users), events // users))
        with file.open("wb") as lines:
            for _, event in Invented(step_ms=1000).events(numbers):
                lines.write(event + b"\n")
        command = [sys.executable, "-m", "streamguard.cli", "retrain", "--json", "--engine", "local"]
        return ran([*command, "--input", str(file), "--output", str(Path(name, "runs"))])
