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

from streamguard.errors import TemporaryError
from streamguard.events.ceiling import UNKNOWN
from streamguard.events.event import UNREADABLE, Withheld
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.records.batch import HEADER_BYTES, Batch
from streamguard.records.legacy import SMALLEST_MESSAGE, Message
from streamguard.records.record import (
    HEAD_BYTES,
    MAX_HEADERS_BYTES,
    MAX_KEY_BYTES,
    Headers,
    Record,
    UnreadableError,
)
from streamguard.records.scan import compile_scan

_OVERHEAD = 12
"""Bytes of offset and length before the part that the length counts."""
_CHECKSUM = "the checksum of the batch is wrong"
_RECORD_COST, _HEADER_COST = 300, 128
"""Approximate memory of a record and of a header, besides their bytes."""


class DamagedLogError(TemporaryError):
    """A batch is damaged on the broker, and this fetch does not show where it ends; the message names the place.

    Attributes
    ----------
    frame
        The batch, as far as it is known.
    reason
        What is wrong with it.
    """

    def __init__(self, tp: Any, offset: int, frame: memoryview, reason: str) -> None:
        self.frame = frame
        self.reason = reason
        super().__init__(
            f"the log of {tp.topic} is damaged on the broker: in partition {tp.partition}, the end of the batch at "
            f"offset {offset} is unknown ({reason}); start the command again, and if this repeats, check the broker's "
            "disk: another replica of the partition may hold the batch undamaged"
        )


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
    cuts
        Whether the parts of a record that are too large to keep are removed.
    """

    cuts = True

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
                at, end = self._behind_damaged(following)
                if end is None:
                    raise self._damaged(batch.frame, _CHECKSUM)
                if end > self.next_fetch_offset:
                    yield self.passed(batch.frame, _CHECKSUM, end)
                    return  # what was read of transactions so far may be wrong; a new fetch begins behind it
                continue  # the broker believes its header, and sends it again although it was passed
            if self._hidden(batch):
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
        raise self._damaged(frame, "its header is not that of a batch")

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

    def _behind_damaged(self, at: int | None) -> tuple[int | None, int | None]:
        """Place and first offset of the next batch with a right checksum; None as offset if this fetch has none.

        The header of a batch with a wrong checksum cannot be believed, and its length only if a right batch follows.
        Damaged batches that follow directly are passed together with it. Without a right batch, the place is the end
        of the data, or None if the data ends within a batch.
        """
        while at is not None and at < len(self._data):
            try:
                after, following = self._batch(at)
            except DamagedLogError:
                return None, None
            if after is not None and after.valid:
                return at, after.base
            at = following
        return at, None

    def stands_at_last(self) -> bool | None:
        """Whether the first batch is damaged and only others like it follow; None if this fetch shows how to go on.

        False if more follows that cannot be read.
        """
        try:
            batch, following = self._batch(0)
        except DamagedLogError:
            return False
        if batch is None or batch.valid:
            return None
        at, end = self._behind_damaged(following)
        return at is not None if end is None else None

    def passed(self, frame: memoryview, reason: str, end: int) -> Record:
        """The one record for a damaged batch, behind which the position moves to `end`."""
        first, self.next_fetch_offset = self.next_fetch_offset, end
        return self._withheld(frame, reason, first, end - 1, int(time.time() * 1000))

    def _damaged(self, frame: memoryview, reason: str) -> DamagedLogError:
        return DamagedLogError(self._tp, self.next_fetch_offset, frame, reason)

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
            if large and self.cuts:
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
        return self._withheld(batch.frame, reason, first, last, batch.max_timestamp)

    def _withheld(self, frame: memoryview, reason: str, first: int, last: int, timestamp: int) -> Record:
        value = Withheld(
            UNREADABLE, reason, bytes(frame[:HEAD_BYTES]), len(frame), hashlib.sha256(frame).hexdigest(),
            first, last,
        )  # fmt: skip
        self.cost += _RECORD_COST + len(value.head)
        return Record(self._tp.topic, self._tp.partition, last, timestamp, None, value)


class WholeRecords(PartitionRecords):
    """The same records, with all of their parts: what a batch contains is limited by its unpacked size."""

    cuts = False


class UnreadableBatches(PartitionRecords):
    """Only what `PartitionRecords` withholds as a batch; every batch is checked as there, and no other is delivered."""

    def _deliver(self, batch: Batch | Message) -> Iterator[Record]:
        try:
            batch.unpack()
        except UnreadableError as error:
            yield self._unreadable(batch, str(error))


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
