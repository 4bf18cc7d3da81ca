"""Converts a refused record to a dead letter: the whole record if it fits, otherwise its size, digest and origin."""

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
"""Characters of the detail that are kept, because a header must not hold a whole event."""
MAX_VALUE_BYTES = MAX_EVENT_BYTES
"""Size in bytes up to which a value is kept. Kafka limits only the compressed size, and 20 MB of one repeated letter
compress to a few KB."""
MAX_KEY_BYTES = 16 << 10
"""Size in bytes up to which a key is kept."""
MAX_HEADERS_BYTES = 32 << 10
"""Size in bytes, names included, up to which the original headers are kept; larger ones are all dropped."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message for a topic; at least one of key and value is not None."""

    value: bytes | None
    key: bytes | None
    headers: Headers = field(default_factory=list)

    @property
    def size(self) -> int:
        """Size of value, key and headers, in bytes."""
        return len(self.value or b"") + len(self.key or b"") + _size(self.headers)


def dead_letter(record: ConsumerRecord, refusal: Refusal) -> Message:
    """Copy the record, and add headers with the reason of the refusal and the origin of the record.

    Notes
    -----
    `sg.cut` lists the parts that were too large to keep (`value`, `key`, `headers`). For a value, `sg.size` and
    `sg.sha256` then hold its size and digest. `sg.null` is set if the record had neither key nor value: aiokafka
    does not send such a record, so the dead letter has an empty key.
    """
    return _letter(record, refusal, MAX_VALUE_BYTES, MAX_KEY_BYTES, MAX_HEADERS_BYTES)


def without_record(record: ConsumerRecord, refusal: Refusal) -> Message:
    """Build a dead letter that every topic accepts: it holds only the size, digest and origin of the record."""
    return _letter(record, refusal, 0, 0, 0)


def origin(record: ConsumerRecord) -> Headers:
    """Topic, partition and offset of a record, as headers."""
    return [
        ("sg.topic", record.topic.encode()),
        ("sg.partition", str(record.partition).encode()),
        ("sg.offset", str(record.offset).encode()),
    ]


def _letter(
    record: ConsumerRecord, refusal: Refusal, value_limit: int, key_limit: int, headers_limit: int
) -> Message:
    value, key, headers = record.value, record.key, list(record.headers)
    added: Headers = [
        ("sg.reason", refusal.reason.encode()),
        ("sg.detail", refusal.detail[:DETAIL_CHARACTERS].encode(errors="replace")),
        *origin(record),
    ]
    cut = []
    if value is not None and len(value) > value_limit:
        added += [
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
        added.append(("sg.cut", ",".join(cut).encode()))
    if value is None and key is None:
        key = b""
        added.append(("sg.null", b"key,value"))
    return Message(value, key, headers + added)


def _size(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """Upper bound of the size of headers in a record: names, values, and up to ten bytes of lengths per header."""
    return sum(len(name.encode(errors="replace")) + len(value or b"") + 10 for name, value in headers)
