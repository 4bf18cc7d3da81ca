"""Unpacks compressed batches into a buffer of bounded size; no size that the data claims is ever allocated."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable

import cramjam

from streamguard.records.record import MAX_UNPACKED_BYTES, UnreadableError

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
NAMES = ("none", "gzip", "snappy", "lz4", "zstd")

USUAL_RATIO = 32
"""A first buffer has this many bytes for each packed one; only data that unpacks to more needs the largest buffer."""
USUAL_BYTES = 16 << 20
"""Largest size of a first buffer."""
SNAPPY_RATIO = 64
"""More than snappy can reach: its shortest copy of 64 bytes takes three."""
SLACK = 64
"""Bytes behind the data: aiokafka's parser may read a number beyond the end before it notices."""

_XERIAL = struct.pack(">8sii", b"\x82SNAPPY\0", 1, 1)
_LZ4_MAGIC = 0x184D2204
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ERRORS = (cramjam.DecompressionError, zlib.error, struct.error, ValueError, IndexError, OverflowError)


def unpack(codec: int, data: memoryview, head: int = 0, limit: int = MAX_UNPACKED_BYTES) -> memoryview:
    """Unpack data behind `head` free bytes.

    Parameters
    ----------
    codec
        Number of the codec in the attributes of a batch.
    data
        The packed bytes.
    head
        Free bytes at the start of the result.
    limit
        Largest size of the unpacked data.

    Returns
    -------
    memoryview
        `head` bytes and the unpacked data, writable. Pages of memory are used only as far as data was written.

    Raises
    ------
    UnreadableError
        If the data is damaged, does not end where its frames end, or unpacks to more than `limit` bytes.

    Examples
    --------
    >>> import gzip
    >>> bytes(unpack(GZIP, memoryview(gzip.compress(b"abc"))))
    b'abc'
    """
    if not 0 < codec < len(NAMES):
        raise UnreadableError(f"the codec {codec} is unknown")
    name = NAMES[codec]
    try:
        sizes = _first_size(codec, data, limit), limit
        for size in sizes if sizes[0] < limit else (limit,):
            buffer = memoryview(mmap.mmap(-1, head + size + SLACK))
            written = _INTO[codec](data, buffer[head : head + size])
            if written is not None:
                return buffer[: head + written]
            del buffer  # before a larger one is written
            if size < limit and _surely_exceeds(codec, data, limit):
                break
    except _ERRORS as error:
        raise UnreadableError(f"{name}: {error}") from None
    raise UnreadableError(f"{name}: it unpacks to more than {limit} bytes")


def _first_size(codec: int, data: memoryview, limit: int) -> int:
    if codec == SNAPPY:
        return min(limit, SNAPPY_RATIO * len(data))
    return min(limit, USUAL_BYTES, max(1 << 16, USUAL_RATIO * len(data)))


def _surely_exceeds(codec: int, data: memoryview, limit: int) -> bool:
    """Whether a bomb is known before pages of memory are written for it: by its header, or for gzip by counting."""
    if codec == GZIP:
        stream, written = zlib.decompressobj(31), 0
        while not stream.eof and written <= limit and len(data):
            written += len(stream.decompress(data, 1 << 20))
            data = memoryview(stream.unconsumed_tail)
        return written > limit
    if codec == ZSTD:
        return _zstd_claim(data) > limit
    return False


def _zstd_claim(data: memoryview) -> int:
    """Size of the content that the header of the first frame states; 0 if it states none. RFC 8878, section 3.1.1.1.

    A frame that decoders skip has no content.
    """
    if bytes(data[: len(_ZSTD_MAGIC)]) != _ZSTD_MAGIC:
        return 0
    flags = data[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    at = 6 - single + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


def _gzip(data: memoryview, out: memoryview) -> int | None:
    """One member. A second one, which Java reads and librdkafka does not, is refused; both ignore other bytes."""
    stream, at = zlib.decompressobj(31), 0
    while not stream.eof:
        room = len(out) - at
        part = stream.decompress(data, min(room + 1, 1 << 20))
        if len(part) > room:
            return None
        if not part and not stream.eof and not stream.unconsumed_tail:
            raise ValueError("the stream ends early")
        out[at : at + len(part)] = part
        at += len(part)
        data = memoryview(stream.unconsumed_tail)
    if stream.unused_data.startswith(_GZIP_MAGIC):
        raise ValueError("a second stream follows the first")
    return at


def _snappy(data: memoryview, out: memoryview) -> int | None:
    """A raw block, or the framing of the Java library xerial."""
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return _snappy_block(data, out)
    at, cursor = 0, len(_XERIAL)
    while cursor < len(data):
        (size,) = struct.unpack_from(">i", data, cursor)
        cursor += 4
        if not 0 < size <= len(data) - cursor:
            raise ValueError(f"a block claims {size} of {len(data) - cursor} bytes")
        written = _snappy_block(data[cursor : cursor + size], out[at:])
        if written is None:
            return None
        at += written
        cursor += size
    return at


def _snappy_block(data: memoryview, out: memoryview) -> int | None:
    claimed = cramjam.snappy.decompress_raw_len(data)
    if claimed > SNAPPY_RATIO * len(data):
        raise ValueError(f"{len(data)} bytes claim to unpack to {claimed}")
    if claimed > len(out):
        return None
    return int(cramjam.snappy.decompress_raw_into(data, out[:claimed])) if claimed else 0


def _lz4(data: memoryview, out: memoryview) -> int | None:
    """One frame. The decoder would also accept several; Java reads only the first, and librdkafka refuses them."""
    end = _lz4_frame_end(data)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow the frame")
    return _into(cramjam.lz4.decompress_into, data, out)


def _lz4_frame_end(data: memoryview) -> int:
    magic, flags = struct.unpack_from("<IB", data)
    if magic != _LZ4_MAGIC:
        raise ValueError(f"the frame begins with {magic:#010x}")
    block_checksum, content_size, content_checksum = flags & 0x10, flags & 0x08, flags & 0x04
    at = 7 + (8 if content_size else 0) + (4 if flags & 0x01 else 0)
    while True:
        if at + 4 > len(data):
            raise ValueError("the frame ends early")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size == 0:
            break
        at += (size & 0x7FFFFFFF) + (4 if block_checksum else 0)
    at += 4 if content_checksum else 0
    if at > len(data):
        raise ValueError("the frame ends early")
    return at


def _zstd(data: memoryview, out: memoryview) -> int | None:
    return _into(cramjam.zstd.decompress_into, data, out)


def _into(
    decompress_into: Callable[[memoryview, memoryview], int], data: memoryview, out: memoryview
) -> int | None:
    try:
        return int(decompress_into(data, out))
    except cramjam.DecompressionError as error:
        if "whole buffer" in str(error):
            return None
        raise


_INTO: dict[int, Callable[[memoryview, memoryview], int | None]] = {
    GZIP: _gzip,
    SNAPPY: _snappy,
    LZ4: _lz4,
    ZSTD: _zstd,
}
"""By codec: writes the unpacked data and returns its size, or None if it does not fit."""
