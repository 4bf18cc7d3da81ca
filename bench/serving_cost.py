"""What a server costs the workers: their CPU for an event while it follows the topics and while it stands still."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure
from bench.server import serving
from bench.traffic import Invented
from bench.worker import CPU, RunningWorker, running, settings
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.settings.schema import Settings
from streamguard.testing.broker import LocalKafka

LIMIT = 1.02
"""Ratio up to which no cost is seen: two halves of one run differ by as much."""


class Size(NamedTuple):
    """How much is measured.

    Attributes
    ----------
    events, users
        Events of one measurement, and the users that they are about.
    pairs
        Measurements with and without the server, each right after the other.
    """

    events: int
    users: int
    pairs: int


FULL = Size(200_000, 20_000, 10)
QUICK = Size(2_000, 200, 1)


def measure(*, quick: bool) -> list[Figure]:
    """CPU of a worker for an event with a server, divided by that without one, in pairs."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        directory = Path(name)
        chosen = settings(kafka.bootstrap_servers, directory / "worker", checkpoint_seconds=1.0)
        with running(chosen) as worker, serving(chosen, directory / "serve") as server:
            traffic = Traffic(worker, chosen, size)
            server.until(server.client(), "/v1/users?limit=1", lambda _: True)
            traffic.cpu()  # compiles, and makes the profiles
            ratios = []
            for pair in range(size.pairs):
                costs = {}
                for follows in (True, False) if pair % 2 else (False, True):
                    with nullcontext() if follows else server.standing_still():
                        costs[follows] = traffic.cpu()
                ratios.append(costs[True] / costs[False])
    print(
        "CPU of the worker with a server / without: " + " ".join(f"{one:.3f}" for one in ratios), flush=True
    )
    return [
        Figure(
            "worker's CPU an event, with a server / without", statistics.median(ratios), "x", f"<= {LIMIT}"
        )
    ]


class Traffic:
    """Sends events to a worker and takes its CPU time for them."""

    def __init__(self, worker: RunningWorker, chosen: Settings, size: Size) -> None:
        self._worker, self._chosen, self._size = worker, chosen, size
        self._invented = Invented()
        self._sent = 0

    def cpu(self) -> float:
        """Send the events of one measurement; return the seconds of CPU until they are folded and saved."""
        before = self._worker.until_saved(self._chosen.worker.checkpoint_seconds)[CPU]
        users = [k % self._size.users for k in range(self._size.events)]
        with EventProducer(Brokers.of(self._chosen), self._chosen.kafka.events_topic) as producer:
            producer.send(self._invented.events(users))
        self._sent += self._size.events
        self._worker.until_events(self._sent)
        return self._worker.until_saved(self._chosen.worker.checkpoint_seconds)[CPU] - before
