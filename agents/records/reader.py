"""Turns the bytes of a fetch into records, instead of aiokafka's own reader.

aiokafka unpacks a batch without a limit and fails at one that it cannot read, at every fetch again. This reader decides
for each batch as a whole. A batch that cannot be read becomes one record with a `Withheld` value, and the position
moves to the batch's end. Aborted transactions and control batches are passed first, so a batch that no reader may see
is never unpacked.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher

from streamguard.agents.errors import RefusedError
from streamguard.agents.records.batch import HEADER_BYTES, Batch
from streamguard.agents.records.legacy import SMALLEST_MESSAGE, Message
from streamguard.agents.records.record import (
    HEAD_BYTES,
    MAX_HEADERS_BYTES,
    MAX_KEY_BYTES,
    Headers,
    Record,
    UnreadableError,
)
from streamguard.agents.records.scan import compile_scan
from streamguard.events.ceiling import UNKNOWN
from streamguard.events.event import MAX_EVENT_BYTES, Withheld

_OVERHEAD = 12
"""Bytes of offset and length before the part that the length counts."""
_RECORD_COST, _HEADER_COST = 300, 128
"""Approximate memory of a record and of a header, besides their bytes."""


class DamagedLogError(RefusedError):
    """The log is damaged on the broker, so that the end of a batch is unknown; the message names the place."""


def install() -> None:
    """Make every aiokafka consumer of this process use this reader."""
    compile_scan()
    fetcher.MemoryRecords = Fetched
    fetcher.PartitionRecords = PartitionRecords


class Fetched:
    """The bytes of one partition in a fetch; the broker sends the first batch complete, and may cut off the last."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data or b""

    def has_next(self) -> bool:
        """Whether there is a batch."""
        return bool(self.data)

    def size_in_bytes(self) -> int:
        """Number of bytes."""
        return len(self.data)


class PartitionRecords:
    """The records of one partition in a fetch: an iterator, with the parameters of aiokafka's class.

    Attributes
    ----------
    next_fetch_offset
        The position behind what was delivered.
    cost
        Approximate memory of all records that were delivered, in bytes.
    """

    def __init__(
        self,
        tp: Any,
        records: Fetched,
        aborted_transactions: Any,
        fetch_offset: int,
        key_deserializer: None,
        value_deserializer: None,
        check_crcs: bool,
        isolation_level: int,
    ) -> None:
        del key_deserializer, value_deserializer, check_crcs
        self._tp = tp
        self._data = records.data
        self._committed_only = isolation_level == fetcher.READ_COMMITTED
        self._aborted = sorted(aborted_transactions or [], key=lambda aborted: aborted[1], reverse=True)
        self._aborted_producers: set[int] = set()
        self.next_fetch_offset = fetch_offset
        self.cost = 0
        self._records = self._read()

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def _read(self) -> Iterator[Record]:
        at: int | None = 0
        while at is not None and at < len(self._data):
            batch, following = self._batch(at)
            if batch is None:
                return
            if not batch.valid:
                batch.end = self._end_of_damaged(batch, following)
                following = (
                    None  # what was read of transactions so far may be wrong; a new fetch begins behind it
                )
            elif self._hidden(batch):
                self.next_fetch_offset = max(self.next_fetch_offset, batch.end)
                at = following
                continue
            if batch.end > self.next_fetch_offset:
                yield from self._deliver(batch)
                self.next_fetch_offset = max(self.next_fetch_offset, batch.end)
            at = following

    def _batch(self, at: int) -> tuple[Batch | Message | None, int | None]:
        """The batch at a place, and the place of the next one; None if the broker cut the batch off."""
        left = len(self._data) - at
        size = struct.unpack_from(">i", self._data, at + 8)[0] if left >= _OVERHEAD + 5 else -1
        if at > 0 and not 0 <= size <= left - _OVERHEAD:
            return None, None
        frame = memoryview(self._data)[at : at + _OVERHEAD + size if 0 <= size <= left - _OVERHEAD else None]
        magic = frame[16] if len(frame) > 16 else None
        if magic == 2 and len(frame) >= HEADER_BYTES:
            return Batch(frame), at + len(frame)
        if magic in (0, 1) and len(frame) >= SMALLEST_MESSAGE + 8 * magic:
            return Message(frame), at + len(frame)
        raise self._damaged("its header is not that of a batch")

    def _hidden(self, batch: Batch | Message) -> bool:
        """Whether no reader sees the batch: it marks the end of a transaction, or belongs to an aborted one."""
        if self._committed_only and batch.producer_id >= 0:
            while self._aborted and self._aborted[-1][1] <= batch.base:
                self._aborted_producers.add(self._aborted.pop()[0])
            if batch.is_control and batch.is_abort():
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return batch.is_control

    def _end_of_damaged(self, batch: Batch | Message, following: int | None) -> int:
        """First offset after a batch with a wrong checksum.

        The header of such a batch cannot be believed; that of the next batch can, if its own checksum is right.
        """
        if following is not None and following < len(self._data):
            try:
                after, _ = self._batch(following)
            except DamagedLogError:
                after = None
            if after is not None and after.valid and after.base > batch.base:
                return after.base
        if isinstance(batch, Message) or 0 < batch.count == batch.last_delta + 1:
            return batch.end
        raise self._damaged("its checksum is wrong")

    def _damaged(self, reason: str) -> DamagedLogError:
        return DamagedLogError(
            f"the log of {self._tp.topic} is damaged on the broker: in partition {self._tp.partition}, the end of the "
            f"batch at offset {self.next_fetch_offset} is unknown ({reason}); start the worker again, and if this "
            "repeats, check the broker's disk: another replica of the partition may hold the batch undamaged"
        )

    def _deliver(self, batch: Batch | Message) -> Iterator[Record]:
        topic, partition = self._tp
        try:
            records, large = batch.unpack()
            appended = batch.log_append_time
        except UnreadableError as error:
            yield self._unreadable(batch, str(error))
            return
        for raw in records:
            offset = raw.offset
            if offset < self.next_fetch_offset:  # the fetch began inside the batch
                continue
            key, value, headers = raw.key, raw.value, raw.headers
            cut: tuple[str, ...] = ()
            if large:
                key, value, headers, cut = _kept(raw)
            self.next_fetch_offset = offset + 1
            self.cost += (
                _RECORD_COST + _HEADER_COST * len(headers) + (len(value) if type(value) is bytes else 0)
            )
            timestamp = -1 if raw.timestamp is None else raw.timestamp
            append_ms = timestamp if appended else UNKNOWN
            yield Record(topic, partition, offset, timestamp, key, value, headers, cut, append_ms)

    def _unreadable(self, batch: Batch | Message, reason: str) -> Record:
        first, last = min(batch.base, batch.end - 1), batch.end - 1
        if isinstance(batch, Message):
            first = self.next_fetch_offset  # the message has only the offset of its last record
        value = Withheld(
            "unreadable_batch", reason, bytes(batch.frame[:HEAD_BYTES]), len(batch.frame),
            hashlib.sha256(batch.frame).hexdigest(), first, last,
        )  # fmt: skip
        self.cost += _RECORD_COST + len(value.head)
        timestamp = batch.max_timestamp if batch.valid else int(time.time() * 1000)
        return Record(self._tp.topic, self._tp.partition, last, timestamp, None, value)


def _kept(raw: Any) -> tuple[bytes | None, Any, Headers, tuple[str, ...]]:
    """Key, value and headers of a record without the parts that are too large, and the names of those removed."""
    key, value, headers, cut = raw.key, raw.value, raw.headers, []
    if key is not None and len(key) > MAX_KEY_BYTES:
        key = b""
        cut.append("key")
    if (
        sum(len(name.encode(errors="replace")) + len(text or b"") + 10 for name, text in headers)
        > MAX_HEADERS_BYTES
    ):
        headers = []
        cut.append("headers")
    if value is not None and len(value) > MAX_EVENT_BYTES:
        value = Withheld(
            "too_large", f"{len(value)} bytes", value[:HEAD_BYTES], len(value),
            hashlib.sha256(value).hexdigest(), raw.offset, raw.offset,
        )  # fmt: skip
    return key, value, headers, tuple(cut)
