"""One assigned partition: recover its state, fold its chunks, save it, give it up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agents.changelog import ChangelogWriter, CommittedReader
from agents.checkpoint import Checkpointer
from agents.exits import RefusedError, end
from agents.lineage import (
    SOURCE,
    Source,
    check_changelog,
    check_source,
    check_unlearned,
    committed_offset,
    describe_topics,
)
from agents.publish import Publisher
from agents.table import Local, Memory, PartitionTable, now_ms
from agents.topics import DELETION_MS, check, names
from agents.waiting import Waiting
from streamguard import metrics
from streamguard.brokers import Brokers
from streamguard.forest import Forest
from streamguard.packed import StateError
from streamguard.settings import Settings
from streamguard.state import Folded, PartitionState
from streamguard.testing import crash

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

SAVE_LIMIT_SECONDS = 45.0
"""Within this a partition has to be saved when it is taken away; the group waits for its members for 60 s."""

COPY_MS = DELETION_MS - 86_400_000
"""A local copy that has been behind for longer may have missed that a user was forgotten; a day is for clocks."""

_log = logging.getLogger(__name__)


class HoleError(RuntimeError):
    """Records would be skipped or folded twice: a defect in the transport, caught before it does harm."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, cut for the `Partition` that was open when they were fetched.

    Transaction markers and aborted records take offsets, but are no records: there may be gaps before the first
    record and behind the last, and a chunk without records.
    """

    partition: Partition
    start: int
    """Where the chunk before ended."""
    end: int
    records: list[ConsumerRecord]


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics a worker lives on, with Kafka's ids for them, looked up once per assignment."""

    source: Source
    changelog: str
    changelog_id: str

    @classmethod
    async def describe(cls, settings: Settings) -> Topics:
        """Ask Kafka; a topic that has another number of partitions by now is refused."""
        source, changelog = (names(settings)[role] for role in ("events", "changelog"))
        described = await describe_topics(Brokers.of(settings), [source, changelog])
        if any(count != settings.kafka.partitions for _, count in described.values()):
            raise RefusedError("; ".join(await asyncio.to_thread(check, settings)))
        return cls(Source(source, described[source][0]), changelog, described[changelog][0])


class Partition:
    """A partition between assignment and revocation. Made by `recover`; never reused after `close`.

    Attributes
    ----------
    number
        The partition.
    handed
        First offset not yet handed out to the agent.
    saved
        First offset that is not in the last durable checkpoint; None before the first one.
    closed
        No chunk is folded any more.
    waiting
        The age of what is not folded yet.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        publisher: Publisher,
        table: PartitionTable,
        writer: ChangelogWriter,
        topics: Topics,
        resident: int,
    ) -> None:
        self.number = number
        self.table = table
        self._settings = settings
        self._publisher = publisher
        self._writer = writer
        self._checkpointer = Checkpointer(table, writer, topics.changelog_id)
        self._source = topics.source
        (stored,) = table.get_many([SOURCE])
        self._stored_source = msgspec.json.decode(stored, type=Source) if stored is not None else None
        try:
            self.state = PartitionState(
                number, self._checkpointer.read, resident=resident, detection=settings.detection
            )
        except StateError as error:
            raise RefusedError(str(error)) from None
        self.saved = self.state.next_offset
        self.folded = self.handed = 0
        self.closed = False
        self.waiting = Waiting()
        self._events = metrics.EVENTS.labels(number)
        self._flagged = metrics.FLAGGED.labels(number)
        self._found = self.state.found
        self._unsaved = 0
        self._published: list[asyncio.Future[None]] = []
        self._save_lock = asyncio.Lock()
        self._save_soon = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None

    @classmethod
    async def recover(
        cls,
        number: int,
        settings: Settings,
        topics: Topics,
        memory: Memory,
        publisher: Publisher,
        resident: int,
    ) -> Partition:
        """Fence former owners, bring the local copy up to date, and find where to go on in the source.

        Fencing comes first: only when nobody else can commit does "the end of the changelog" mean anything.

        Raises
        ------
        RefusedError
            If stored state and topics do not fit together.
        """
        started = time.perf_counter()
        brokers, app_id = Brokers.of(settings), settings.worker.app_id
        writer = await ChangelogWriter.fence(brokers, app_id, topics.changelog, number)
        table = None
        try:
            table = PartitionTable(
                Path(settings.worker.data_dir) / app_id / f"partition-{number:04d}", memory
            )
            count, began = 0, now_ms()
            if table.local is not None and began - table.local.complete_ms > COPY_MS:
                _log.info(
                    "partition %d: the copy here is older than deletions are kept: it is read anew", number
                )
                table = table.emptied()
            async with CommittedReader(brokers, topics.changelog, number) as reader:
                start, last = await reader.bounds()
                position = check_changelog(
                    topics.changelog, number, topics.changelog_id, start, last, table.local
                )
                complete = table.local.complete_ms if table.local is not None else 0
                async for changes, reached in reader.batches(position, last):
                    table.write(changes, Local(topics.changelog_id, reached, complete))
                    count += len(changes)
                    crash.point("recovery-batch-written")
                if table.local is not None:
                    table.write([], Local(topics.changelog_id, last, began))
                source_start, source_end = await reader.bounds(topics.source.topic)
            partition = cls(number, settings, publisher, table, writer, topics, resident)
            if partition.state.next_offset is None:
                committed = await committed_offset(brokers, app_id, topics.source.topic, number)
                check_unlearned(topics.source.topic, topics.changelog, number, app_id, committed)
            partition.folded = partition.handed = check_source(
                topics.source,
                number,
                source_start,
                source_end,
                partition._stored_source,
                partition.state.next_offset,
            )
        except BaseException:
            if table is not None:
                table.close()
            await writer.close()
            raise
        crash.point("recovery-done")
        metrics.RECOVERED_RECORDS.inc(count)
        _log.info(
            "partition %d recovered",
            number,
            extra={
                "records": count,
                "offset": partition.folded,
                "seconds": round(time.perf_counter() - started, 3),
            },
        )
        partition._timer = asyncio.get_running_loop().create_task(partition._save_regularly())
        return partition

    def cut(self, records: list[ConsumerRecord], position: int, size: int) -> list[Chunk]:
        """Cut fetched records into chunks of at most `size`, linked end to start; the last ends at `position`.

        Not at its last record + 1: when the markers behind that expire too, nothing is lost.
        """
        chunks = []
        for i in range(0, len(records), size):
            part = records[i : i + size]
            chunk_end = part[-1].offset + 1 if i + size < len(records) else position
            chunks.append(Chunk(self, self.handed, chunk_end, part))
            self.waiting.handed(chunk_end, part[0].timestamp)
            self.handed = chunk_end
        if position > self.handed:
            chunks.append(Chunk(self, self.handed, position, []))
            self.handed = position
        return chunks

    def fold(self, chunk: Chunk, forest: Forest | None) -> Folded | None:
        """Fold one chunk and publish what it came to. Nothing is awaited: a chunk is in the state or is not.

        Returns
        -------
        Folded or None
            None for a chunk without records.

        Raises
        ------
        HoleError
            If the chunk does not continue what was folded last.
        RefusedError
            If a stored profile was written by another version.
        """
        records = chunk.records
        first, last = (records[0].offset, records[-1].offset) if records else (chunk.start, chunk.start)
        if not self.folded == chunk.start <= first <= last <= chunk.end:
            raise HoleError(
                f"partition {self.number} stands at offset {self.folded}, but was handed a chunk that "
                f"goes from {chunk.start} to {chunk.end} with offsets {first} to {last}"
            )
        if not records:
            self.folded = self.state.next_offset = chunk.end
            return None
        started = time.perf_counter()
        offsets = np.fromiter((r.offset for r in records), np.int64, len(records))
        try:
            with metrics.SCORING_SECONDS.time():
                folded = self.state.fold([r.value for r in records], offsets, forest)
        except StateError as error:
            raise RefusedError(str(error)) from None
        self.folded = self.state.next_offset = chunk.end
        self.waiting.folded(chunk.end)
        self._unsaved += len(records)
        published = self._publisher.publish(records, folded)
        if published is not None:
            self._published.append(published)
        crash.point("chunk-folded")
        metrics.CHUNK_SECONDS.observe(time.perf_counter() - started)
        metrics.EVENT_TO_VERDICT_SECONDS.observe(max(0.0, time.time() - records[0].timestamp / 1000))
        metrics.CHUNK_EVENTS.observe(len(records))
        self._events.inc(folded.count)
        self._flagged.inc(int(np.count_nonzero(folded.kind)))
        if self._unsaved >= self._settings.worker.checkpoint_events:
            self._save_soon.set()
        return folded

    def newly_found(self) -> dict[str, int]:
        """`PartitionState.found` since this was asked last."""
        before, self._found = self._found, self.state.found
        return {where: count - before[where] for where, count in self._found.items()}

    @property
    def unsaved(self) -> bool:
        """Whether the state has moved since the last durable checkpoint."""
        return self.state.next_offset != self.saved

    async def make_room(self) -> None:
        """Save now if the next chunk may find no room."""
        if self.state.full or self._unsaved >= 2 * self._settings.worker.checkpoint_events:
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Save everything that was folded until now; further chunks may be folded meanwhile.

        The work is a task of its own: a caller that is cancelled half-way, as an agent is when the worker
        stops, must not leave a snapshot taken but unsaved.
        """
        await asyncio.shield(asyncio.get_running_loop().create_task(self._checkpoint()))

    async def _checkpoint(self) -> None:
        try:
            async with self._save_lock:
                if not self.unsaved:
                    return
                reached = self.folded
                with metrics.CHECKPOINT_STAGE_SECONDS.labels("snapshot").time():
                    changes = self.state.changes()
                if self._stored_source is None:
                    changes.append((SOURCE, msgspec.json.encode(self._source)))
                    self._stored_source = self._source
                published, self._published = self._published, []
                self._unsaved = 0
                self._save_soon.clear()
                # From here on the state may forget these values, so they have to be readable from the
                # checkpointer before anything else runs: `save` holds them before it first waits.
                self.state.clean()
                await self._checkpointer.save(changes, published)
                self.saved = reached
        except Exception as error:  # noqa: BLE001 - a checkpoint that failed half-way is not to be lived with
            end(error)

    async def _save_regularly(self) -> None:
        interval = self._settings.worker.checkpoint_seconds
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._save_soon.wait(), interval)
            await self.checkpoint()

    async def close(self) -> None:
        """Fold nothing more, save, and let go of everything. The state is then whole for the next owner."""
        self.closed = True
        async with asyncio.timeout(SAVE_LIMIT_SECONDS):
            await self.checkpoint()
        if self._timer is not None:
            self._timer.cancel()
        self.table.close()
        await self._writer.close()
