"""A batch with a wrong checksum is one dead letter for its offsets, wherever in the log it is."""

from __future__ import annotations

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition

from streamguard.agents.consumer import drain
from streamguard.errors import ExitCode
from streamguard.events.event import Withheld
from streamguard.records.reader import DamagedLogError, Fetched, PartitionRecords
from tests import wire

TP = TopicPartition("events", 0)


class Log:
    """A partition as a broker stores it: it finds an offset by the headers, which it believes even if damaged."""

    def __init__(self, *segments: list[bytes]) -> None:
        self.segments = segments
        self.code = 0
        self.requests = 0
        batches = [made for segment in segments for made in segment]
        self.end = struct.unpack_from(">q", batches[-1])[0] + 2

    def fetch(self, offset: int, size: int) -> bytes:
        starts = [struct.unpack_from(">q", segment[0])[0] for segment in self.segments]
        first = max(i for i, start in enumerate(starts) if start <= offset)
        for segment in self.segments[first:]:
            for i, made in enumerate(segment):
                base, last = *struct.unpack_from(">q", made), *struct.unpack_from(">i", made, 23)
                if base + last >= offset:
                    return b"".join(segment[i:])[: max(size, len(made))]
        return b""

    async def send(self, node: int, request: Any) -> Any:
        assert node == 7
        self.requests += 1
        ((topic, ((partition, offset, size),)),) = request.topics
        data = self.fetch(offset, size) if offset < self.end else b""
        return SimpleNamespace(
            API_VERSION=11, topics=[(topic, [(partition, self.code, self.end, self.end, 0, [], -1, data)])]
        )


def good(base: int) -> bytes:
    return wire.at_offset(wire.batch([wire.record(0, b"a"), wire.record(1, b"b")]), base)


def damaged(base: int, last_delta: int = 1) -> bytes:
    made = bytearray(good(base))
    made[23:27] = last_delta.to_bytes(4, "big", signed=True)
    return bytes(made[:-1]) + b"?"


def read(log: Log, size: int = 1 << 20) -> list[Any]:
    """Contents of the log, or of ranges their first and last offset, as a worker takes them out of its fetcher."""
    state = SimpleNamespace(paused=False, position=0)
    state.consumed_to = lambda position: setattr(state, "position", position)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    cluster = SimpleNamespace(leader_for_partition=lambda _: 7)
    fetcher = SimpleNamespace(
        _records={}, _closed=False, _isolation_level=1, _notify=lambda _: None, _wait_consume_future=None,
        _client=SimpleNamespace(send=log.send, cluster=cluster),
        _subscriptions=SimpleNamespace(reassignment_in_progress=False, is_assigned=lambda _: True),
    )  # fmt: skip
    found: list[Any] = []

    async def run() -> None:
        for _ in range(20):
            if state.position >= log.end:
                return
            if TP not in fetcher._records:
                data = Fetched(log.fetch(state.position, size))
                source = PartitionRecords(TP, data, [], state.position, None, None, True, 1)
                fetcher._records[TP] = FetchResult(
                    TP, assignment=assignment, partition_records=source, backoff=0
                )
            for record in (await drain._taken(fetcher, {TP})).get(TP, []):
                value = record.value
                found.append(
                    (value.first, value.last) if isinstance(value, Withheld) else (record.offset, value)
                )
        pytest.fail(f"the partition stands at {state.position}")

    asyncio.run(run())
    return found


def rows(*bases: int) -> list[Any]:
    return [row for base in bases for row in ((base, b"a"), (base + 1, b"b"))]


@pytest.mark.parametrize("last_delta", [1, 0, 3, 1 << 20], ids=lambda delta: f"claims-{delta}")
@pytest.mark.parametrize("size", [1, 150, 1 << 20])
def test_damaged_batch_is_one_range_and_the_stream_goes_on(size: int, last_delta: int) -> None:
    log = Log([good(0), damaged(2, last_delta), good(4), good(6)])
    assert read(log, size) == [*rows(0), (2, 3), *rows(4, 6)]


@pytest.mark.parametrize("last_delta", [1, 3, 1 << 20], ids=lambda delta: f"claims-{delta}")
def test_last_batch_of_a_segment_ends_where_the_next_segment_begins(last_delta: int) -> None:
    log = Log([good(0), damaged(2, last_delta)], [good(4), good(6)])
    assert read(log) == [*rows(0), (2, 3), *rows(4, 6)]


@pytest.mark.parametrize("last_delta", [1, 3, 1 << 20], ids=lambda delta: f"claims-{delta}")
def test_last_batch_of_the_log_ends_at_the_last_stable_offset(last_delta: int) -> None:
    assert read(Log([good(0), damaged(2, last_delta)])) == [*rows(0), (2, 3)]
    assert read(Log([damaged(0, last_delta)])) == [(0, 1)]


def test_batch_that_a_second_reading_finds_undamaged_is_read() -> None:
    log = Log([good(0), good(2)])
    spoiled, whole = [damaged(2)], log.fetch

    def fetch(offset: int, size: int) -> bytes:
        return spoiled.pop() if offset == 2 and spoiled else whole(offset, size)

    log.fetch = fetch  # type: ignore[method-assign]
    assert read(log, 1) == rows(0, 2)


def test_hidden_batches_before_the_damaged_one_are_passed() -> None:
    marker = wire.batch(
        [wire.record(0, bytes(6), bytes(4))],
        attributes=wire.TRANSACTIONAL | wire.CONTROL,
        producer=(5, 0, -1),
    )
    log = Log([wire.at_offset(marker, 0), wire.at_offset(damaged(0), 1)], [good(3)])
    assert read(log) == [(1, 2), *rows(3)]


def test_damage_that_the_broker_cannot_pass_ends_the_worker_for_a_new_start() -> None:
    log = Log([good(0), damaged(2)], [good(4)])
    log.code = 2
    with pytest.raises(DamagedLogError) as error:
        read(log)
    assert error.value.exit_code == ExitCode.TEMPORARY
