"""Memory and time of a local retrain by the number of users: ten thousand, a hundred thousand, a million.

Each user has five events in a file. The driver holds no users, so its memory hardly grows with them; a task holds the
users of its partition.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import chain, repeat
from pathlib import Path

from bench.batch import Ran, ran
from bench.figures import Figure
from bench.traffic import Invented

EVENTS_A_USER = 5


def measure(*, quick: bool) -> list[Figure]:
    figures: list[Figure] = []
    drivers = {}
    for users in (1_000, 2_000) if quick else (10_000, 100_000, 1_000_000):
        done = retrained(users)
        drivers[users] = done.driver
        figures += [
            Figure(f"{users:,} users: a retrain", done.wall, "s"),
            Figure("  its CPU", done.cpu, "s"),
            Figure("  memory of the driver", done.driver, "MB"),
            Figure("  memory of all processes", done.memory, "MB"),
        ]
    few, many = min(drivers), max(drivers)
    what = f"memory of the driver, {many:,} users / {few:,} users"
    return [*figures, Figure(what, drivers[many] / drivers[few], "x", "<= 1.3")]


def retrained(users: int) -> Ran:
    """Write a file with events of so many users, and retrain from it with the local engine."""
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name:
        file = Path(name, "events.jsonl")
        numbers = chain.from_iterable(repeat(range(users), EVENTS_A_USER))
        with file.open("wb") as lines:
            for _, event in Invented(step_ms=1000).events(numbers):
                lines.write(event + b"\n")
        command = [sys.executable, "-m", "streamguard.cli", "retrain", "--json", "--engine", "local"]
        return ran([*command, "--input", str(file), "--output", str(Path(name, "runs"))])
