"""Reads an offset range of one partition without a consumer, for programs that read a partition once from end to end.

The client runs in a thread of its own and fetches the next part while the caller works on the records of the last one.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import threading
import time
from collections.abc import Awaitable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException, KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from streamguard.errors import DataError, TemporaryError, UnavailableError
from streamguard.events.event import Withheld
from streamguard.kafka.connection import Brokers
from streamguard.records import damaged_end
from streamguard.records.fetch import Answer, fetch
from streamguard.records.reader import (
    DamagedLogError,
    Fetched,
    PartitionRecords,
    UnreadableBatches,
    WholeRecords,
)
from streamguard.records.record import Record

FETCH_BYTES = 4 << 20
"""Bytes of one fetch; a larger batch is fetched whole. Two fetches are in memory at the same time."""
_WAIT_MS = 500
"""Time for which a broker waits for records before it answers without any."""
_PAUSE = 0.2
"""Seconds until a failed fetch is repeated."""

logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # the errors below say what it would print

T = TypeVar("T")


class OffsetsGoneError(DataError):
    """The log does not have the offsets any more; the message names them."""


class PartitionLog:
    """The committed records of one partition; a context manager, which is connected inside its block.

    Parameters
    ----------
    brokers
        The brokers.
    topic, partition
        The partition.
    patience
        Seconds to wait for an answer or for records that the log should have.

    Notes
    -----
    Ranges are read one after the other.
    """

    def __init__(self, brokers: Brokers, topic: str, partition: int, patience: float = 30.0) -> None:
        self._brokers = brokers
        self._tp = TopicPartition(topic, partition)
        self._patience = patience
        self._client: AIOKafkaClient | None = None
        self._ahead: Future[Answer] | None = None
        """The fetch whose answer is not used yet."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="partition-log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        self._later(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def records(self, start: int, end: int) -> Iterator[Record]:
        """Records of an offset range, end exclusive, with all of their parts.

        A batch that cannot be read is one record with a `Withheld` value for those of its offsets that are in the
        range, so several ranges together contain each offset once.

        Raises
        ------
        UnavailableError
            If no broker answers, or if records that the log should have are not sent in time.
        OffsetsGoneError
            If the log does not have the offsets any more.
        TemporaryError
            If a batch is damaged on the broker, and its end cannot be found.
        """
        return self._read(WholeRecords, start, end)

    def unreadable(self, start: int, end: int) -> Iterator[Record]:
        """Only the records with a `Withheld` value; no other record is unpacked into objects. Errors as above."""
        return self._read(UnreadableBatches, start, end)

    def _read(self, kind: type[PartitionRecords], start: int, end: int) -> Iterator[Record]:
        at, begun, progress = start, start, time.monotonic()
        while at < end:
            if self._ahead is None or begun != at:
                self._fetch_ahead(at, end)
            assert self._ahead is not None
            answer = self._ahead.result()
            begun = _end_of(answer.data)
            if at < begun < end:
                self._fetch_ahead(begun, end)
            else:
                self._drop_ahead()
            source = yield from self._part(kind, at, answer, start, end)
            if source.next_fetch_offset > at:
                at, progress = source.next_fetch_offset, time.monotonic()
            elif time.monotonic() > progress + self._patience:
                raise UnavailableError(
                    f"partition {self._tp.partition}: Kafka at {self._brokers} sent no record of {self._tp.topic} at "
                    f"offset {at} for {self._patience:.0f} s, but the plan ends at {end - 1}: check the brokers, and "
                    "run again"
                )

    def _part(
        self, kind: type[PartitionRecords], at: int, answer: Answer, start: int, end: int
    ) -> Generator[Record, None, PartitionRecords]:
        """Records of one answer that lie in the range; returns the reader, which holds the next position."""
        source = self._source(kind, at, answer)
        while True:
            try:
                yield from _inside(source, start, end)
            except DamagedLogError as error:
                if source.next_fetch_offset > at:
                    return source  # a fetch that begins with the damaged batch shows more
                records_of = partial(self._source, kind, at)
                find = damaged_end.find(self._once, records_of, at, error)
                try:
                    source, behind = self._later(find).result()
                except DamagedLogError:
                    raise self._damaged(at, error.reason) from None
                if behind is None:
                    continue
                yield from _inside([source.passed(error.frame, error.reason, behind)], start, end)
            return source

    def _source(self, kind: type[PartitionRecords], at: int, answer: Answer) -> PartitionRecords:
        return kind(self._tp, Fetched(answer.data), answer.aborted, at, None, None, True, READ_COMMITTED)

    def _fetch_ahead(self, offset: int, end: int) -> None:
        self._drop_ahead()
        self._ahead = self._later(self._fetched(offset, end))

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        self._ahead = None

    def _later(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _once(self, offset: int, size: int) -> Awaitable[Answer]:
        return fetch(self._client, self._tp, offset, size, READ_COMMITTED)

    async def _fetched(self, offset: int, end: int) -> Answer:
        """Fetch from an offset on; errors of brokers and connections are repeated for as long as the patience."""
        until = time.monotonic() + self._patience
        while True:
            try:
                client = await self._connected()
                return await fetch(client, self._tp, offset, FETCH_BYTES, READ_COMMITTED, _WAIT_MS)
            except OffsetOutOfRangeError:
                raise OffsetsGoneError(
                    f"partition {self._tp.partition} of {self._tp.topic} has no offset {offset} any more, but the plan "
                    f"ends at {end - 1}: records expired while they were read, or the topic was created again; run "
                    "again"
                ) from None
            except CorruptRecordException:
                raise self._damaged(offset, "the broker itself cannot read it") from None
            except (KafkaError, OSError) as error:
                if time.monotonic() > until or not getattr(error, "retriable", True):
                    raise UnavailableError(
                        f"partition {self._tp.partition}: Kafka at {self._brokers} cannot be read at offset {offset} "
                        f"of {self._tp.topic} ({error}): check the brokers and the rights of this user, and run again"
                    ) from None
            await asyncio.sleep(_PAUSE)
            if self._client is not None:
                await self._client.force_metadata_update()

    def _damaged(self, offset: int, reason: str) -> TemporaryError:
        return TemporaryError(
            f"the log of {self._tp.topic} is damaged on the broker: in partition {self._tp.partition}, the end of the "
            f"batch at offset {offset} is unknown ({reason}); run again, and if this repeats, check the broker's disk: "
            "another replica of the partition may hold the batch undamaged; to go on without it, run with "
            f"`--until {self._tp.partition}:{offset}`, which reads this partition up to the batch and the others to "
            "their ends"
        )

    async def _connected(self) -> AIOKafkaClient:
        if self._client is None:
            client = AIOKafkaClient(**self._brokers.aiokafka())
            try:
                await client.bootstrap()
                await client.set_topics([self._tp.topic])
            except BaseException:
                await client.close()
                raise
            self._client = client
        return self._client

    async def _close(self) -> None:
        if self._client is not None:
            await self._client.close()
        cancelled = asyncio.all_tasks() - {asyncio.current_task()}
        if cancelled:
            await asyncio.wait(cancelled, timeout=1.0)


def _inside(records: Iterable[Record], start: int, end: int) -> Iterator[Record]:
    """Records in the range, and of what a `Withheld` value stands for the part in the range.

    Records behind the range are passed, not left, so that the reader's position reaches the end of the range.
    """
    for record in records:
        value = record.value
        if isinstance(value, Withheld):
            if value.first < end:
                part = value.within(start, end)
                yield msgspec.structs.replace(record, offset=part.last, value=part)
        elif record.offset < end:
            yield record


def _end_of(data: bytes) -> int:
    """First offset behind the last complete batch, as its header says: where the next fetch will probably begin."""
    at = end = 0
    while at + 27 <= len(data):
        base, size = struct.unpack_from(">qi", data, at)
        if size < 15 or at + 12 + size > len(data):
            break
        last_delta = struct.unpack_from(">i", data, at + 23)[0] if data[at + 16] == 2 else 0
        end = base + max(last_delta, 0) + 1
        at += 12 + size
    return end
