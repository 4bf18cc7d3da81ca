"""Cost of an event with a thousand and with a million users: parsing, folding, fetching and saving profiles on disk.

Every user has been seen before; each event is of any of them, which is harder than real life, where some are busy.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.table import Local, Memory, PartitionTable
from bench.figures import Figure
from bench.traffic import CHUNK, Invented
from streamguard.settings import Detection, Worker
from streamguard.state import PartitionState


@dataclass
class Cost:
    """CPU of all threads, microseconds an event."""

    total: float = 0.0
    reading: float = 0.0
    """Profiles that were not in memory; wall time."""
    saving: float = 0.0
    """Checkpoints, RocksDB's part of them; wall time."""


class Stored:
    """A partition's state over RocksDB, saved as often as the worker does."""

    def __init__(self, directory: Path, worker: Worker) -> None:
        self._table = PartitionTable(directory, Memory(worker.block_cache_mb << 20))
        self._every = worker.checkpoint_events
        self._unsaved = 0
        self.state = PartitionState(0, self._read, resident=worker.resident_profiles, detection=Detection())
        self.cost = Cost()

    def fold(self, events: list[bytes]) -> None:
        """Fold in chunks, and save."""
        begun = time.process_time()
        for start in range(0, len(events), CHUNK):
            part = events[start : start + CHUNK]
            first = self.state.next_offset or 0
            self.state.fold(part, np.arange(first, first + len(part)))
            self._unsaved += len(part)
            if self.state.full or self._unsaved >= self._every:
                self._save()
        self.cost.total += time.process_time() - begun

    def close(self) -> None:
        self._table.close()

    def _read(self, keys: list[bytes]) -> list[bytes | None]:
        begun = time.perf_counter()
        values = self._table.get_many(keys)
        if hasattr(self, "cost"):
            self.cost.reading += time.perf_counter() - begun
        return values

    def _save(self) -> None:
        begun = time.perf_counter()
        self._table.write(self.state.changes(), Local("bench", self.state.next_offset or 0))
        self.state.clean()
        self._unsaved = 0
        self.cost.saving += time.perf_counter() - begun


def cost(users: int, events: int) -> Cost:
    """Of an event, once every user is known."""
    random = np.random.default_rng(0)
    invented = Invented()
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as directory:
        stored = Stored(Path(directory), Worker())
        known = random.permutation(users)
        rounds = -(-2 * CHUNK // users)
        for part in np.array_split(np.tile(known, rounds), max(1, users * rounds // 20_000)):
            stored.fold([event for _, event in invented.events(part.tolist())])
        measured = [event for _, event in invented.events(random.integers(0, users, events).tolist())]
        stored.fold(measured[: events // 5])
        stored.cost = Cost()
        stored.fold(measured[events // 5 :])
        stored.close()
    count = events - events // 5
    spent = stored.cost
    return Cost(*(seconds / count * 1e6 for seconds in (spent.total, spent.reading, spent.saving)))


def measure(*, quick: bool) -> list[Figure]:
    sizes, events = ((1_000, 20_000), 25_000) if quick else ((1_000, 10_000, 100_000, 1_000_000), 200_000)
    costs = {users: cost(users, events) for users in sizes}
    figures = []
    for users, spent in costs.items():
        figures += [
            Figure(f"{users:,} users: an event", spent.total, "us"),
            Figure(f"{users:,} users: of it fetching profiles", spent.reading, "us"),
            Figure(f"{users:,} users: of it saving them", spent.saving, "us"),
        ]
    ratio = costs[sizes[-1]].total / costs[sizes[0]].total
    return [*figures, Figure(f"{sizes[-1]:,} users, by {sizes[0]:,}", ratio, "x", "<= 2.5")]
