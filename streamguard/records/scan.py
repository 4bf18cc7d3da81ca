"""Checks the structure of a whole batch before any record is delivered; compiled, and it creates no objects."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamguard.compute.compiler import inline, kernel
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.records.record import (
    MAX_HEADERS_BYTES,
    MAX_KEY_BYTES,
    MAX_RECORD_HEADERS,
    UnreadableError,
)

PLAIN, LARGE, ODD = range(3)
"""What the records need: nothing; the removal of large parts; a parser that reads attributes as one byte, too."""

INT32, INT64 = 5, 10
"""Largest number of bytes of a number with 32 bits (lengths, counts, sizes and offsets) and with 64 bits (times)."""

_REASONS = {
    -1: "is cut off",
    -2: "has a length that does not fit its contents",
    -3: "has an offset that does not follow the previous one within the batch",
    -4: f"has more than {MAX_RECORD_HEADERS} headers",
    -5: "is followed by bytes that belong to no record",
    -6: "has a number with more bytes or bits than its type",
}


@inline
def _varint(data: Any, at: int, end: int, size: int) -> tuple[Any, int]:
    """(number, position behind it); instead of the position a negative number of `_REASONS` if it cannot be read.

    `size` is the largest number of bytes: `INT32` or `INT64`. Bits beyond those of the type are refused, because
    parsers differ in what they do with them.
    """
    number = np.uint64(0)
    for k in range(size):
        if at >= end:
            return 0, -1
        byte = np.uint64(data[at])
        at += 1
        if k == size - 1 and byte > (0x0F if size == INT32 else 0x01):
            return 0, -6
        number |= (byte & np.uint64(0x7F)) << np.uint64(7 * k)
        if byte < 0x80:
            return np.int64(number >> np.uint64(1)) ^ -np.int64(number & np.uint64(1)), at
    return 0, -6


@inline
def _sized(data: Any, at: int, end: int, null: int) -> tuple[int, int]:
    """(size of a text, position behind it); -1 is null where `null` is -1; a negative position if it does not fit."""
    size, at = _varint(data, at, end, INT32)
    if at < 0:
        return 0, at
    if size < null or size > end - at:
        return 0, -1
    return size, at + max(size, 0)


@kernel
def _scan(data: Any, at: int, count: int, last_delta: int) -> tuple[Any, int]:
    """(one of `PLAIN`, `LARGE`, `ODD` or a negative number of `_REASONS`, index of the record)."""
    end = len(data)
    needs, before = PLAIN, np.int64(-1)
    for i in range(count):
        length, at = _varint(data, at, end, INT32)
        if at < 0:
            return at, i
        if length < 1 or length > end - at:
            return -1, i
        stop = at + length
        if data[at] >= 0x80:
            needs = ODD
        _, at = _varint(data, at + 1, stop, INT64)
        if at < 0:
            return at, i
        delta, at = _varint(data, at, stop, INT32)
        if at < 0:
            return at, i
        if delta <= before or delta > last_delta:
            return -3, i
        before = delta
        key, at = _sized(data, at, stop, -1)
        if at < 0:
            return at, i
        value, at = _sized(data, at, stop, -1)
        if at < 0:
            return at, i
        headers, at = _varint(data, at, stop, INT32)
        if at < 0:
            return at, i
        if headers < 0:
            return -1, i
        if headers > MAX_RECORD_HEADERS:
            return -4, i
        begun = at
        for _ in range(headers):
            _, at = _sized(data, at, stop, 0)
            if at >= 0:
                _, at = _sized(data, at, stop, -1)
            if at < 0:
                return at, i
        if at != stop:
            return -2, i
        large = key > MAX_KEY_BYTES or value > MAX_EVENT_BYTES or at - begun + 8 * headers > MAX_HEADERS_BYTES
        if large and needs == PLAIN:
            needs = LARGE
    return (needs, count) if at == end else (np.int64(-5), count - 1)


def scan(data: memoryview, at: int, count: int, last_delta: int) -> int:
    """Check that `count` records fill the data from `at` to its end, and that their offsets ascend in the batch.

    Returns
    -------
    int
        `PLAIN`, `LARGE` or `ODD`.

    Raises
    ------
    UnreadableError
        If the records do not.
    """
    buffer = np.frombuffer(data, np.uint8)
    buffer.flags.writeable = False  # one compiled form for packed and unpacked batches
    found, record = _scan(buffer, at, count, last_delta)
    if found < 0:
        raise UnreadableError(f"record {record + 1} of {count} {_REASONS[found]}")
    return int(found)


def compile_scan() -> None:
    """Compile the check, or load the compiled one."""
    scan(memoryview(b""), 0, 0, 0)
