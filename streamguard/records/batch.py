"""One record batch of Kafka's present format: its header, its checksum, and its records."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint_py as varint

from streamguard.records.codecs import NONE, unpack
from streamguard.records.record import MAX_RECORDS, UnreadableError
from streamguard.records.scan import LARGE, ODD, scan
from streamguard.text import counted

_HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = _HEADER.size
_ATTRIBUTES_AT = 21
_SMALLEST_RECORD = 7

_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20


class RawRecord(NamedTuple):
    """A record with the attributes of aiokafka's."""

    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Batch:
    """A batch whose header is read; `unpack` reads its records.

    Parameters
    ----------
    frame
        The batch, as the broker sent it.

    Attributes
    ----------
    base, end
        First offset, and first offset after the batch, as its header says.
    valid
        Whether the checksum is right; without it, no field of the header can be believed.
    """

    def __init__(self, frame: memoryview) -> None:
        self.frame = frame
        (
            self.base, _, _, _, _, self._attributes, self.last_delta, self.first_timestamp, self.max_timestamp,
            self.producer_id, _, _, self.count,
        ) = _HEADER.unpack_from(frame)  # fmt: skip
        self.end: int = self.base + max(self.last_delta, 0) + 1
        self.valid = bool(DefaultRecordBatch(frame).validate_crc())

    @property
    def log_append_time(self) -> bool:
        """Whether a broker has set the timestamps of the records."""
        return bool(self._attributes & _APPEND_TIME)

    @property
    def is_control(self) -> bool:
        """Whether it ends a transaction; it has no records for readers."""
        return bool(self._attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        """Whether it belongs to a transaction."""
        return bool(self._attributes & _TRANSACTIONAL)

    def is_abort(self) -> bool:
        """Whether a control batch aborts its transaction.

        A control batch that cannot be read counts as an abort. This can only end what the broker itself has reported
        as aborted: a producer whose transaction was committed is not in the broker's list at that time.
        """
        try:
            return bool(ControlRecord.parse(next(self.unpack()[0]).key) == ABORT_MARKER)
        except (UnreadableError, StopIteration, TypeError, ValueError, AssertionError, struct.error):
            return True

    def unpack(self) -> tuple[Iterator[Any], bool]:
        """Check the whole batch, and then read its records.

        Returns
        -------
        records
            In offset order, with the attributes of `RawRecord`. aiokafka's compiled parser reads them, from the first
            header name on that is not UTF-8 a slower one.
        large
            Whether a record may have parts that are too large to keep.

        Raises
        ------
        UnreadableError
            If any part of the batch cannot be read.
        """
        if not self.valid:
            raise UnreadableError("the checksum of the batch is wrong")
        if self.last_delta < 0 or not 0 <= self.count <= min(self.last_delta + 1, MAX_RECORDS):
            raise UnreadableError(
                f"its header claims {counted(self.count, 'record')} in {counted(self.last_delta + 1, 'offset')}"
            )
        codec = self._attributes & _CODEC
        data = self.frame
        if codec != NONE and self.count:
            data = unpack(codec, data[HEADER_BYTES:], HEADER_BYTES)
            data[:HEADER_BYTES] = self.frame[:HEADER_BYTES]
            struct.pack_into(">h", data, _ATTRIBUTES_AT, self._attributes & ~_CODEC)
        if self.count * _SMALLEST_RECORD > len(data) - HEADER_BYTES:
            raise UnreadableError(
                f"its header claims {counted(self.count, 'record')} in {counted(len(data) - HEADER_BYTES, 'byte')}"
            )
        if not self.count:
            return iter(()), False
        needs = scan(data, HEADER_BYTES, self.count, self.last_delta)
        return self._slow(data) if needs == ODD else self._fast(data), needs >= LARGE

    def _fast(self, data: memoryview) -> Iterator[Any]:
        done = 0
        try:
            for record in DefaultRecordBatch(data):
                done += 1
                yield record
        except (UnicodeDecodeError, CorruptRecordException):
            yield from islice(self._slow(data), done, None)

    def _slow(self, data: memoryview) -> Iterator[RawRecord]:
        """Parse records that `scan` has checked, and write bytes of header names that are not UTF-8 as `\\xff`."""
        at = HEADER_BYTES

        def number() -> int:
            nonlocal at
            found, at = varint(data, at)
            return int(found)

        def text() -> bytes | None:
            nonlocal at
            size = number()
            if size < 0:
                return None
            at += size
            return bytes(data[at - size : at])

        append_time = self.max_timestamp if self.log_append_time else None
        for _ in range(self.count):
            number()
            at += 1
            timestamp = self.first_timestamp + number()
            offset = self.base + number()
            key, value = text(), text()
            headers = [((text() or b"").decode(errors="backslashreplace"), text()) for _ in range(number())]
            yield RawRecord(offset, timestamp if append_time is None else append_time, key, value, headers)
