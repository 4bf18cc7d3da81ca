"""Cost of an event with a thousand and with a million users: the whole worker on a backlog, and its state alone.

Every user has a profile before the measurement. Some users are busier than others, by Zipf's law. The state alone is
parsing, folding, 300 trees, and reading and saving profiles on disk, without Kafka. It is also measured with users who
are all equally busy: then hardly any event finds its profile in memory, and almost every event has a profile to save.
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
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.models.forest import Forest
from streamguard.models.train import train
from streamguard.settings.schema import Detection, Worker
from streamguard.state.partition import PartitionState
from streamguard.state.store import ChangelogPosition, StateStore, StoreMemory
from streamguard.testing.broker import LocalKafka

ZIPF = 1.05
TRAINED_AFTER = 1000


@dataclass
class Cost:
    """Cost of an event in microseconds.

    Attributes
    ----------
    total
        CPU time of all threads.
    reading
        Wall time of reading profiles that were not in memory.
    saving
        Wall time of RocksDB's part of checkpoints.
    """

    total: float = 0.0
    reading: float = 0.0
    saving: float = 0.0


class Stored:
    """The state of a partition with a state store, saved as often as a worker saves it."""

    def __init__(self, directory: Path, worker: Worker) -> None:
        self._store = StateStore(directory, StoreMemory(worker.block_cache_mb << 20))
        self._every = worker.checkpoint_events
        self._unsaved = 0
        self.state = PartitionState(0, self._read, resident=worker.resident_profiles, detection=Detection())
        self.forest: Forest | None = None
        self.cost = Cost()

    def fold(self, events: list[bytes]) -> None:
        """Fold events in chunks and save the rest at the end, so that the cost contains all saving."""
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
        """Close the state store."""
        self._store.close()

    def _read(self, keys: list[bytes]) -> list[bytes | None]:
        begun = time.perf_counter()
        values = self._store.get_many(keys)
        if hasattr(self, "cost"):
            self.cost.reading += time.perf_counter() - begun
        return values

    def _save(self) -> None:
        begun = time.perf_counter()
        self._store.write(self.state.changes(), ChangelogPosition("bench", self.state.next_offset or 0))
        self.state.clean()
        self._unsaved = 0
        self.cost.saving += time.perf_counter() - begun


def busy_shares(users: int) -> np.ndarray:
    """Share of all events of each user by Zipf's law, float64 (users,)."""
    shares = 1.0 / np.arange(1, users + 1) ** ZIPF
    return shares / shares.sum()


def all_known(users: int, random: np.random.Generator) -> list[int]:
    """The numbers of all users in random order. A small number of users is repeated until it fills two chunks."""
    return np.tile(random.permutation(users), -(-2 * CHUNK // users)).tolist()


def costs(users: int, events: int) -> dict[str, Cost]:
    """Costs of an event with the state alone, once every user is known: with Zipf's law, and with equal users."""
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
    """A topic with events of this many users, and a worker that has their profiles.

    Parameters
    ----------
    bootstrap_servers
        Addresses of Kafka. Each company has its own topic and consumer group.
    directory
        Directory of the worker's state.
    registry
        Directory of the registry.
    users
        Number of users.
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
        """Run a worker until it has folded events of every user and saved their profiles."""
        known = all_known(self._users, self._random)
        with running(self._settings) as worker:
            self._produce(known)
            worker.until_events(len(known))
            worker.until_saved(self._settings.worker.checkpoint_seconds)

    def cost(self, events: int) -> float:
        """Microseconds of CPU per event of a backlog. The first fifth fills the worker's memory and does not count."""
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
    """Cost of an event in the worker by the number of users: the lowest of several rounds, which run in turn."""
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
    sizes, events = ((300, 1_000), 5_000) if quick else ((1_000, 10_000, 100_000, 1_000_000), 200_000)
    few, many = sizes[0], sizes[-1]
    whole = worker_costs((few, many), 60_000 if quick else 300_000, 1 if quick else 3)
    figures = [
        Figure(f"{users:,} users: an event in the worker", cost, "us") for users, cost in whole.items()
    ]
    figures.append(Figure(f"{many:,} users / {few:,} users, worker", whole[many] / whole[few], "x", "<= 2.5"))
    found = {users: costs(users, events) for users in sizes}
    for name, wanted in (("Zipf", "<= 2.5"), ("alike", "")):
        for users in sizes:
            spent = found[users][name]
            figures += [
                Figure(f"{users:,} users, {name}: an event", spent.total, "us"),
                Figure(f"{users:,} users, {name}: part of it for fetching profiles", spent.reading, "us"),
                Figure(f"{users:,} users, {name}: part of it for saving profiles", spent.saving, "us"),
            ]
        ratio = found[many][name].total / found[few][name].total
        figures.append(Figure(f"{many:,} users / {few:,} users, {name}", ratio, "x", wanted))
    return figures
