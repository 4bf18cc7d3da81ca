"""One assigned partition: fold its chunks, save its state, give it up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streamguard import metrics
from streamguard.agents.errors import RefusedError, end
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.task.checkpoint import Checkpointer
from streamguard.agents.task.compatibility import SOURCE, Source
from streamguard.agents.task.lag import PartitionLag
from streamguard.errors import StreamGuardError
from streamguard.models.forest import Forest
from streamguard.settings.schema import Settings
from streamguard.state.codec import StateError
from streamguard.state.partition import Folded, PartitionState
from streamguard.testing import failpoints

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

SAVE_LIMIT_SECONDS = 45.0
"""Within this a partition has to be saved when it is taken away; the group waits for its members for 60 s."""


class ChunkOrderError(StreamGuardError):
    """Records would be skipped or folded twice: a defect in the transport, caught before it does harm."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, cut for the `PartitionTask` that was open when they were fetched.

    Transaction markers and aborted records take offsets, but are no records: there may be gaps before the first
    record and behind the last, and a chunk without records.
    """

    partition: PartitionTask
    start: int
    """Where the chunk before ended."""
    end: int
    records: list[ConsumerRecord]


class PartitionTask:
    """A partition between assignment and revocation. Made by `streamguard.agents.task.restore`; never reused after `close`.

    Parameters
    ----------
    settings
        When to save.
    publisher
        Is told what a chunk came to.
    checkpointer
        Saves the state; it is closed with the partition.
    state
        As recovered.
    start
        First offset that is not in the state.
    unsaved_source
        Goes into the first checkpoint; None if it was in an earlier one.

    Attributes
    ----------
    number
        The partition.
    folded
        First offset not yet folded.
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
        settings: Settings,
        publisher: Publisher,
        checkpointer: Checkpointer,
        state: PartitionState,
        start: int,
        unsaved_source: Source | None,
    ) -> None:
        self.number = state.partition
        self.store = checkpointer.store
        self.state = state
        self._settings = settings
        self._publisher = publisher
        self._checkpointer = checkpointer
        self._unsaved_source = unsaved_source
        self.checkpointed_offset = state.next_offset
        self.processed_offset = self.fetched_offset = start
        self.closed = False
        self.lag = PartitionLag()
        self._events = metrics.EVENTS.labels(self.number)
        self._flagged = metrics.ALERTED_EVENTS.labels(self.number)
        self._found = state.found
        self._unsaved = 0
        self._published: list[asyncio.Future[None]] = []
        self._save_lock = asyncio.Lock()
        self._save_soon = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None

    def cut(self, records: list[ConsumerRecord], position: int, size: int) -> list[Chunk]:
        """Cut fetched records into chunks of at most `size`, linked end to start; the last ends at `position`.

        Not at its last record + 1: when the markers behind that expire too, nothing is lost.
        """
        chunks = []
        for i in range(0, len(records), size):
            part = records[i : i + size]
            chunk_end = part[-1].offset + 1 if i + size < len(records) else position
            chunks.append(Chunk(self, self.fetched_offset, chunk_end, part))
            self.lag.fetched(chunk_end, part[0].timestamp)
            self.fetched_offset = chunk_end
        if position > self.fetched_offset:
            chunks.append(Chunk(self, self.fetched_offset, position, []))
            self.fetched_offset = position
        return chunks

    def fold(self, chunk: Chunk, forest: Forest | None) -> Folded | None:
        """Fold one chunk and publish what it came to. Nothing is awaited: a chunk is in the state or is not.

        Returns
        -------
        Folded or None
            None for a chunk without records.

        Raises
        ------
        ChunkOrderError
            If the chunk does not continue what was folded last.
        RefusedError
            If a stored profile was written by another version.
        """
        records = chunk.records
        first, last = (records[0].offset, records[-1].offset) if records else (chunk.start, chunk.start)
        if not self.processed_offset == chunk.start <= first <= last <= chunk.end:
            raise ChunkOrderError(
                f"partition {self.number} stands at offset {self.processed_offset}, but was handed a chunk that "
                f"goes from {chunk.start} to {chunk.end} with offsets {first} to {last}"
            )
        if not records:
            self.processed_offset = self.state.next_offset = chunk.end
            return None
        started = time.perf_counter()
        offsets = np.fromiter((r.offset for r in records), np.int64, len(records))
        try:
            with metrics.SCORING_SECONDS.time():
                folded = self.state.fold([r.value for r in records], offsets, forest)
        except StateError as error:
            raise RefusedError(str(error)) from None
        self.processed_offset = self.state.next_offset = chunk.end
        self.lag.processed(chunk.end)
        self._unsaved += len(records)
        published = self._publisher.publish(records, folded)
        if published is not None:
            self._published.append(published)
        failpoints.reach("chunk-folded")
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
        return self.state.next_offset != self.checkpointed_offset

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
                reached = self.processed_offset
                with metrics.CHECKPOINT_STAGE_SECONDS.labels("snapshot").time():
                    changes = self.state.changes()
                if self._unsaved_source is not None:
                    changes.append((SOURCE, msgspec.json.encode(self._unsaved_source)))
                    self._unsaved_source = None
                published, self._published = self._published, []
                self._unsaved = 0
                self._save_soon.clear()
                # From here on the state may forget these values, so they have to be readable from the
                # checkpointer before anything else runs: `save` holds them before it first waits.
                self.state.clean()
                await self._checkpointer.save(changes, published)
                self.checkpointed_offset = reached
        except Exception as error:  # noqa: BLE001 - a checkpoint that failed half-way is not to be lived with
            end(error)

    def save_regularly(self) -> None:
        """Save from now on whenever an interval is over, or many events are unsaved."""
        self._timer = asyncio.get_running_loop().create_task(self._save_at_intervals())

    async def _save_at_intervals(self) -> None:
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
        await self._checkpointer.close()
