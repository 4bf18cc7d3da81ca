"""What the broker accepts is read as by librdkafka or becomes one dead letter: damaged batches on a real Kafka."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic

from streamguard.agents.consumer import drain
from streamguard.agents.task.changelog import CommittedReader
from streamguard.errors import TemporaryError
from streamguard.events.event import Withheld
from streamguard.kafka.connection import Brokers
from streamguard.records.reader import Fetched, PartitionRecords, install
from streamguard.records.record import Record
from streamguard.testing.broker import LocalKafka
from tests import wire

pytestmark = pytest.mark.integration
BATCHES = 1500
READABLE, UNREADABLE = 0, 1


@pytest.fixture
def topic(kafka: str) -> str:
    name = f"wire-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka})  # it has to live until the answer
    admin.create_topics([NewTopic(name, 2, 1, config={"retention.ms": "-1"})])[name].result(30)
    return name


def alone(made: bytes) -> list[Record]:
    return list(PartitionRecords(TopicPartition("t", 0), Fetched(made), [], 0, None, None, True, 1))


def refused(made: bytes) -> bool:
    return any(isinstance(record.value, Withheld) for record in alone(made))


def by_librdkafka(kafka: str, topic: str, end: int) -> list[tuple[Any, ...]]:
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "wire", "enable.partition.eof": True, "check.crcs": True}
    )
    consumer.assign([Place(topic, READABLE, 0)])
    found = []
    while True:
        message = consumer.poll(30)
        assert message is not None, f"librdkafka stopped after {found[-1:]} of {end}"
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", (message.error(), found[-1:])
            consumer.close()
            return found
        found.append((message.offset(), message.timestamp()[1], message.key(), message.value()))


async def by_this_program(kafka: str, topic: str, partition: int, end: int) -> list[Record]:
    install()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, isolation_level="read_committed", enable_auto_commit=False
    )
    tp = TopicPartition(topic, partition)
    await consumer.start()
    try:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        found: list[Record] = []
        while await consumer.position(tp) < end:
            for records in (await consumer.getmany(tp, timeout_ms=200)).values():
                found += records
        return found
    finally:
        await consumer.stop()


def test_mutated_batches_are_read_as_by_librdkafka_or_refused_as_a_whole(kafka: str, topic: str) -> None:
    chance = random.Random(11)
    ends, sent = {READABLE: 0, UNREADABLE: 0}, {READABLE: 0, UNREADABLE: 0}
    with wire.RawProducer(kafka) as producer:
        for _ in range(BATCHES):
            made = wire.mutated(chance)
            partition = UNREADABLE if refused(made) else READABLE
            error, base = producer.send(topic, partition, made)
            if error == 0:
                sent[partition] += 1
                ends[partition] = base + alone(made)[-1].offset + 1 if alone(made) else ends[partition]
        for partition in ends:
            base = producer.accepted(topic, partition, wire.batch([wire.record(0, b"last")]))
            ends[partition] = base + 1
    assert min(sent.values()) > BATCHES / 20
    wanted = by_librdkafka(kafka, topic, ends[READABLE])
    found = asyncio.run(by_this_program(kafka, topic, READABLE, ends[READABLE]))
    assert [(r.offset, r.timestamp, r.key, r.value) for r in found] == wanted
    ranges = asyncio.run(by_this_program(kafka, topic, UNREADABLE, ends[UNREADABLE]))
    covered = [r.value for r in ranges if isinstance(r.value, Withheld)]
    assert len(covered) == sent[UNREADABLE]
    assert [v.first for v in covered] == [0, *(v.last + 1 for v in covered[:-1])]
    assert covered[-1].last + 1 == ranges[-1].offset == ends[UNREADABLE] - 1


def test_unreadable_changelog_is_refused_with_its_offsets(kafka: str, topic: str) -> None:
    with wire.RawProducer(kafka) as producer:
        producer.accepted(topic, 1, wire.batch([wire.record(0, b"value")]))
        producer.accepted(topic, 1, wire.poison("xerial-twice"))

    async def read() -> list[Any]:
        async with CommittedReader(Brokers(kafka), topic, 1) as reader:
            bounds = await reader.bounds()
            return [changes async for changes, _ in reader.batches(bounds.start, bounds.end)]

    with pytest.raises(TemporaryError, match=rf"partition 1 of {topic} cannot be read at the offsets 1 to 2"):
        asyncio.run(read())


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_unreadable_batch_of_a_transaction_counts_only_if_it_is_committed(
    kafka: str, topic: str, end: str
) -> None:
    async def produce() -> int:
        from aiokafka import AIOKafkaProducer

        name = f"transaction-{uuid.uuid4().hex[:8]}"
        producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=name)
        await producer.start()
        try:
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"first", partition=0)
            state = producer._txn_manager
            made = wire.poison("lz4-checksum")
            made = wire.transactional(made, state.producer_id, state.producer_epoch, 1)
            with wire.RawProducer(kafka) as raw:
                raw.accepted(topic, 0, made, transactional_id=name)
            await (producer.commit_transaction() if end == "commit" else producer.abort_transaction())
        finally:
            await producer.stop()
        plain = AIOKafkaProducer(
            bootstrap_servers=kafka
        )  # the other one does not know of the raw batch's numbers
        await plain.start()
        try:
            return int((await plain.send_and_wait(topic, b"next", partition=0)).offset)
        finally:
            await plain.stop()

    last = asyncio.run(produce())
    records = asyncio.run(by_this_program(kafka, topic, 0, last + 1))
    found = [r.value.count if isinstance(r.value, Withheld) else r.value for r in records]
    assert found == ([b"first", 2, b"next"] if end == "commit" else [b"next"])


def test_batches_that_are_damaged_on_the_brokers_disk_are_one_range_each() -> None:
    async def read(kafka: str, topic: str) -> list[Any]:
        install()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=100,  # each fetch ends with the first batch
        )
        tp = TopicPartition(topic, 0)
        await consumer.start()
        try:
            consumer.assign([tp])
            consumer.seek(tp, 0)
            found: list[Any] = []
            while await consumer.position(tp) < 12:
                with consumer._fetcher._subscriptions.fetch_context():
                    taken = await drain.take(consumer._fetcher, {tp}, 0.2)
                for record in taken.get(tp, []):
                    value = record.value
                    found.append((value.first, value.last) if isinstance(value, Withheld) else record.offset)
            return found
        finally:
            await consumer.stop()

    with LocalKafka() as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        new = NewTopic("damaged", 1, 1, config={"retention.ms": "-1"})
        admin.create_topics([new])["damaged"].result(30)
        made = wire.batch([wire.record(0, b"a"), wire.record(1, b"b")])
        with wire.RawProducer(broker.bootstrap_servers) as producer:
            for _ in range(6):
                producer.accepted("damaged", 0, made)
        (log,) = (broker.directory / "data" / "damaged-0").glob("*.log")
        with log.open("r+b") as file:
            for place, last_delta in ((1, 1), (3, 5), (5, 1 << 20)):
                file.seek(place * len(made) + 23)
                file.write(last_delta.to_bytes(4, "big"))
                file.seek((place + 1) * len(made) - 1)
                file.write(b"?")
        found = asyncio.run(asyncio.wait_for(read(broker.bootstrap_servers, "damaged"), 60))
    assert found == [0, 1, (2, 3), 4, 5, (6, 7), 8, 9, (10, 11)]
