"""Record batches as bytes, also such that no client would write, and a producer that sends them as they are."""

from __future__ import annotations

import random
import socket
import struct
import zlib
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import cramjam
from aiokafka import codec
from aiokafka.record.util import calc_crc32c, encode_varint_py

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = {"none": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
TRANSACTIONAL, CONTROL = 0x10, 0x20
UNKNOWN_TOPIC, NOT_LEADER = 3, 6
"""Error codes of the broker."""

Headers = Sequence[tuple[bytes, bytes | None]]


def varint(number: int) -> bytes:
    out = bytearray()
    encode_varint_py(number, out.append)
    return bytes(out)


def overlong(number: bytes, size: int, last: int = 0) -> bytes:
    """The same varint in `size` bytes; `last` is the last one, and its bits are beyond those of most numbers."""
    return number[:-1] + bytes([number[-1] | 0x80]) + b"\x80" * (size - len(number) - 1) + bytes([last])


def sized(text: bytes | None) -> bytes:
    return varint(-1) if text is None else varint(len(text)) + text


def record(
    delta: int,
    value: bytes | None,
    key: bytes | None = b"k",
    headers: Headers = (),
    *,
    attributes: int = 0,
    ms: int = 0,
) -> bytes:
    """One record; `delta` is its offset within the batch."""
    body = bytes([attributes]) + varint(ms) + varint(delta) + sized(key) + sized(value) + varint(len(headers))
    body += b"".join(sized(name) + sized(text) for name, text in headers)
    return varint(len(body)) + body


def pack(codec_number: int, data: bytes) -> bytes:
    """Compress as honest producers do."""
    packers = [bytes, codec.gzip_encode, codec.snappy_encode, codec.lz4_encode, codec.zstd_encode]
    return bytes(packers[codec_number](data))  # type: ignore[operator]


def batch(
    records: Iterable[bytes] | bytes,
    count: int | None = None,
    *,
    codec_number: int = NONE,
    packed: bytes | None = None,
    last_delta: int | None = None,
    base: int = 0,
    attributes: int = 0,
    ms: int = 1_700_000_000_000,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> bytes:
    """A batch with a right checksum, whatever it contains.

    `packed` replaces the compressed records; `producer` is id, epoch and sequence.
    """
    if not isinstance(records, bytes):
        listed = list(records)
        count = len(listed) if count is None else count
        records = b"".join(listed)
    count = 1 if count is None else count
    packed = pack(codec_number, records) if packed is None else packed
    last_delta = count - 1 if last_delta is None else last_delta
    after_crc = struct.pack(
        ">hiqqqhii", attributes | codec_number, last_delta, ms, ms, *producer, count
    )  # fmt: skip
    return sealed(struct.pack(">qiib", base, 49 + len(packed), -1, 2) + bytes(4) + after_crc + packed)


def sealed(made: bytes) -> bytes:
    """The batch with its length and checksum made right."""
    out = bytearray(made)
    struct.pack_into(">i", out, 8, len(out) - 12)
    struct.pack_into(">I", out, 17, calc_crc32c(bytes(out[21:])))
    return bytes(out)


FIELDS = ("length", "time", "offset", "key", "value", "headers", "name", "text")


def with_overlong(field: str, size: int, last: int = 0, *, attributes: int = 0) -> bytes:
    """A batch of one record in which one number, named in `FIELDS`, has `size` bytes."""
    numbers = dict(zip(FIELDS, map(varint, (0, 0, 0, 1, 2, 1, 1, 1)), strict=True))
    if field != "length":
        numbers[field] = overlong(numbers[field], size, last)
    n = numbers
    body = bytes([attributes]) + n["time"] + n["offset"] + n["key"] + b"k" + n["value"] + b"{}"
    body += n["headers"] + n["name"] + b"n" + n["text"] + b"t"
    length = varint(len(body))
    return batch((overlong(length, size, last) if field == "length" else length) + body, 1)


def at_offset(made: bytes, base: int) -> bytes:
    return struct.pack(">q", base) + made[8:]


def transactional(made: bytes, producer_id: int, epoch: int, sequence: int) -> bytes:
    """The batch as part of a transaction of this producer."""
    out = bytearray(made)
    out[22] |= TRANSACTIONAL
    struct.pack_into(">qhi", out, 43, producer_id, epoch, sequence)
    return sealed(bytes(out))


def message(
    value: bytes | None,
    offset: int,
    *,
    magic: int,
    attributes: int = 0,
    ms: int = 7,
    key: bytes | None = b"k",
) -> bytes:
    """A message of the formats before Kafka 0.11."""

    def int_sized(text: bytes | None) -> bytes:
        return struct.pack(">i", -1) if text is None else struct.pack(">i", len(text)) + text

    body = struct.pack(">bb", magic, attributes) + (struct.pack(">q", ms) if magic else b"")
    body += int_sized(key) + int_sized(value)
    body = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", offset, len(body)) + body


class RawProducer:
    """Sends batches to one broker byte for byte; the broker checks them."""

    def __init__(self, bootstrap_servers: str) -> None:
        host, port = bootstrap_servers.split(",")[0].rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), 30)
        self._correlation = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(
        self, topic: str, partition: int, made: bytes, transactional_id: str | None = None
    ) -> tuple[int, int]:
        """(error code, first offset) of the broker's answer; the error code is 0 if it accepted the batch."""
        while True:
            answer = self._send(topic, partition, made, transactional_id)
            if answer[0] not in (UNKNOWN_TOPIC, NOT_LEADER):  # the topic was created a moment ago
                return answer

    def _send(self, topic: str, partition: int, made: bytes, transactional_id: str | None) -> tuple[int, int]:
        def text(value: str | None) -> bytes:
            raw = (value or "").encode()
            return struct.pack(">h", -1) if value is None else struct.pack(">h", len(raw)) + raw

        self._correlation += 1
        body = struct.pack(">hhi", 0, 7, self._correlation) + text("wire") + text(transactional_id)
        body += struct.pack(">hii", -1, 30_000, 1) + text(topic) + struct.pack(">ii", 1, partition)
        body += struct.pack(">i", len(made)) + made
        self._socket.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", self._read(4))
        answer = self._read(size)
        at = 4 + 4 + 2 + len(topic.encode()) + 4 + 4
        error, offset = struct.unpack_from(">hq", answer, at)
        return int(error), int(offset)

    def accepted(self, topic: str, partition: int, made: bytes, **settings: str) -> int:
        """Send a batch that the broker has to accept; its first offset."""
        error, offset = self.send(topic, partition, made, **settings)
        assert error == 0, f"the broker refused the batch with error {error}"
        return offset

    def _read(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            part = self._socket.recv(size - len(out))
            assert part, "the broker closed the connection"
            out += part
        return out


def bomb(codec_number: int, size: int) -> bytes:
    """A batch of one record whose value is `size` zeros."""
    zeros = record(0, bytes(size))
    return batch(zeros, 1, codec_number=codec_number, packed=_pack_fast(codec_number, zeros))


def _pack_fast(codec_number: int, data: bytes) -> bytes:
    if codec_number == GZIP:
        packer = zlib.compressobj(1, wbits=31)
        return packer.compress(data) + packer.flush()
    if codec_number == LZ4:
        fast = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
        fast.compress(data)
        return bytes(fast.finish())
    return pack(codec_number, data)


def poison(kind: str, values: Sequence[bytes] = (b"{}", b"{}")) -> bytes:
    """A batch that a reader cannot unpack, or that readers understand differently; named in `POISON`."""
    data = b"".join(record(i, value) for i, value in enumerate(values))
    count = len(values)
    if kind == "gzip-trailing":
        return batch(data, count, codec_number=GZIP, packed=pack(GZIP, data) + b"garbage")
    if kind == "gzip-members":
        return batch(data, count, codec_number=GZIP, packed=pack(GZIP, data[:7]) + pack(GZIP, data[7:]))
    if kind == "gzip-checksum":
        return batch(data, count, codec_number=GZIP, packed=pack(GZIP, data)[:-8] + bytes(8))
    if kind == "gzip-truncated":
        return batch(data, count, codec_number=GZIP, packed=pack(GZIP, data)[:-9])
    if kind == "xerial-twice":
        return batch(data, count, codec_number=SNAPPY, packed=pack(SNAPPY, data[:9]) + pack(SNAPPY, data[9:]))
    if kind == "lz4-checksum":
        packer = cramjam.lz4.Compressor(level=1, content_checksum=True, block_linked=False)
        packer.compress(data)
        return batch(data, count, codec_number=LZ4, packed=bytes(packer.finish())[:-4] + bytes(4))
    if kind == "lz4-trailing":
        return batch(data, count, codec_number=LZ4, packed=pack(LZ4, data) + b"garbage")
    if kind == "lz4-frames":
        return batch(data, count, codec_number=LZ4, packed=pack(LZ4, data) + pack(LZ4, data))
    if kind == "lz4-truncated":
        return batch(data, count, codec_number=LZ4, packed=pack(LZ4, data)[:-4])
    if kind == "zstd-trailing":
        return batch(data, count, codec_number=ZSTD, packed=pack(ZSTD, data) + b"garbage")
    if kind == "zstd-frames":
        return batch(data, count, codec_number=ZSTD, packed=pack(ZSTD, data[:9]) + pack(ZSTD, data[9:]))
    if kind == "zstd-truncated":
        return batch(data, count, codec_number=ZSTD, packed=pack(ZSTD, data)[:-3])
    if kind == "snappy-trailing":
        return batch(data, count, codec_number=SNAPPY, packed=pack(SNAPPY, data) + bytes(4))
    if kind == "same-offset":
        return batch([record(0, value) for value in values])
    if kind == "far-offset":
        return batch([record(1000 + i, value) for i, value in enumerate(values)])
    if kind == "null-key":
        key = record(0, b"{}").replace(varint(1) + b"k", varint(-5))
        return batch(varint(len(key) - 1) + key[1:], 1)
    if kind == "attributes":
        return batch([record(i, value, attributes=0xFF) for i, value in enumerate(values)])
    if kind == "no-time":
        return batch([record(i, value) for i, value in enumerate(values)], ms=-1)
    raise KeyError(kind)


POISON = (
    "gzip-trailing", "gzip-members", "gzip-checksum", "gzip-truncated", "xerial-twice", "lz4-checksum",
    "lz4-trailing", "lz4-frames", "lz4-truncated", "zstd-trailing", "zstd-frames", "zstd-truncated",
    "snappy-trailing", "same-offset", "far-offset", "null-key", "attributes", "no-time",
)  # fmt: skip


def mutated(random_: random.Random) -> bytes:
    """A batch of a few records that is, more often than not, damaged somewhere, and has a right checksum."""
    count = random_.choice((1, 1, 2, 5, 40))
    codec_number = random_.randrange(5)
    listed = [
        record(
            i,
            random_.choice((b"", None, b"{}", b"x" * random_.randrange(300), random_.randbytes(20))),
            random_.choice((None, b"", b"key")),
            random_.choice(((), ((b"trace", b"1"),), ((b"\xff", None), (b"", b"")))),
        )
        for i in range(count)
    ]
    data = b"".join(listed)
    kind = random_.randrange(9)
    if kind == 1:
        data = flipped(data, random_)
    packed = pack(codec_number, data)
    if kind == 2:
        packed = flipped(packed, random_)
    elif kind == 3:
        packed = packed[: random_.randrange(len(packed) + 1)]
    elif kind == 4:
        packed += random_.randbytes(random_.randrange(1, 12))
    elif kind == 5:
        packed += pack(codec_number, random_.choice((b"", data)))
    made = batch(data, count, codec_number=codec_number, packed=packed)
    if kind == 6:
        made = sealed(made[:21] + flipped(made[21:61], random_) + made[61:])
    elif kind == 7:
        made = poison(random_.choice(POISON))
    elif kind == 8:
        size, last = random_.choice(
            ((5, 0), (5, 0x0F), (5, 0x10), (6, 0), (10, 0), (10, 1), (10, 2), (11, 1))
        )
        made = with_overlong(random_.choice(FIELDS), size, last, attributes=random_.choice((0, 0x80)))
    return made


def flipped(data: bytes, random_: random.Random) -> bytes:
    """The data with one to three bytes changed."""
    out = bytearray(data)
    for _ in range(random_.randrange(1, 4)):
        if out:
            out[random_.randrange(len(out))] = random_.choice(
                (0, 1, 0x7F, 0x80, 0xFF, random_.randrange(256))
            )
    return bytes(out)
