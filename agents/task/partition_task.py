"""One assigned partition: folds its chunks, saves its state in checkpoints, and closes it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard import metrics
from streamguard.agents.errors import RefusedError, end
from streamguard.agents.output.forwarding import Destination, Forwarding
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.task.checkpoint import Checkpointer
from streamguard.agents.task.lag import PartitionLag
from streamguard.agents.task.sweep import Sweep
from streamguard.decisions.signing import UNBOUND, Binding, values_of
from streamguard.errors import StreamGuardError
from streamguard.events.indicators import NOT_UNDERSTOOD
from streamguard.models.forest import Forest
from streamguard.records.record import Record
from streamguard.settings.schema import Settings
from streamguard.state.codec import StateError
from streamguard.state.partition import Folded, PartitionState
from streamguard.state.store import Change
from streamguard.testing import failpoints

SAVE_LIMIT_SECONDS = 45.0
"""Time limit for the checkpoint of a revoked partition; the group waits for its members for 60 s."""


class ChunkOrderError(StreamGuardError):
    """A chunk does not continue the previous one; folding it would skip records or fold them twice.

    The cause is a defect in the consumer. The error ends the worker before the chunk changes the state.
    """


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, cut for the `PartitionTask` that was open when they were fetched.

    Transaction markers and aborted records occupy offsets, but are not delivered. So there may be gaps before the
    first record and after the last one, and a chunk may have no records.
    """

    partition: PartitionTask
    start: int
    """End of the previous chunk."""
    end: int
    """First offset after this chunk."""
    records: list[Record]


def append_times(records: Sequence[Record]) -> NDArray[np.int64]:
    """When a broker appended each record, epoch milliseconds; 0 for a record whose time was set by its sender."""
    return np.fromiter((r.append_ms for r in records), np.int64, len(records))


class PartitionTask:
    """A partition between assignment and revocation.

    `streamguard.agents.task.restore` creates it. It is never reused after `close`.

    Parameters
    ----------
    settings
        Interval and size of checkpoints.
    publisher
        Publishes the incidents and dead letters of each chunk.
    checkpointer
        Saves the state; it is closed with the partition.
    state
        The restored state.
    start
        First offset that is not in the state.
    binding
        Topic and key for which the signatures of decisions are valid; without one, every decision is refused.
    destination
        The sources topic, to which checkpoints forward failures and logins; None if they forward nothing.

    Attributes
    ----------
    number
        The partition's number.
    processed_offset
        First offset that is not folded yet.
    fetched_offset
        First offset that is not fetched yet.
    checkpointed_offset
        First offset that is not in the last durable checkpoint; None before the first one.
    closed
        Whether the partition folds no more chunks.
    lag
        Age of the oldest record that is not folded yet.
    """

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        checkpointer: Checkpointer,
        state: PartitionState,
        start: int,
        binding: Binding = UNBOUND,
        destination: Destination | None = None,
    ) -> None:
        self._binding = binding
        self.number = state.partition
        self.store = checkpointer.store
        self.state = state
        self._settings = settings
        self._publisher = publisher
        self._checkpointer = checkpointer
        self.checkpointed_offset = state.next_offset
        self.processed_offset = self.fetched_offset = start
        self.closed = False
        self.lag = PartitionLag()
        self._events = metrics.EVENTS.labels(self.number)
        self._alerted = metrics.ALERTED_EVENTS.labels(self.number)
        self._clamped = metrics.CLAMPED_EVENTS.labels(self.number)
        self._forwarded = metrics.FORWARDED.labels(self.number)
        self._profile_lookups = state.profile_lookups
        self._forwarding = Forwarding(destination)
        self._sweep = Sweep(self.store, state)
        self._unsaved = 0
        self._published: list[asyncio.Future[None]] = []
        self._save_lock = asyncio.Lock()
        self._save_soon = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None

    def cut(self, records: list[Record], position: int, size: int) -> list[Chunk]:
        """Cut fetched records into chunks of at most `size` records; each chunk starts where the previous one ends.

        The last chunk ends at `position` instead of after its last record. So the state also passes the transaction
        markers in between, and their expiry does not look like a loss of events.
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
        """Fold one chunk and publish its results, without awaiting: a chunk is folded completely or not at all.

        Returns
        -------
        Folded or None
            None for a chunk without records.

        Raises
        ------
        ChunkOrderError
            If the chunk does not continue the last folded one.
        RefusedError
            If a stored profile has the layout of another version.
        """
        records = chunk.records
        first, last = (records[0].offset, records[-1].offset) if records else (chunk.start, chunk.start)
        if not self.processed_offset == chunk.start <= first <= last <= chunk.end:
            raise ChunkOrderError(
                f"partition {self.number} has processed offsets up to {self.processed_offset}, but received a chunk "
                f"from {chunk.start} to {chunk.end} with record offsets {first} to {last}; this is a defect in "
                "StreamGuard: start the worker again, which continues from the last checkpoint, and report this message"
            )
        if not records:
            self.processed_offset = self.state.next_offset = chunk.end
            return None
        started = time.perf_counter()
        offsets = np.fromiter((r.offset for r in records), np.int64, len(records))
        try:
            with metrics.SCORING_SECONDS.time():
                values = values_of(records, self._binding)
                folded = self.state.fold(values, offsets, forest, append_times(records))
        except StateError as error:
            raise RefusedError(str(error)) from None
        self.processed_offset = self.state.next_offset = chunk.end
        self.lag.processed(chunk.end)
        self._unsaved += len(records)
        published = self._publisher.publish(records, folded)
        if published is not None:
            self._published.append(published)
        self._forwarding.add(records, folded)
        failpoints.reach("chunk-folded")
        metrics.CHUNK_SECONDS.observe(time.perf_counter() - started)
        metrics.EVENT_TO_VERDICT_SECONDS.observe(max(0.0, time.time() - records[0].timestamp / 1000))
        metrics.CHUNK_EVENTS.observe(len(records))
        self._events.inc(folded.count)
        self._alerted.inc(int(np.count_nonzero(folded.kind)))
        for field, flag in NOT_UNDERSTOOD.items():
            if number := int(np.count_nonzero(folded.columns.flags & np.uint32(flag))):
                metrics.NOT_UNDERSTOOD_EVENTS.labels(field).inc(number)
        for event in folded.repaired:
            for kind in {repair.kind for repair in event.repairs}:
                metrics.REPAIRED_EVENTS.labels(kind).inc()
        if number := int(np.count_nonzero(folded.expired)):
            metrics.EXPIRED_PROFILES.inc(number)
        for one in folded.decided:
            metrics.DECISIONS.labels(one.decision.decision, one.outcome.name.lower()).inc()
        if folded.clamped:
            self._clamped.inc(folded.clamped)
        if self._unsaved >= self._settings.worker.checkpoint_events or self._forwarding.full:
            self._save_soon.set()
        return folded

    def new_profile_lookups(self) -> dict[str, int]:
        """Profile lookups since the previous call, by place (`PartitionState.profile_lookups`)."""
        before, self._profile_lookups = self._profile_lookups, self.state.profile_lookups
        return {place: count - before[place] for place, count in self._profile_lookups.items()}

    @property
    def unsaved(self) -> bool:
        """Whether the state has moved since the last durable checkpoint."""
        return self.state.next_offset != self.checkpointed_offset

    async def make_room(self) -> None:
        """Save a checkpoint now if the next chunk might not fit in memory, or if too many events are unsaved."""
        late = self._unsaved >= 2 * self._settings.worker.checkpoint_events
        if late or self.state.full or self._forwarding.overfull:
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Save everything that is folded now; further chunks may be folded during the save.

        The work runs in a separate task: the agent, for example, is cancelled when the worker stops, and a cancelled
        caller must not leave a snapshot that is taken but not saved.
        """
        await asyncio.shield(asyncio.get_running_loop().create_task(self._checkpoint()))

    async def _checkpoint(self) -> None:
        try:
            async with self._save_lock:
                if not self.unsaved:
                    return
                reached = self.processed_offset
                with metrics.CHECKPOINT_STAGE_SECONDS.labels("snapshot").time():
                    changes: list[Change] = list(self.state.changes())
                    expired = self._sweep.step(dict(changes))
                    changes += [(key, None) for key in expired]
                published, self._published = self._published, []
                forwarded = self._forwarding.take()
                self._unsaved = 0
                self._save_soon.clear()
                # From here on the state may drop these values, so they must be readable from the checkpointer before
                # any other code runs: `save` stores them before its first await.
                self.state.clean()
                await self._checkpointer.save(changes, published, forwarded)
                self.checkpointed_offset = reached
                self._forwarded.inc(sum(len(batch.records) for batch in forwarded))
        except Exception as error:  # noqa: BLE001 - the worker must not continue after an incomplete checkpoint
            end(error)

    def save_regularly(self) -> None:
        """Start to save a checkpoint after each interval, and earlier if many events are unsaved."""
        self._timer = asyncio.get_running_loop().create_task(self._save_at_intervals())

    async def _save_at_intervals(self) -> None:
        interval = self._settings.worker.checkpoint_seconds
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._save_soon.wait()
            await self.checkpoint()

    async def close(self) -> None:
        """Stop folding, save a checkpoint and release all resources; the next owner then finds the complete state."""
        self.closed = True
        async with asyncio.timeout(SAVE_LIMIT_SECONDS):
            await self.checkpoint()
        if self._timer is not None:
            self._timer.cancel()
        await self._checkpointer.close()
