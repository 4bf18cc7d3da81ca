"""Reading of record batches: complete or not at all, in bounded memory, the same at every fetch."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from streamguard.errors import ExitCode
from streamguard.events.event import Withheld
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.records import codecs
from streamguard.records.reader import DamagedLogError, Fetched, PartitionRecords
from streamguard.records.record import MAX_HEADERS_BYTES, MAX_KEY_BYTES, UnreadableError
from tests import wire

UNREADABLE = set(wire.POISON) - {"gzip-trailing", "zstd-frames", "attributes", "no-time"}


def read(data: bytes, start: int = 0, aborted: Any = ()) -> tuple[list[Any], int]:
    """(records, next position)."""
    source = PartitionRecords(TopicPartition("t", 3), Fetched(data), aborted, start, None, None, True, 1)
    return list(source), source.next_fetch_offset


def contents(data: bytes, start: int = 0) -> list[Any]:
    """Offset and value of each record; of a range that cannot be read, its first and last offset."""
    return [
        (r.value.first, r.value.last) if isinstance(r.value, Withheld) else (r.offset, r.value)
        for r in read(data, start)[0]
    ]


def good(base: int, *values: bytes, **settings: Any) -> bytes:
    listed = [wire.record(i, value) for i, value in enumerate(values)]
    return wire.at_offset(wire.batch(listed, **settings), base)


@pytest.mark.parametrize("codec", wire.CODECS.values(), ids=wire.CODECS)
@pytest.mark.parametrize("odd", [[0], [2], [1, 3], []])
def test_every_record_is_read_once_and_in_order_whatever_its_header_names(odd: list[int], codec: int) -> None:
    names = [b"x\xff" if i in odd else b"trace" for i in range(4)]
    listed = [
        wire.record(i, b"value %d" % i, b"key", [(name, b"\xff"), (b"n", None)])
        for i, name in enumerate(names)
    ]
    records, end = read(wire.batch(listed, codec_number=codec) + good(4, b"value 0", codec_number=codec))
    assert [r.value for r in records] == [b"value 0", b"value 1", b"value 2", b"value 3", b"value 0"]
    assert [list(r.headers) for r in records[:4]] == [
        [("x\\xff" if i in odd else "trace", b"\xff"), ("n", None)] for i in range(4)
    ]
    assert all(r.key == b"key" and r.timestamp == 1_700_000_000_000 for r in records[:4])
    assert end == 5


@pytest.mark.parametrize("kind", wire.POISON)
def test_poisonous_batch_is_read_completely_or_becomes_one_range(kind: str) -> None:
    poison = wire.poison(kind)
    count = 1 if kind == "null-key" else 2
    for place in range(3):
        parts = [good(0, b"a", b"b"), good(2, b"c")]
        parts.insert(place, poison)
        starts = [0, count, count + 2] if place == 0 else [0, 2, 2 + count] if place == 1 else [0, 2, 3]
        data = b"".join(wire.at_offset(part, start) for part, start in zip(parts, starts, strict=True))
        expected = [[(0, b"a"), (1, b"b")], [(0, b"c")]]
        expected.insert(place, [(0, count - 1)] if kind in UNREADABLE else [(0, b"{}"), (1, b"{}")])
        wanted = [
            (a + start, b + start if isinstance(b, int) else b)
            for start, rows in zip(starts, expected, strict=True)
            for a, b in rows
        ]
        assert contents(data) == wanted
        assert read(data)[1] == 3 + count


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=list(wire.CODECS)[1:])
def test_bomb_is_refused_and_its_size_is_never_allocated(codec: int) -> None:
    packed = memoryview(wire.bomb(codec, 3 << 20))[61:]
    with pytest.raises(UnreadableError, match="unpacks to more than 1048576 bytes"):
        codecs.unpack(codec, packed, limit=1 << 20)
    assert len(codecs.unpack(codec, packed, limit=4 << 20)) > 3 << 20


def test_frame_that_zstd_skips_states_no_size() -> None:
    skipped = (
        struct.pack("<II", 0x184D2A50, 0xC0) + b"\xff" * 0xC0
    )  # its size looks like the header of a frame
    packed = skipped + wire.pack(wire.ZSTD, bytes(8 << 20))
    assert len(codecs.unpack(wire.ZSTD, memoryview(packed))) == 8 << 20
    with pytest.raises(UnreadableError, match="unpacks to more than"):
        codecs.unpack(wire.ZSTD, memoryview(packed), limit=4 << 20)


@pytest.mark.parametrize("codec", [wire.GZIP, wire.ZSTD])
def test_bomb_is_refused_with_less_memory_than_the_limit(codec: int) -> None:
    code = """
import re, sys
from pathlib import Path
from streamguard.records import codecs
from tests import wire
packed = memoryview(sys.stdin.buffer.read())
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
try:
    codecs.unpack(int(sys.argv[1]), packed, limit=256 << 20)
except codecs.UnreadableError as error:
    print(peak() - before, error)
"""
    packed = wire.bomb(codec, 300 << 20)[61:]
    command = [sys.executable, "-c", code, str(codec)]
    ran = subprocess.run(command, input=packed, capture_output=True, check=True)
    kilobytes, _, message = ran.stdout.decode().partition(" ")
    assert "unpacks to more than" in message
    assert int(kilobytes) < 32 << 10


def test_snappy_block_that_claims_gigabytes_is_refused() -> None:
    claims = bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0, 0])
    with pytest.raises(UnreadableError, match="claim to unpack to 4294967295"):
        codecs.unpack(wire.SNAPPY, memoryview(claims))


def test_wrong_checksum_is_one_range_whose_end_is_the_next_batch() -> None:
    first, last = good(7, b"a", b"b"), good(9, b"c")
    damaged = first[:-1] + b"?"
    assert contents(damaged + last, 7) == [(7, 8)]
    assert read(damaged + last, 7)[1] == 9
    far = bytearray(damaged)
    far[23:27] = (5_000_000).to_bytes(
        4, "big"
    )  # the last offset, which the wrong checksum no longer protects
    assert read(bytes(far) + last, 7)[1] == 9
    assert contents(damaged + wire.at_offset(damaged, 9) + good(12, b"d"), 7) == [(7, 11)]
    for alone in (damaged, bytes(far), damaged + last[:-1], damaged + damaged):
        with pytest.raises(
            DamagedLogError, match="partition 3, the end of the batch at offset 7 is unknown"
        ) as error:
            read(alone, 7)
        assert error.value.exit_code == ExitCode.TEMPORARY


@pytest.mark.parametrize("length", [0, 5, -1, 1 << 30])
def test_damaged_length_is_reported_or_passed_but_never_read_forever(length: int) -> None:
    made = bytearray(good(0, b"a") + good(1, b"b"))
    made[8:12] = length.to_bytes(4, "big", signed=True)
    try:
        records, end = read(bytes(made))
    except DamagedLogError:
        return
    assert end == 1
    assert isinstance(records[0].value, Withheld)


def test_batch_that_the_broker_cut_off_is_left_for_the_next_fetch() -> None:
    data = good(0, b"a") + good(1, b"b")
    for size in range(len(good(0, b"a")), len(data)):
        assert read(data[:size]) == read(good(0, b"a"))


def test_fetch_that_begins_inside_a_batch_delivers_the_rest() -> None:
    assert contents(good(10, b"a", b"b", b"c"), 11) == [(11, b"b"), (12, b"c")]
    poison = wire.at_offset(wire.poison("lz4-checksum"), 10)
    assert contents(poison, 11) == [(10, 11)]
    assert contents(poison, 12) == []


def test_empty_batches_and_offsets_without_records_are_passed() -> None:
    compacted = wire.at_offset(wire.batch([wire.record(3, b"d"), wire.record(8, b"i")], last_delta=9), 20)
    emptied = wire.at_offset(wire.batch(b"", 0, last_delta=4, codec_number=wire.GZIP, packed=b""), 30)
    assert contents(compacted + emptied + good(35, b"z"), 20) == [(23, b"d"), (28, b"i"), (35, b"z")]
    assert read(emptied, 30) == ([], 35)


def marker(base: int, kind: bytes, producer: int) -> bytes:
    key = bytes([0, 0, 0, kind != b"abort"])
    attributes = wire.TRANSACTIONAL | wire.CONTROL
    made = wire.batch([wire.record(0, bytes(6), key)], attributes=attributes, producer=(producer, 0, -1))
    return wire.at_offset(made, base)


def test_aborted_transaction_is_not_delivered_even_if_it_cannot_be_unpacked() -> None:
    poison = bytearray(wire.poison("lz4-checksum"))
    poison[22] |= wire.TRANSACTIONAL
    poison[43:51] = (5).to_bytes(8, "big")
    in_transaction = wire.at_offset(wire.sealed(bytes(poison)), 1)
    tail = (
        marker(3, b"abort", 5) + wire.at_offset(in_transaction, 4) + marker(6, b"commit", 5) + good(7, b"b")
    )
    data = good(0, b"a") + in_transaction + tail
    records, end = read(data, aborted=[(5, 1)])
    assert [(r.offset, getattr(r.value, "first", r.value)) for r in records] == [(0, b"a"), (5, 4), (7, b"b")]
    assert end == 8


def test_parts_too_large_to_keep_are_removed_and_named() -> None:
    large = wire.record(
        0, b"v" * (MAX_EVENT_BYTES + 1), b"k" * (MAX_KEY_BYTES + 1), [(b"h", bytes(MAX_HEADERS_BYTES))]
    )
    (record, small), _ = read(wire.batch([large, wire.record(1, b"v")]))
    assert (record.key, record.headers, record.cut) == (b"", [], ("key", "headers"))
    assert (record.value.reason, record.value.size, record.value.count) == (
        "too_large",
        MAX_EVENT_BYTES + 1,
        1,
    )
    assert (small.value, small.key, small.cut) == (b"v", b"k", ())


@pytest.mark.parametrize("headers", [100_001, (1 << 31) - 1])
def test_flood_of_headers_is_refused_before_objects_are_made(headers: int) -> None:
    body = bytes([0, 0, 0, 1, 1]) + wire.varint(headers) + bytes(2 * min(headers, 100_001))
    made = wire.batch(wire.varint(len(body)) + body, 1)
    (record,), end = read(made)
    assert "more than 100000 headers" in record.value.detail
    assert end == 1


@pytest.mark.parametrize("attributes", [0, 0x80], ids=["fast", "slow"])
@pytest.mark.parametrize("field", wire.FIELDS)
def test_number_with_more_bytes_or_bits_than_its_type_is_unreadable(field: str, attributes: int) -> None:
    most, bits = (10, 2) if field == "time" else (5, 0x10)
    for size, last in ((most, bits), (most, 0x7F), (most + 1, 0), (10, 0x7E), (11, 0x7F)):
        made = wire.with_overlong(field, size, last, attributes=attributes)
        (record, _), end = read(made + good(1, b"z"))
        assert isinstance(record.value, Withheld), (size, last)
        assert "a number with more bytes or bits than its type" in record.value.detail
        assert (record.offset, end) == (0, 2)
    assert contents(wire.with_overlong(field, most, attributes=attributes)) == [(0, b"{}")]


@pytest.mark.parametrize("magic", [0, 1])
def test_message_sets_of_old_brokers_are_read(magic: int) -> None:
    inner = [wire.message(b"%d" % i, (i if magic else i + 5), magic=magic) for i in range(3)]
    for codec in (1, 2, 3)[: 2 + magic]:
        outer = wire.message(wire.pack(codec, b"".join(inner)), 7, magic=magic, attributes=codec)
        data = wire.message(b"a", 4, magic=magic) + outer + wire.message(None, 8, magic=magic)
        assert contents(data, 4) == [(4, b"a"), (5, b"0"), (6, b"1"), (7, b"2"), (8, None)]
        assert contents(data, 6) == [(6, b"1"), (7, b"2"), (8, None)]
        broken = wire.message(wire.pack(codec, b"".join(inner))[:-3], 7, magic=magic, attributes=codec)
        assert contents(broken + wire.message(b"z", 8, magic=magic), 5) == [(5, 7), (8, b"z")]


def test_mutated_batches_give_the_same_result_twice_and_account_for_every_offset() -> None:
    chance = random.Random(7)
    for _ in range(3000):
        made = wire.mutated(chance)
        before = made
        try:
            records, end = read(made + wire.at_offset(wire.batch([wire.record(0, b"z")]), 1 << 40))
        except DamagedLogError:
            continue
        assert made == before
        assert end == (1 << 40) + 1
        offsets = [r.offset for r in records]
        assert offsets == sorted(set(offsets))
        whole = [r for r in records if isinstance(r.value, Withheld) and r.value.reason == "unreadable_batch"]
        assert len(whole) <= 1 and (not whole or len(records) == 2)
