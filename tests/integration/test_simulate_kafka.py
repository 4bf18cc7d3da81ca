"""The simulator on a real Kafka: each event arrives once, keyed by user, in the partition of Kafka's partitioner."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Message, TopicPartition

from streamguard.cli.main import main
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer, ProduceError
from streamguard.simulate import Simulation
from streamguard.testing.broker import free_port

pytestmark = pytest.mark.integration
PARTITIONS = 4


def read_all(servers: str, topic: str, count: int) -> list[Message]:
    """Read `count` records of a topic and all that follow, ordered by partition and offset."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    records: list[Message] = []
    deadline = time.monotonic() + 60
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.consume(5000, timeout=0.5)
    records += consumer.consume(100, timeout=0.5)
    consumer.close()
    assert all(record.error() is None for record in records)
    return sorted(records, key=lambda record: (record.partition(), record.offset()))


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, an independent port of `org.apache.kafka.common.utils.Utils.murmur2`."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if rest := key[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def test_backfill_arrives_completely_with_keys_and_in_order(kafka: str, topics: Callable[..., str]) -> None:
    topic = topics("events", PARTITIONS)
    began = int(time.time() * 1000)
    arguments = ["--days", "30", "--users", "40", "--seed", "6", "--events", "20000", "--start", "2025-01-06"]
    result = CliRunner().invoke(
        main, ["simulate", *arguments, "--bootstrap-servers", kafka, "--topic", topic]
    )
    assert result.exit_code == 0, result.output
    records = read_all(kafka, topic, 20_000)
    assert len(records) == 20_000
    simulation = Simulation(users=40, seed=6, duration_ms=30 * 86_400_000, events=20_000)
    assert sorted(record.value() for record in records) == sorted(event.value for event in simulation)
    last = [0] * PARTITIONS
    for record in records:
        body = msgspec.json.decode(record.value())
        assert record.key() == body["user"].encode()
        assert record.partition() == (murmur2(record.key()) & 0x7FFFFFFF) % PARTITIONS
        assert last[record.partition()] <= body["timestamp"]
        last[record.partition()] = body["timestamp"]
        assert record.timestamp()[1] >= began  # with an older time, retention would delete the record at once


def test_live_events_have_the_current_time(kafka: str, topics: Callable[..., str]) -> None:
    topic = topics("events", PARTITIONS)
    arguments = ["--rate", "300", "--duration", "2s", "--bootstrap-servers", kafka, "--topic", topic]
    began = time.time()
    result = CliRunner().invoke(main, ["simulate", *arguments])
    assert result.exit_code == 0, result.output
    assert time.time() - began > 1.5
    count = int(result.output.partition(" events")[0].split()[-1].replace(",", ""))
    records = read_all(kafka, topic, count)
    assert len(records) == count == pytest.approx(600, rel=0.4)
    for record in records:
        timestamp = msgspec.json.decode(record.value())["timestamp"]
        assert began * 1000 - 50 <= timestamp
        assert timestamp <= record.timestamp()[1] + 5  # an event is not sent before its time


def test_missing_topic_is_an_error_with_its_name(kafka: str) -> None:
    result = CliRunner().invoke(
        main, ["simulate", "--events", "5", "--bootstrap-servers", kafka, "--topic", "nowhere"]
    )
    assert result.exit_code == 78
    assert "has no topic 'nowhere': create it with `streamguard topics create`" in result.output


def test_unreachable_broker_is_an_error_with_its_address() -> None:
    servers = f"127.0.0.1:{free_port()}"
    producer = EventProducer(Brokers(servers), "events", timeout_seconds=2)
    with pytest.raises(ProduceError, match=f"no Kafka answers at {servers}"):
        producer.check(timeout=1)


def test_events_that_no_broker_accepts_are_an_error() -> None:
    servers = f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(ProduceError, match="3 events could not be delivered"),
        EventProducer(Brokers(servers), "events", timeout_seconds=1) as producer,
    ):
        producer.send([("alice", b"{}")] * 3)
