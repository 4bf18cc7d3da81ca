"""A partition read without a consumer, from a broker in this process: ranges, damage, gaps and failures."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from streamguard.errors import ExitCode, StreamGuardError, TemporaryError, UnavailableError
from streamguard.events.event import UNREADABLE, Withheld
from streamguard.kafka.connection import Brokers
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.records import partition_log
from streamguard.records.partition_log import OffsetsGoneError, PartitionLog
from streamguard.records.record import MAX_KEY_BYTES
from tests import wire
from tests.unit.test_agents_damaged_end import Log, damaged, good

Open = Callable[..., PartitionLog]


class Client:
    """Stands for aiokafka's client: answers from the log, or raises the next of the given errors instead."""

    def __init__(self, log: Log, errors: list[Exception]) -> None:
        self.log = log
        self.errors = errors
        self.closed = False
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: 7)

    async def bootstrap(self) -> None:
        pass

    async def set_topics(self, topics: list[str]) -> None:
        assert topics == ["events"]

    async def force_metadata_update(self) -> None:
        pass

    async def send(self, node: int, request: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return await self.log.send(node, request)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Open:
    def open_(log: Log, *errors: Exception, patience: float = 30.0) -> PartitionLog:
        monkeypatch.setattr(partition_log, "AIOKafkaClient", lambda **_: Client(log, list(errors)))
        monkeypatch.setattr(partition_log, "_PAUSE", 0.001)
        return PartitionLog(Brokers("127.0.0.1:9"), "events", 0, patience)

    return open_


def poisoned(base: int) -> bytes:
    return wire.at_offset(wire.poison("gzip-members", [b"{}"] * 3), base)


def read(log: PartitionLog, start: int, end: int) -> list[Any]:
    """Offsets of records, and (first, last) of what cannot be read."""
    with log:
        return [
            (r.value.first, r.value.last) if isinstance(r.value, Withheld) else r.offset
            for r in log.records(start, end)
        ]


def test_unreadable_and_damaged_batches_are_ranges_between_the_records(opened: Open) -> None:
    log = Log([good(0), poisoned(2), good(5), damaged(7), good(9)])
    assert read(opened(log), 0, 11) == [0, 1, (2, 4), 5, 6, (7, 8), 9, 10]


@pytest.mark.parametrize("fetch_bytes", [1, 150, 1 << 20])
@pytest.mark.parametrize("cut", range(12))
def test_two_ranges_contain_each_offset_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch, cut: int, fetch_bytes: int
) -> None:
    monkeypatch.setattr(partition_log, "FETCH_BYTES", fetch_bytes)
    log = Log([poisoned(0), good(3), damaged(5)], [good(7), poisoned(9)])
    log.end = 12
    found = read(opened(log), 0, cut) + read(opened(log), cut, 12)
    listed = [
        o for entry in found for o in ([entry] if isinstance(entry, int) else range(entry[0], entry[1] + 1))
    ]
    assert listed == list(range(12))
    assert [entry for entry in found if isinstance(entry, int)] == [3, 4, 7, 8]


def test_range_that_ends_in_a_gap_before_an_unreadable_batch_ends(opened: Open) -> None:
    log = Log([good(0), poisoned(9)])
    log.end = 12
    assert read(opened(log, patience=0.0), 0, 5) == [0, 1]


def test_check_delivers_only_what_cannot_be_read(opened: Open) -> None:
    log = Log([good(0), poisoned(2), good(5), damaged(7), good(9)])
    with opened(log) as reader:
        found = [r.value for r in reader.unreadable(0, 11)]
    assert [(v.reason, v.first, v.last) for v in found if isinstance(v, Withheld)] == [
        (UNREADABLE, 2, 4),
        (UNREADABLE, 7, 8),
    ]
    assert len(found) == 2


def test_large_records_keep_all_of_their_parts(opened: Open) -> None:
    key, value = b"k" * (MAX_KEY_BYTES + 1), b"v" * (MAX_EVENT_BYTES + 1)
    log = Log([wire.batch([wire.record(0, value, key)], ms=0)])
    log.end = 1
    with opened(log) as reader:
        (record,) = reader.records(0, 1)
    assert (record.key, record.value, record.cut) == (key, value, ())


def test_fetch_is_repeated_after_errors_that_pass(opened: Open) -> None:
    errors = NotLeaderForPartitionError(), KafkaConnectionError("gone")
    assert read(opened(Log([good(0), good(2)]), *errors), 0, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("error", "patience", "kind", "text"),
    [
        (
            OffsetOutOfRangeError({}),
            30.0,
            OffsetsGoneError,
            "has no offset 2 any more, but the plan ends at 3",
        ),
        (
            TopicAuthorizationFailedError("events"),
            30.0,
            UnavailableError,
            "cannot be read at offset 2 of events",
        ),
        (KafkaConnectionError("gone"), 0.0, UnavailableError, "cannot be read at offset 2 of events.*gone"),
    ],
    ids=["expired", "forbidden", "silent"],
)
def test_failure_names_partition_offset_and_remedy(
    opened: Open, error: Exception, patience: float, kind: type[StreamGuardError], text: str
) -> None:
    with pytest.raises(kind, match=rf"^partition 0.*{text}.*run again$"):
        read(opened(Log([good(0), good(2)]), error, patience=patience), 2, 4)


def test_missing_records_are_reported_after_the_patience(opened: Open) -> None:
    log = Log([good(0)])
    with pytest.raises(
        UnavailableError, match="sent no record of events at offset 2 for 0 s, but the plan ends at 8"
    ):
        read(opened(log, patience=0.0), 0, 9)


def test_damage_without_an_end_is_an_error_that_processes_can_exchange(opened: Open) -> None:
    cut = struct.pack(">qi", 2, 30) + bytes(4) + b"\x07" + bytes(25)
    log = Log([good(0), cut])
    log.end = 4
    with pytest.raises(
        TemporaryError, match=r"events is damaged.* partition 0.* offset 2 .*`--until 0:2`"
    ) as raised:
        read(opened(log), 0, 4)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.exit_code) == (str(raised.value), ExitCode.TEMPORARY)


def test_log_that_is_left_early_is_closed(opened: Open) -> None:
    reader = opened(Log([good(0), good(2)]))
    with reader:
        assert next(reader.records(0, 4)).offset == 0
        client: Any = reader._client
    assert client.closed
    assert not reader._thread.is_alive()
