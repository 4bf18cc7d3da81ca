"""A committed record, as readers of a log have it."""

from __future__ import annotations

import gc
from typing import Any, NamedTuple

Headers = tuple[tuple[str, bytes | None], ...]


class LogRecord(NamedTuple):
    """A committed record.

    Attributes
    ----------
    timestamp
        Time of the record, epoch milliseconds; 0 if it has none.
    headers
        Names and values in their order; empty if a name is not UTF-8, because the client then reads none of them.
    """

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def log_record(message: Any, headers: Headers = ()) -> LogRecord:
    """A record of a `confluent_kafka` message without an error, with these headers."""
    return LogRecord(
        int(message.partition() or 0),
        int(message.offset() or 0),
        _milliseconds(message.timestamp()),
        message.key(),
        message.value(),
        headers,
    )


def headers_of(message: Any) -> Headers:
    """Headers of a `confluent_kafka` message; none at all if a name is not UTF-8.

    For such a name, the client (2.16) returns a tuple whose first place is a null pointer, and a program that reads
    that place ends with a segmentation fault. Its error is raised by this call or by the next one, or is lost.
    `gc.get_referents` passes over null pointers, so it shows which tuples are whole.
    """
    try:
        found = message.headers()
        if not found:
            return ()
        for pair in found:
            if len(gc.get_referents(pair)) != 2:
                return ()
    except (SystemError, UnicodeDecodeError):
        return ()
    return tuple(found)


def _milliseconds(timestamp: tuple[int, int]) -> int:
    return max(timestamp[1], 0) if timestamp[0] else 0
