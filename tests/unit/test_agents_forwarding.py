"""Which events workers forward to the sources topic, in what records, and what the second fold publishes of them."""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import numpy as np
import pytest

from streamguard.agents.output.forwarding import (
    BATCH_BYTES,
    FULL_BYTES,
    OVERHEAD_BYTES,
    Destination,
    ForwardedBatch,
    Forwarding,
    _place,
)
from streamguard.agents.output.source_incidents import source_incident
from streamguard.alerts.incident import Entity, Incident, Origin
from streamguard.history.partitioner import partition_of
from streamguard.metrics import FORWARDED_TOO_LARGE
from streamguard.records.record import Record
from streamguard.state.partition import Folded
from tests.streams import START, Partition, event
from tests.unit.test_campaigns import NOON, spray

PARTITIONS = 8
TOPIC = Destination("sources", PARTITIONS, 4 << 20)


def record(value: bytes, offset: int = 0, timestamp: int = START, **more: Any) -> Record:
    return Record("events", 3, offset, timestamp, b"ann", value, **more)


def folded(records: list[Record]) -> Folded:
    offsets = np.array([one.offset for one in records])
    return Partition().state.fold([one.value for one in records], offsets)  # type: ignore[misc]


def forwarded(*values: bytes, destination: Destination | None = TOPIC) -> list[ForwardedBatch]:
    records = [record(value, offset) for offset, value in enumerate(values, 100)]
    forwarding = Forwarding(destination)
    forwarding.add(records, folded(records))
    return forwarding.take()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("auth_attempt", {"status": "failed"}),
        ("auth_attempt", {"status": "success"}),
        ("auth_attempt", {}),
        ("file_access", {"status": "denied"}),
    ],
)
def test_failure_or_login_with_an_address_is_forwarded_as_it_is(kind: str, fields: dict[str, str]) -> None:
    value = event(START, "ann", kind, source_ip="203.0.113.9", **fields)
    ((topic, partition, ((key, body, timestamp, headers, _),)),) = forwarded(value)
    assert (topic, key, body, timestamp) == ("sources", b"203.0.113.9", value, START)
    assert partition == partition_of(b"203.0.113.9", PARTITIONS)
    assert headers == [("sg.topic", b"events"), ("sg.partition", b"3"), ("sg.offset", b"100")]


@pytest.mark.parametrize(
    "value",
    [
        event(START, "ann", "auth_attempt", status="failed"),  # without an address
        event(START, "ann", "auth_attempt", status="failed", source_ip="-"),
        event(START, "ann", "file_access", status="success", source_ip="203.0.113.9"),
        event(START, "ann", "dns_query", source_ip="203.0.113.9"),
        b"no event",
    ],
)
def test_other_records_are_not_forwarded(value: bytes) -> None:
    assert forwarded(value) == []


def test_nothing_is_forwarded_without_a_destination() -> None:
    value = event(START, source_ip="203.0.113.9", status="failed")
    assert forwarded(value) and forwarded(value, destination=None) == []


def test_key_is_one_spelling_of_the_address() -> None:
    spellings = ("192.0.2.10", "192.0.2.10:4711", "::ffff:192.0.2.10", " 192.0.2.10 ")
    (batch,) = forwarded(*(event(START, f"u{k}", source_ip=text) for k, text in enumerate(spellings)))
    assert [one.key for one in batch.records] == [b"192.0.2.10"] * 4


def test_address_without_an_end_is_shortened_in_the_key() -> None:
    cached = _place.cache_info().currsize
    ((_, _, (one,)),) = forwarded(event(START, source_ip="x" * 100_000))
    assert len(one.key) < 1000
    assert _place.cache_info().currsize == cached, "a sender must not fill the memory"


def test_private_fields_and_headers_of_senders_stay_behind_and_decisions_are_not_events() -> None:
    records = [
        record(event(START, source_ip="203.0.113.9"), headers=[("sg.offset", b"1"), ("trace", b"1")]),
        record(b"{}", 1),
    ]
    forwarding = Forwarding(TOPIC)
    forwarding.add(records, folded(records))
    ((_, _, (one,)),) = forwarding.take()
    assert dict(one.headers) == {"sg.topic": b"events", "sg.partition": b"3", "sg.offset": b"0"}


def test_records_are_taken_once_and_in_order() -> None:
    values = [event(START + k, f"u{k}", source_ip=f"203.0.113.{k % 9}") for k in range(50)]
    records = [record(value, offset) for offset, value in enumerate(values)]
    forwarding = Forwarding(TOPIC)
    forwarding.add(records[:20], folded(records[:20]))
    forwarding.add(records[20:], folded(records[20:]))
    batches = forwarding.take()
    assert forwarding.take() == [] and forwarding.size == 0
    taken = [one.value for batch in batches for one in batch.records]
    assert sorted(taken) == sorted(values)
    for batch in batches:
        offsets = [int(dict(one.headers)["sg.offset"] or b"") for one in batch.records]
        assert offsets == sorted(offsets)
        assert {partition_of(one.key, PARTITIONS) for one in batch.records} == {batch.partition}


@pytest.mark.parametrize(("limit", "expected"), [(4 << 20, BATCH_BYTES), (200_000, 200_000)])
def test_batches_fit_into_the_topic_and_into_the_producer(limit: int, expected: int) -> None:
    wide = [event(START, f"u{k}", source_ip="203.0.113.9", note="x" * 90_000) for k in range(40)]
    batches = forwarded(*wide, destination=Destination("sources", PARTITIONS, limit))
    assert sum(len(batch.records) for batch in batches) == 40
    assert all(sum(one.size for one in batch.records) <= expected for batch in batches)
    assert min(len(batch.records) for batch in batches[:-1]) == expected // (90_000 + OVERHEAD_BYTES + 200)


def test_record_that_is_too_large_for_the_topic_is_counted_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = FORWARDED_TOO_LARGE._value.get()
    large = event(START, "ann", source_ip="203.0.113.9", note="x" * 50_000)
    small = event(START, "bob", source_ip="203.0.113.9")
    with caplog.at_level(logging.WARNING):
        ((_, _, (one,)),) = forwarded(large, small, destination=Destination("sources", PARTITIONS, 40_000))
    assert one.value == small
    assert FORWARDED_TOO_LARGE._value.get() == before + 1
    assert "the event at offset 100 of partition 3" in caplog.text and "topics create --alter" in caplog.text


def test_a_checkpoint_is_due_when_many_bytes_are_held() -> None:
    forwarding = Forwarding(TOPIC)
    value = event(START, source_ip="203.0.113.9", note="x" * 1_000_000)
    one = [record(value)]
    chunk = folded(one)
    while not forwarding.full:
        assert forwarding.size < FULL_BYTES
        forwarding.add(one, chunk)
    assert not forwarding.overfull
    while not forwarding.overfull:
        forwarding.add(one, chunk)
    assert forwarding.size < 2 * FULL_BYTES + 2_000_000
    forwarding.take()
    assert not forwarding.full


# What the second fold publishes


def incident(kind: str) -> Incident:
    return msgspec.structs.replace(
        spray(NOON, ["a"])[0],
        id="5-77-18c2f0a1b40",
        entity=Entity(kind, "203.0.113.9"),  # type: ignore[arg-type]
        origin=Origin("sources", 5, 80),
    )


HEADERS = [("sg.topic", b"events"), ("sg.partition", b"3"), ("sg.offset", b"1234")]


def test_incident_of_a_source_has_its_own_id_and_the_origin_of_the_event() -> None:
    of_source = Record("sources", 5, 80, START, b"203.0.113.9", b"{}", headers=HEADERS)
    found = source_incident(incident("source"), of_source)
    assert found is not None
    published, where = found
    assert published.id == "s5-77-18c2f0a1b40"
    assert published.origin == Origin("events", 3, 1234)
    assert (where.topic, where.partition, where.offset, where.timestamp) == ("events", 3, 1234, START)


@pytest.mark.parametrize("kind", ["user", "crowd"])
def test_incidents_of_users_and_the_crowd_are_left_to_the_first_fold(kind: str) -> None:
    of_source = Record("sources", 5, 80, START, b"203.0.113.9", b"{}", headers=HEADERS)
    assert source_incident(incident(kind), of_source) is None


@pytest.mark.parametrize(
    "headers",
    [[], HEADERS[:2], [("sg.topic", None), *HEADERS[1:]], [*HEADERS[:2], ("sg.offset", b"-3")],
     [HEADERS[0], ("sg.partition", b"\xff"), HEADERS[2]], [("sg.topic", b"\xff"), *HEADERS[1:]]],
)  # fmt: skip
def test_record_of_a_stranger_without_an_origin_keeps_its_own(headers: list[Any]) -> None:
    stranger = Record("sources", 5, 80, START, b"203.0.113.9", json.dumps({}).encode(), headers=headers)
    found = source_incident(incident("source"), stranger)
    assert found is not None
    assert (found[0].id, found[0].origin) == ("s5-77-18c2f0a1b40", Origin("sources", 5, 80))
