"""Cost of an event with a thousand and with a million users: the whole worker on a backlog, and its state alone.

Every user has been seen before. Some users are busier than others, by Zipf's law. The state alone is parsing,
folding, 300 trees, profiles on disk and back, without Kafka; the same with all users alike is beside it: then hardly
any event finds its profile in memory, and each event is a profile to save.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from bench.figures import Figure
from bench.traffic import CHUNK, Invented, learn, publish
from bench.worker import CPU, EVENTS, running, settings
from streamguard.agents.task.store import Local, StateStore, StoreMemory
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.models.forest import Forest
from streamguard.models.train import train
from streamguard.settings.schema import Detection, Worker
from streamguard.state.partition import PartitionState
from streamguard.testing.broker import LocalKafka

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
        self._table = StateStore(directory, StoreMemory(worker.block_cache_mb << 20))
        self._every = worker.checkpoint_events
        self._unsaved = 0
        self.state = PartitionState(0, self._read, resident=worker.resident_profiles, detection=Detection())
        self.forest: Forest | None = None
        self.cost = Cost()

    def fold(self, events: list[bytes]) -> None:
        """Fold in chunks; what is left unsaved at the end is saved too, so that every event pays for it."""
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
        if self._unsaved:
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


def busy_shares(users: int) -> np.ndarray:
    """Of all events, float64 (users,), by Zipf's law."""
    shares = 1.0 / np.arange(1, users + 1) ** ZIPF
    return shares / shares.sum()


def all_known(users: int, random: np.random.Generator) -> list[int]:
    """Each user, in any order; few users more than once, so that there are some chunks."""
    return np.tile(random.permutation(users), -(-2 * CHUNK // users)).tolist()


def costs(users: int, events: int) -> dict[str, Cost]:
    """Of an event, once every user is known: for busy and idle users, and for all alike."""
    random = np.random.default_rng(0)
    invented = Invented()
    shares = {"Zipf": busy_shares(users), "alike": None}
    found = {}
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as directory:
        stored = Stored(Path(directory), Worker())
        known = all_known(users, random)
        for start in range(0, len(known), 20_000):
            stored.fold([event for _, event in invented.events(known[start : start + 20_000])])
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


class Company:
    """A topic of so many users and the worker that knows them all.

    Parameters
    ----------
    bootstrap_servers
        A Kafka, of which it takes a topic and a group of its own.
    directory
        For its state.
    registry
        Of the forest.
    """

    def __init__(self, bootstrap_servers: str, directory: Path, registry: Path, users: int) -> None:
        chosen = settings(bootstrap_servers, directory, registry, app_id=f"users-{users}")
        kafka = msgspec.structs.replace(chosen.kafka, events_topic=f"events-{users}")
        self._settings = msgspec.structs.replace(chosen, kafka=kafka)
        self._users = users
        self._random = np.random.default_rng(0)
        self._invented = Invented()
        topics.create(self._settings)

    def learn(self) -> None:
        """Have every user seen, and the profiles saved; the worker ends."""
        known = all_known(self._users, self._random)
        with running(self._settings) as worker:
            self._produce(known)
            worker.until_events(len(known))
            worker.until_saved(self._settings.worker.checkpoint_seconds)

    def cost(self, events: int) -> float:
        """Microseconds an event of a backlog; its first fifth fills the worker's memory and is not counted."""
        self._produce(self._random.choice(self._users, events, p=busy_shares(self._users)).tolist())
        with running(self._settings) as worker:
            first = worker.until_events(events // 5)
            worker.until_events(events)
            last = worker.until_saved(self._settings.worker.checkpoint_seconds)
        return (last[CPU] - first[CPU]) / (last[EVENTS] - first[EVENTS]) * 1e6

    def _produce(self, users: list[int]) -> None:
        kafka = self._settings.kafka
        with EventProducer(Brokers(kafka.bootstrap_servers), kafka.events_topic) as producer:
            producer.send(self._invented.events(users))


def worker_costs(sizes: tuple[int, ...], events: int, rounds: int) -> dict[int, float]:
    """Of an event, by the number of users; the least of some rounds, taken in turn."""
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        directory = Path(name)
        drawn = np.random.default_rng(1).integers(0, sizes[-1], 20_000).tolist()
        publish(learn([event for _, event in Invented().events(drawn)])[1], directory / "registry")
        companies = {
            users: Company(kafka.bootstrap_servers, directory / f"{users}", directory / "registry", users)
            for users in sizes
        }
        for company in companies.values():
            company.learn()
        found = [{users: company.cost(events) for users, company in companies.items()} for _ in range(rounds)]
    return {users: min(costs[users] for costs in found) for users in sizes}


def measure(*, quick: bool) -> list[Figure]:
    sizes, events = ((1_000, 5_000), 10_000) if quick else ((1_000, 10_000, 100_000, 1_000_000), 200_000)
    few, many = sizes[0], sizes[-1]
    whole = worker_costs((few, many), 10_000 if quick else 300_000, 1 if quick else 3)
    figures = [
        Figure(f"{users:,} users: an event in the worker", cost, "us") for users, cost in whole.items()
    ]
    figures.append(Figure(f"{many:,} users, by {few:,}, worker", whole[many] / whole[few], "x", "<= 2.5"))
    found = {users: costs(users, events) for users in sizes}
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
