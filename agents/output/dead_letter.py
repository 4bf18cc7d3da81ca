"""A refused record as its dead letter: whole where it fits, else what can be said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamguard.events.event import Refusal
from streamguard.kafka.topics import MAX_EVENT_BYTES

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

Headers = list[tuple[str, bytes | None]]

DETAIL_CHARACTERS = 500
"""A header is no place for a whole event."""
MAX_VALUE_BYTES = MAX_EVENT_BYTES
"""Bytes of a value that is kept. Kafka limits what it stores, compressed: 20 MB of one letter are a few KB."""
MAX_KEY_BYTES = 16 << 10
"""Bytes of a key that is kept."""
MAX_HEADERS_BYTES = 32 << 10
"""Bytes of the original headers that are kept, names included; more, and none of them is."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to a topic; a key or a value has to be there."""

    value: bytes | None
    key: bytes | None
    headers: Headers = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of value, key and headers."""
        return len(self.value or b"") + len(self.key or b"") + _size(self.headers)


def dead_letter(record: ConsumerRecord, refusal: Refusal) -> Message:
    """The record as it came, with why and whence in headers of ours.

    Notes
    -----
    `sg.cut` names what was too large to keep (`value`, `key`, `headers`); of a value, `sg.size` and
    `sg.sha256` are told instead. `sg.null` is there if the record had neither key nor value: aiokafka
    sends no such record, so its key is empty then.
    """
    return _letter(record, refusal, MAX_VALUE_BYTES, MAX_KEY_BYTES, MAX_HEADERS_BYTES)


def without_record(record: ConsumerRecord, refusal: Refusal) -> Message:
    """The dead letter that any topic takes: nothing of the record but its size, digest and place."""
    return _letter(record, refusal, 0, 0, 0)


def origin(record: ConsumerRecord) -> Headers:
    """Where a record stands, as headers."""
    return [
        ("sg.topic", record.topic.encode()),
        ("sg.partition", str(record.partition).encode()),
        ("sg.offset", str(record.offset).encode()),
    ]


def _letter(
    record: ConsumerRecord, refusal: Refusal, value_limit: int, key_limit: int, headers_limit: int
) -> Message:
    value, key, headers = record.value, record.key, list(record.headers)
    said: Headers = [
        ("sg.reason", refusal.reason.encode()),
        ("sg.detail", refusal.detail[:DETAIL_CHARACTERS].encode(errors="replace")),
        *origin(record),
    ]
    cut = []
    if value is not None and len(value) > value_limit:
        said += [
            ("sg.size", str(len(value)).encode()),
            ("sg.sha256", hashlib.sha256(value).hexdigest().encode()),
        ]
        value = b""
        cut.append("value")
    if key is not None and len(key) > key_limit:
        key = b""
        cut.append("key")
    if _size(headers) > headers_limit:
        headers = []
        cut.append("headers")
    if cut:
        said.append(("sg.cut", ",".join(cut).encode()))
    if value is None and key is None:
        key = b""
        said.append(("sg.null", b"key,value"))
    return Message(value, key, headers + said)


def _size(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """Bytes of headers in a record, at most: names, values and up to ten bytes of lengths each."""
    return sum(len(name.encode(errors="replace")) + len(value or b"") + 10 for name, value in headers)
