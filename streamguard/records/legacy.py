"""Message sets of brokers before Kafka 0.11, with the interface of `Batch`; parsed in Python, because they are rare."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from streamguard.records.batch import RawRecord
from streamguard.records.codecs import LZ4, NONE, unpack
from streamguard.records.record import MAX_RECORDS, UnreadableError

_HEADER = struct.Struct(">qiIbb")
SMALLEST_MESSAGE = _HEADER.size + 8
_CODEC, _APPEND_TIME = 0x07, 0x08


class Message:
    """One message; if it is compressed, its value is a set of messages, and it has the offset of the last of them."""

    is_control = is_transactional = False
    producer_id = -1

    def __init__(self, frame: memoryview) -> None:
        self.frame = frame
        self._offset, _, crc, self._magic, self._attributes = _HEADER.unpack_from(frame)
        self.base: int = self._offset
        self.end: int = self._offset + 1
        self.valid = zlib.crc32(frame[16:]) == crc
        self.max_timestamp = struct.unpack_from(">q", frame, 18)[0] if self._magic == 1 else -1

    @property
    def log_append_time(self) -> bool:
        """Whether a broker has set the timestamps of the records."""
        return bool(self._attributes & _APPEND_TIME)

    def is_abort(self) -> bool:
        """Whether it aborts a transaction; there were none."""
        return False

    def unpack(self) -> tuple[Iterator[RawRecord], bool]:
        """Check the whole message, and then return its records and True; see `Batch.unpack`."""
        if not self.valid:
            raise UnreadableError("the checksum of the message is wrong")
        codec = self._attributes & _CODEC
        key, value = self._contents()
        if codec == NONE:
            return iter([RawRecord(self._offset, self.max_timestamp, key, value, [])]), True
        if value is None or (codec == LZ4 and self._magic == 0):
            raise UnreadableError(
                f"a message of format {self._magic} with the codec {codec} has no readable value"
            )
        inner = [Message(frame) for frame in _messages(unpack(codec, memoryview(value)))]
        shift = self._offset - inner[-1]._offset if inner and self._magic == 1 else 0
        records, before = [], -1
        for message in inner:
            if message._attributes & _CODEC or not message.valid or message._magic != self._magic:
                raise UnreadableError("a message inside has a wrong checksum, format or codec")
            offset = message._offset + shift
            if not before < offset <= self._offset:
                raise UnreadableError("the offsets of the messages inside do not ascend to that of the set")
            before = offset
            timestamp = self.max_timestamp if self.log_append_time else message.max_timestamp
            records.append(RawRecord(offset, timestamp, *message._contents(), []))
        return iter(records), True

    def _contents(self) -> tuple[bytes | None, bytes | None]:
        at, found = 26 if self._magic == 1 else 18, []
        for _ in range(2):
            if at + 4 > len(self.frame):
                raise UnreadableError("the message is cut off")
            (size,) = struct.unpack_from(">i", self.frame, at)
            at += 4
            if size < -1 or size > len(self.frame) - at:
                raise UnreadableError("the message is cut off")
            found.append(None if size < 0 else bytes(self.frame[at : at + size]))
            at += max(size, 0)
        if at != len(self.frame):
            raise UnreadableError("the message has a length that does not fit its contents")
        return found[0], found[1]


def _messages(data: memoryview) -> Iterator[memoryview]:
    at = 0
    for _ in range(MAX_RECORDS):
        if at == len(data):
            return
        size = struct.unpack_from(">i", data, at + 8)[0] if at + 12 <= len(data) else -1
        if size < SMALLEST_MESSAGE - 12 or size > len(data) - at - 12 or data[at + 16] > 1:
            raise UnreadableError("a message inside is cut off")
        if data[at + 16] == 1 and size < SMALLEST_MESSAGE - 4:
            raise UnreadableError("a message inside is cut off")
        yield data[at : at + 12 + size]
        at += 12 + size
    raise UnreadableError(f"it has more than {MAX_RECORDS} messages")
