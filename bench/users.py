"""Cost of an event with a thousand and with a million users: parsing, folding, 300 trees, profiles on disk and back.

Every user has been seen before. Some users are busier than others, by Zipf's law; the same with all alike is beside
it: then hardly any event finds its profile in memory, and each event is a profile to save.
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
from streamguard.forest import Forest
from streamguard.models.train import train
from streamguard.settings import Detection, Worker
from streamguard.state import PartitionState

ZIPF = 1.05
TRAINED_AFTER = 1000


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
        self.forest: Forest | None = None
        self.cost = Cost()

    def fold(self, events: list[bytes]) -> None:
        """Fold in chunks, and save."""
        begun = time.process_time()
        for start in range(0, len(events), CHUNK):
            part = events[start : start + CHUNK]
            first = self.state.next_offset or 0
            folded = self.state.fold(part, np.arange(first, first + len(part)), self.forest)
            if self.forest is None and first >= TRAINED_AFTER:
                self.forest = train(folded.features)
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


def costs(users: int, events: int) -> dict[str, Cost]:
    """Of an event, once every user is known: for busy and idle users, and for all alike."""
    random = np.random.default_rng(0)
    invented = Invented()
    busy = 1.0 / np.arange(1, users + 1) ** ZIPF
    shares = {"Zipf": busy / busy.sum(), "alike": None}
    found = {}
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as directory:
        stored = Stored(Path(directory), Worker())
        rounds = -(-2 * CHUNK // users)
        known = np.tile(random.permutation(users), rounds)
        for part in np.array_split(known, max(1, len(known) // 20_000)):
            stored.fold([event for _, event in invented.events(part.tolist())])
        for name, share in shares.items():
            drawn = random.choice(users, events, p=share).tolist()
            measured = [event for _, event in invented.events(drawn)]
            stored.fold(measured[: events // 5])
            stored.cost = Cost()
            stored.fold(measured[events // 5 :])
            spent, count = stored.cost, events - events // 5
            found[name] = Cost(
                *(seconds / count * 1e6 for seconds in (spent.total, spent.reading, spent.saving))
            )
        stored.close()
    return found


def measure(*, quick: bool) -> list[Figure]:
    sizes, events = ((1_000, 20_000), 25_000) if quick else ((1_000, 10_000, 100_000, 1_000_000), 200_000)
    found = {users: costs(users, events) for users in sizes}
    few, many = sizes[0], sizes[-1]
    figures = []
    for name, wanted in (("Zipf", "<= 2.5"), ("alike", "")):
        for users in sizes:
            spent = found[users][name]
            figures += [
                Figure(f"{users:,} users, {name}: an event", spent.total, "us"),
                Figure(f"{users:,} users, {name}: of it fetching profiles", spent.reading, "us"),
                Figure(f"{users:,} users, {name}: of it saving them", spent.saving, "us"),
            ]
        ratio = found[many][name].total / found[few][name].total
        figures.append(Figure(f"{many:,} users, by {few:,}, {name}", ratio, "x", wanted))
    return figures
