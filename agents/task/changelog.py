"""Access to one partition of the changelog: its owner writes in transactions, readers see committed records only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    ProducerFenced,
    RecordListTooLargeError,
)

from streamguard.agents.errors import FencedError, RefusedError
from streamguard.agents.output.forwarding import ForwardedBatch
from streamguard.agents.task.compatibility import START_OVER, Bounds, SavedState
from streamguard.errors import StreamGuardError, TemporaryError
from streamguard.events.event import Withheld
from streamguard.kafka.connection import REQUEST_TIMEOUT, Brokers
from streamguard.records import reader
from streamguard.state.identity import StateIdentity
from streamguard.state.partition import META
from streamguard.state.store import COMPLETE_KEY, Change
from streamguard.testing import failpoints

SETTLE_SECONDS = 10.0
"""How long to wait for the end of open transactions; those of a previous owner end when it is fenced."""
REPAIR_CHANGES = 20_000
"""Changes in one transaction of a repair; a transaction has to end within its time-out."""

BATCH_BYTES = 900_000
"""Size of a record batch; with its header it stays below Kafka's default `max.message.bytes` (1,048,588)."""

_log = logging.getLogger(__name__)


class ChangelogWriter:
    """The exclusive right to write one changelog partition.

    Kafka assigns this right to the producer that registered last under a transactional id. The registration aborts
    the open transaction of the previous owner, and every later write of that owner fails. So a worker that was
    suspended, lost its partition and then continued cannot change the state of the new owner.

    Attributes
    ----------
    end
        An offset that the changelog has reached. The next record must not get a lower one.
    """

    program = "worker"
    """What errors call this process."""
    transaction_seconds = 60.0
    """Time after which the broker aborts a transaction that is still open."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._producer = producer
        self.topic = topic
        self.partition = partition
        self.end = 0

    @classmethod
    async def fence(cls, brokers: Brokers, app_id: str, topic: str, partition: int) -> Self:
        """Become the owner; returns when no transaction of a previous owner is open any more."""
        producer = AIOKafkaProducer(
            **brokers.aiokafka(),
            client_id=f"{app_id}-changelog-{partition}",
            transactional_id=f"{app_id}-{partition}",
            transaction_timeout_ms=int(cls.transaction_seconds * 1000),
            acks="all",
            max_batch_size=BATCH_BYTES,
            linger_ms=0,
            request_timeout_ms=int(REQUEST_TIMEOUT * 1000),
        )
        try:
            await producer.start()
        except BaseException:
            await _stop(producer)
            raise
        failpoints.reach("restore-fenced")
        return cls(producer, topic, partition)

    async def commit(self, changes: Sequence[Change], forwarded: Sequence[ForwardedBatch] = ()) -> int:
        """Write all changes, and records for another topic, in one transaction.

        Returns
        -------
        int
            The changelog offset after the last change.

        Raises
        ------
        FencedError
            If another process has become the owner, or Kafka has forgotten this one; no reader sees any change of the
            transaction.
        RefusedError
            If the records got offsets that the changelog had already passed: it is another topic. No reader sees any
            change.
        """
        try:
            await self._producer.begin_transaction()
            failpoints.reach("transaction-begun")
            sent = [await self._send(batch) for batch in self._batches(changes)]
            others = [await self._forward(batch) for batch in forwarded]
            acknowledged = [((await future).offset, count) for future, count in sent]
            if acknowledged[0][0] < self.end:
                await self._producer.abort_transaction()
                raise self._recreated(acknowledged[0][0])
            await self._acknowledged(others)
            failpoints.reach("changes-sent")
            await self._producer.commit_transaction()
        except KafkaError as error:
            reason = self._lost(error)
            if reason is None:
                raise
            raise FencedError(
                f"{reason}; no reader sees any record of the last transaction on {self.topic}, and no event is lost: "
                f"start this {self.program} again"
            ) from None
        failpoints.reach("transaction-committed")
        offset, count = acknowledged[-1]
        self.end = int(offset) + count
        return self.end

    def _recreated(self, offset: int) -> StreamGuardError:
        """The error for a record that got an offset which the log had passed: it is another topic."""
        return RefusedError(
            f"the changelog {self.topic} was deleted and created again while the worker was running: partition "
            f"{self.partition} had reached offset {self.end}, but the next record got offset {offset}. The transaction "
            f"was aborted, so the new changelog contains nothing of it; to start over, {START_OVER}"
        )

    def _taken_over(self) -> str:
        """Who has registered as the writer after this one."""
        return (
            f"partition {self.partition} was taken over by another worker, or by `streamguard forget` to delete a "
            "user: the broker rejected this worker's transaction"
        )

    def _lost(self, error: BaseException | None) -> str | None:
        """Why this writer may write no more, or None; aiokafka wraps some errors of the broker in others."""
        while error is not None:
            if isinstance(error, (ProducerFenced, InvalidProducerEpoch)):
                return self._taken_over()
            if isinstance(error, (InvalidProducerIdMapping, InvalidTxnState)):
                return (
                    f"Kafka no longer knows this {self.program} as the writer of partition {self.partition} of "
                    f"{self.topic}, because it wrote nothing for transactional.id.expiration.ms (7 days by default), "
                    "or too slowly: the broker rejected its transaction"
                )
            error = error.__cause__
        return None

    async def repair(self, state: Iterable[Change]) -> int:
        """Write a complete state again, in several transactions, and return the changelog offset after it.

        A repair that is interrupted has written values that the changelog had before; the record that declares the
        changelog complete is the last one, so the next start begins again.
        """
        entries = iter(state)
        while part := list(islice(entries, REPAIR_CHANGES)):
            await self.commit(part)
        return self.end

    def _batches(self, changes: Iterable[Change]) -> Iterable[Any]:
        batch = self._producer.create_batch()
        for key, value in changes:
            if batch.append(key=key, value=value, timestamp=None) is None:
                yield batch
                batch = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        yield batch

    async def _send(self, batch: Any) -> tuple[asyncio.Future[Any], int]:
        count = batch.record_count()
        batch.close()
        return await self._producer.send_batch(batch, self.topic, partition=self.partition), count

    async def _forward(self, forwarded: ForwardedBatch) -> asyncio.Future[Any]:
        batch = self._producer.create_batch()
        for record in forwarded.records:
            timestamp = record.timestamp if record.timestamp >= 0 else None
            appended = batch.append(
                key=record.key, value=record.value, timestamp=timestamp, headers=record.headers
            )
            assert appended is not None, "a batch of forwarded records is larger than the producer's"
        batch.close()
        sent: asyncio.Future[Any] = await self._producer.send_batch(
            batch, forwarded.topic, partition=forwarded.partition
        )
        return sent

    async def _acknowledged(self, forwarded: Iterable[asyncio.Future[Any]]) -> None:
        try:
            for future in forwarded:
                await future
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            raise TemporaryError(
                "the sources topic refuses a batch for its size, because its max.message.bytes was lowered while the "
                f"{self.program} ran; no reader sees any record of the transaction, and no event is lost: start this "
                f"{self.program} again, which asks for the limit at its start"
            ) from None

    async def close(self) -> None:
        """Disconnect. Ownership ends when the next owner registers."""
        await _stop(self._producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    # Stopping a fenced producer waits for batches that it can never send.
    with contextlib.suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(5.0):
            await producer.stop()


class CommittedReader:
    """Short-lived consumers without a group: read committed records and the first and last offsets of logs."""

    def __init__(self, brokers: Brokers, topic: str, partition: int) -> None:
        reader.install()
        self._tp = TopicPartition(topic, partition)
        options = {
            **brokers.aiokafka(),
            "group_id": None,
            "auto_offset_reset": "none",
            "enable_auto_commit": False,
        }
        self._consumer = AIOKafkaConsumer(
            **options,
            isolation_level="read_committed",
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=50,
        )
        self._watermarks = AIOKafkaConsumer(**options, isolation_level="read_uncommitted")

    async def __aenter__(self) -> CommittedReader:
        try:
            await self._consumer.start()
            await self._watermarks.start()
        except BaseException:
            await self.__aexit__()
            raise
        self._consumer.assign([self._tp])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._watermarks.stop()

    async def bounds(self, topic: str | None = None) -> Bounds:
        """Offsets of the log, or of the same partition of `topic`."""
        tp = TopicPartition(topic, self._tp.partition) if topic else self._tp
        start = await self._consumer.beginning_offsets([tp])
        stable = await self._consumer.end_offsets([tp])
        end = await self._watermarks.end_offsets([tp])
        return Bounds(int(start[tp]), int(stable[tp]), int(end[tp]))

    async def settled(self) -> Bounds:
        """Offsets of the log when no transaction is open any more, or after `SETTLE_SECONDS`."""
        patience = time.monotonic() + SETTLE_SECONDS
        while True:
            bounds = await self.bounds()
            if bounds.stable == bounds.end or time.monotonic() > patience:
                return bounds
            await asyncio.sleep(0.1)

    async def saved(self, bounds: Bounds) -> SavedState:
        """Read the whole log, and return what it says about the state that it contains."""
        found: dict[bytes, bytes | None] = {}
        async for changes, _ in self.batches(bounds.start, bounds.stable):
            found.update(change for change in changes if change[0] in (b"m", COMPLETE_KEY))
        meta, complete_from = found.get(b"m"), found.get(COMPLETE_KEY)
        return SavedState(
            StateIdentity.decoded(meta[META.size :]) if meta else None,
            meta is not None,
            int(complete_from or 0),
        )

    async def batches(self, position: int, end: int) -> AsyncIterator[tuple[list[Change], int]]:
        """Yield (changes, next position) from `position` until the *position* reaches `end`.

        The last record need not reach `end`: a commit marker or an aborted transaction at the end of the log occupies
        offsets that no reader sees.

        Raises
        ------
        TemporaryError
            If a batch cannot be read: without it, the state would be wrong, and another replica may have it.
            If the log no longer contains the position, because its beginning was deleted meanwhile, or the topic was
            created again.
        """
        self._consumer.seek(self._tp, position)
        while position < end:
            try:
                fetched = await self._consumer.getmany(timeout_ms=100, max_records=4000)
            except OffsetOutOfRangeError:
                raise TemporaryError(
                    f"partition {self._tp.partition} of {self._tp.topic} changed while it was read: offset {position} "
                    "was deleted, or the topic was created again; start the command again, which checks whether the "
                    "state is still complete and reports the cause if it is not"
                ) from None
            records = [record for records in fetched.values() for record in records]
            for record in records:
                if isinstance(record.value, Withheld):
                    raise self._damaged(record.value)
            # Later records are part of a transaction of another process, of which this may be only the beginning.
            changes = [(record.key, record.value) for record in records if record.offset < end]
            position = min(await self._consumer.position(self._tp), end)
            if changes:
                yield changes, position

    def _damaged(self, batch: Withheld) -> TemporaryError:
        return damaged(batch, self._tp)


def damaged(batch: Withheld, tp: TopicPartition) -> TemporaryError:
    """The error for a batch of the changelog that cannot be read."""
    return TemporaryError(
        f"partition {tp.partition} of {tp.topic} cannot be read at the offsets {batch.first} to {batch.last} "
        f"({batch.detail}), and the state would be wrong without them: start the worker again; if this repeats, check "
        "the disk of the partition's leader, and let another replica lead, which may hold these records undamaged; if "
        "none does, restore the topic from a backup, or set another worker.app_id, which starts with an empty state"
    )
