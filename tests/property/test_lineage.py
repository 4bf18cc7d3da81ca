"""Any order of accidents to topics, copies and transactions: the state is exact, or the worker refuses and says why.

The real restore, store, changelog writer and fold run on logs in memory and RocksDB copies on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from streamguard.agents.errors import RefusedError
from streamguard.agents.task import changelog, restore
from streamguard.agents.task.changelog import ChangelogWriter, CommittedReader
from streamguard.agents.task.compatibility import Bounds, OpenTransactionError
from streamguard.agents.task.identity import Topics
from streamguard.agents.task.partition_task import PartitionTask
from streamguard.settings.schema import Detection, Settings, Worker
from streamguard.state.identity import TopicIdentity
from streamguard.state.in_memory import InMemoryPartition
from streamguard.state.partition import HASH_KEY
from streamguard.state.store import RESERVED, Change, StoreMemory

PARTITIONS = (0, 1)
MEMORY = StoreMemory(8 << 20)


class Log:
    """One partition of a topic. An entry is a record, or None: a transaction marker or an aborted record."""

    def __init__(self) -> None:
        self.start = 0
        self.open_at: int | None = None
        self.entries: list[Change | None] = []

    @property
    def bounds(self) -> Bounds:
        end = len(self.entries)
        return Bounds(self.start, end if self.open_at is None else self.open_at, end)


class Topic:
    """A topic with Kafka's id; a topic that is created again is another object."""

    made = 0

    def __init__(self, name: str) -> None:
        Topic.made += 1
        self.identity = TopicIdentity(name, f"id-{Topic.made}")
        self.logs = [Log() for _ in PARTITIONS]


class Batch:
    def __init__(self) -> None:
        self.records: list[Change] = []

    def append(self, *, key: bytes, value: bytes | None, timestamp: None) -> bool:
        assert timestamp is None
        self.records.append((key, value))
        return True

    def record_count(self) -> int:
        return len(self.records)

    def close(self) -> None:
        pass


class Producer:
    """Writes transactions to the topic that has the name when a record is sent, as Kafka does."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._sent: list[tuple[Log, int, int]] = []

    async def begin_transaction(self) -> None:
        self._sent = []

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        log = self._kafka.topics[topic].logs[partition]
        offset = len(log.entries)
        log.entries += batch.records
        self._sent.append((log, offset, len(log.entries)))
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(SimpleNamespace(offset=offset))
        return acknowledged

    async def commit_transaction(self) -> None:
        for log, _, _ in self._sent:
            log.entries.append(None)

    async def abort_transaction(self) -> None:
        for log, start, end in self._sent:
            log.entries[start:end] = [None] * (end - start)
            log.entries.append(None)

    async def stop(self) -> None:
        pass


class Kafka:
    """All topics and group offsets."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.committed: dict[tuple[str, int], int] = {}

    def create(self, name: str) -> Topic:
        self.topics[name] = Topic(name)
        return self.topics[name]


class Reader(CommittedReader):
    """Reads the logs in memory."""

    kafka: Kafka

    def __init__(self, _: object, topic: str, partition: int) -> None:
        self._topic, self._partition = topic, partition

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def bounds(self, topic: str | None = None) -> Bounds:
        return self.kafka.topics[topic or self._topic].logs[self._partition].bounds

    async def batches(self, position: int, end: int) -> AsyncIterator[tuple[list[Change], int]]:
        log = self.kafka.topics[self._topic].logs[self._partition]
        while position < end:
            reached = min(position + 7, end)
            yield [entry for entry in log.entries[position:reached] if entry is not None], reached
            position = reached


class Lineage(RuleBasedStateMachine):
    """Two workers' data directories, one application at a time, two partitions."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.kafka = Kafka()
        self.kafka.create("events")
        self.app = 0
        self.sent = 0
        self.lost = False
        """Whether something happened that a worker cannot repair in every case."""
        self.kafka.create(self.changelog)

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @property
    def app_id(self) -> str:
        return f"app-{self.app}"

    @property
    def changelog(self) -> str:
        return f"app-{self.app}-state-changelog"

    def copy(self, worker: str, partition: int) -> Path:
        return self.directory / worker / self.app_id / f"partition-{partition:04d}"

    # What a worker does

    async def _restored(self, worker: str, partition: int) -> PartitionTask:
        kafka = self.kafka
        source, log = kafka.topics["events"].identity, kafka.topics[self.changelog].identity
        watch: Any = SimpleNamespace(topics=Topics(self.app_id, source, log.topic, log.id))
        watch.doubt, watch.confirm = lambda: None, lambda: asyncio.sleep(0)
        publisher: Any = SimpleNamespace(publish=lambda *_: None)
        settings = Settings(worker=Worker(data_dir=str(self.directory / worker), app_id=self.app_id))

        async def fence(*_: object) -> ChangelogWriter:
            return ChangelogWriter(Producer(kafka), log.topic, partition)  # type: ignore[arg-type]

        async def committed(_: object, group: str, topic: str, number: int) -> int | None:
            assert topic == "events"
            return kafka.committed.get((group, number))

        with (
            mock.patch.object(ChangelogWriter, "fence", fence),
            mock.patch.object(restore, "CommittedReader", type("Bound", (Reader,), {"kafka": kafka})),
            mock.patch.object(restore, "committed_offset", committed),
            mock.patch.object(changelog, "SETTLE_SECONDS", 0.0),
        ):
            return await restore.restore(partition, settings, watch, MEMORY, publisher, 64)

    def _fold(self, task: PartitionTask) -> None:
        log = self.kafka.topics["events"].logs[task.number]
        values = [entry[1] for entry in log.entries[task.processed_offset :] if entry is not None]
        if values:
            first = task.processed_offset
            task.state.fold(values, np.arange(first, first + len(values), dtype=np.int64))
            task.processed_offset = first + len(values)

    async def _work(self, worker: str, partition: int, between: Callable[[], None]) -> None:
        task = await self._restored(worker, partition)
        try:
            self._fold(task)
            between()
            # As in `PartitionTask`, but without the end of the process on an error.
            changes = task.state.changes()
            if changes:
                task.state.clean()
                await task._checkpointer.save(changes, [])
                self.kafka.committed[self.app_id, partition] = task.processed_offset
        finally:
            assert task._timer is not None
            task._timer.cancel()
            await task._checkpointer.close()

    def _expected(self, partition: int) -> dict[bytes, bytes]:
        log = self.kafka.topics["events"].logs[partition]
        keys = {key: value for key, value in self._stored(partition).items() if key == HASH_KEY}
        exact = InMemoryPartition(partition, resident=64, detection=Detection(), saved=keys)
        for offset, entry in enumerate(log.entries):
            assert entry is not None
            exact.state.fold([entry[1]], np.array([offset], np.int64))
        exact.save()
        return exact.saved

    def _stored(self, partition: int) -> dict[bytes, bytes]:
        log = self.kafka.topics[self.changelog].logs[partition]
        found: dict[bytes, bytes] = {}
        for entry in log.entries[log.start :]:
            if entry is not None and entry[1] is not None and not entry[0].startswith(RESERVED):
                found[entry[0]] = entry[1]
        if b"m" in found:
            found[b"m"] = found[b"m"][:12]
        return found

    @rule(worker=st.sampled_from("ab"), partition=st.sampled_from(PARTITIONS), count=st.integers(0, 4))
    def work(self, worker: str, partition: int, count: int) -> None:
        self.send(partition, count)
        log = self.kafka.topics[self.changelog].logs[partition]
        try:
            asyncio.run(self._work(worker, partition, lambda: None))
        except OpenTransactionError as error:
            assert log.open_at is not None
            assert "nothing is lost" in str(error) and "app_id" not in str(error)
        except RefusedError as error:
            assert self.lost, error
            assert "set another worker.app_id" in str(error)
            self.start_over()
        else:
            assert log.open_at is None
            assert self._stored(partition) == self._expected(partition)

    def start_over(self) -> None:
        """Follow the last remedy of a refusal."""
        self.app += 1
        self.lost = False
        self.kafka.create(self.changelog)

    # What happens to Kafka

    def send(self, partition: int, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            event = {
                "timestamp": 1_700_000_000_000 + self.sent * 1000,
                "user": f"user-{self.sent % 5}",
                "event_type": "auth_attempt",
                "event_id": str(self.sent),
            }
            self.kafka.topics["events"].logs[partition].entries.append((b"k", json.dumps(event).encode()))

    @rule(events=st.booleans(), log=st.booleans())
    def create_again(self, events: bool, log: bool) -> None:
        if events:
            self.kafka.create("events")
            self.kafka.committed.clear()  # Kafka deletes the group offsets of a topic with the topic
        if log:
            self.kafka.create(self.changelog)
        self.lost = self.lost or events or log

    @rule(worker=st.sampled_from("ab"), partition=st.sampled_from(PARTITIONS))
    def create_changelog_again_before_a_checkpoint(self, worker: str, partition: int) -> None:
        """The writer sees only that its records get lower offsets than before."""
        before = self.kafka.topics[self.changelog].logs[partition]
        again: list[Topic] = []
        with contextlib.suppress(RefusedError, OpenTransactionError):
            asyncio.run(
                self._work(worker, partition, lambda: again.append(self.kafka.create(self.changelog)))
            )
            written = [entry for entry in again[0].logs[partition].entries if entry is not None]
            assert not (before.entries and written), "a checkpoint was written into the new changelog"
        self.lost = True

    @rule(partition=st.sampled_from(PARTITIONS), worker=st.sampled_from("ab"))
    def open_transaction(self, partition: int, worker: str) -> None:
        """A stranger's transaction that is open while a worker starts."""
        log = self.kafka.topics[self.changelog].logs[partition]
        log.open_at = len(log.entries)
        log.entries.append(None)
        self.work(worker, partition, 1)
        log.open_at = None
        log.entries.append(None)

    @rule(partition=st.sampled_from(PARTITIONS), share=st.floats(0, 1), worker=st.sampled_from("ab"))
    def delete_beginning(self, partition: int, share: float, worker: str) -> None:
        log = self.kafka.topics[self.changelog].logs[partition]
        before, log.start = log.start, max(log.start, int(share * log.bounds.stable))
        self.lost = self.lost or log.start > before
        self.work(worker, partition, 1)

    # What happens to directories

    @rule(source=st.sampled_from("ab"), partition=st.sampled_from(PARTITIONS), worker=st.sampled_from("ab"))
    def misplace(self, source: str, partition: int, worker: str) -> None:
        """The copy of one partition in the directory of the other, and a start with it."""
        copy = self.copy(source, partition)
        if copy.exists():
            self.wipe(worker, 1 - partition)
            shutil.copytree(copy, self.copy(worker, 1 - partition))
            self.work(worker, 1 - partition, 2)

    @rule(worker=st.sampled_from("ab"), partition=st.sampled_from(PARTITIONS))
    def wipe(self, worker: str, partition: int) -> None:
        shutil.rmtree(self.copy(worker, partition), ignore_errors=True)

    @rule(worker=st.sampled_from("ab"), partition=st.sampled_from(PARTITIONS), marked=st.booleans())
    def damage(self, worker: str, partition: int, marked: bool) -> None:
        copy = self.copy(worker, partition)
        if copy.exists():
            (copy / ("DAMAGED" if marked else "CURRENT")).write_bytes(b"")

    @rule(worker=st.sampled_from("ab"), partition=st.sampled_from(PARTITIONS))
    def back_up(self, worker: str, partition: int) -> None:
        copy = self.copy(worker, partition)
        if copy.is_dir():
            shutil.rmtree(self.directory / "backup", ignore_errors=True)
            shutil.copytree(copy, self.directory / "backup")

    @precondition(lambda self: (self.directory / "backup").exists())
    @rule(worker=st.sampled_from("ab"), partition=st.sampled_from(PARTITIONS))
    def use_backup(self, worker: str, partition: int) -> None:
        """An older copy, of this or the other partition, of this or an earlier application."""
        self.wipe(worker, partition)
        shutil.copytree(self.directory / "backup", self.copy(worker, partition))


TestLineage = Lineage.TestCase
TestLineage.settings = hypothesis_settings(max_examples=20, stateful_step_count=25)
