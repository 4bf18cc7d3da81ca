"""Reads a topic once from its beginning to its present end, and writes single records to a partition."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.kafka.topics import TopicsMismatchError

TIMEOUT_SECONDS = 30.0
"""How long a broker may take to answer a request or to send the next record."""
_TAKE_SECONDS = 0.1
"""How long the client collects records; it waits so long even if some have arrived."""


def described(brokers: Brokers, topic: str) -> tuple[str, int]:
    """Kafka's id of a topic, and the number of its partitions.

    Raises
    ------
    UnavailableError
        If no broker answers.
    TopicsMismatchError
        If the topic does not exist.
    """
    errors = ClientErrors()
    admin = AdminClient(brokers.librdkafka(error_cb=errors))
    with explained(brokers, topic, errors):
        metadata(brokers, admin, errors, TIMEOUT_SECONDS)
        found = admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_SECONDS)[
            topic
        ].result()
        return str(found.topic_id), len(found.partitions)


class Bounds(NamedTuple):
    """The offsets that a partition has: from `start` (inclusive) to `end` (exclusive)."""

    start: int
    end: int


class TopicRecord(NamedTuple):
    """A committed record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def values(brokers: Brokers, topic: str) -> Iterator[bytes]:
    """Values of the committed records that a topic has now; errors as in `described`."""
    for record in records(brokers, topic):
        if record.value is not None:
            yield record.value


def bounds(brokers: Brokers, topic: str) -> dict[int, Bounds]:
    """The offsets that each partition has now; errors as in `described`."""
    errors = ClientErrors()
    consumer = _consumer(brokers, errors)
    try:
        with explained(brokers, topic, errors):
            return _bounds(brokers, consumer, topic, errors)
    finally:
        consumer.close()


def _consumer(brokers: Brokers, errors: ClientErrors) -> Consumer:
    return Consumer(
        brokers.librdkafka(error_cb=errors)
        | {
            "group.id": "streamguard-decide",  # required by the client; no offset is ever committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )


def _bounds(brokers: Brokers, consumer: Consumer, topic: str, errors: ClientErrors) -> dict[int, Bounds]:
    cluster = metadata(brokers, consumer, errors, TIMEOUT_SECONDS, topic)
    if (error := cluster.topics[topic].error) is not None:
        raise KafkaException(error)
    return {
        p: Bounds(*consumer.get_watermark_offsets(TopicPartition(topic, p), TIMEOUT_SECONDS))
        for p in sorted(cluster.topics[topic].partitions)
    }


def records(brokers: Brokers, topic: str) -> Iterator[TopicRecord]:
    """The committed records that a topic has now; errors as in `described`."""
    errors = ClientErrors()
    consumer = _consumer(brokers, errors)
    try:
        with explained(brokers, topic, errors):
            found = _bounds(brokers, consumer, topic, errors)
            consumer.assign([TopicPartition(topic, p, one.start) for p, one in found.items()])
            open_partitions, answered = set(found), time.monotonic()
            while open_partitions:
                messages = consumer.consume(1000, _TAKE_SECONDS)
                if messages:
                    answered = time.monotonic()
                elif time.monotonic() - answered > TIMEOUT_SECONDS:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                for message in messages:
                    error = message.error()
                    if error is None:
                        yield TopicRecord(
                            int(message.partition() or 0),
                            int(message.offset() or 0),
                            message.key(),
                            message.value(),
                        )
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_partitions.discard(message.partition())
                    else:
                        raise KafkaException(error)
    finally:
        consumer.close()


def write_all(
    brokers: Brokers, topic: str, partition: int, changes: Iterable[tuple[bytes, bytes | None]]
) -> None:
    """Write records in this order, None as a deletion, and wait for all replicas; errors as in `described`.

    After an error, the first ones may have been written.
    """
    errors, failed = ClientErrors(), list[KafkaError]()
    producer = _producer(brokers, errors)

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    with explained(brokers, topic, errors):
        for key, value in changes:
            while True:
                try:
                    producer.produce(topic, value, key, partition=partition, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
        if producer.flush(2 * TIMEOUT_SECONDS) and not failed:
            failed.append(KafkaError(KafkaError._TIMED_OUT))
        if failed:
            raise KafkaException(failed[0])


def _producer(brokers: Brokers, errors: ClientErrors) -> Producer:
    return Producer(
        brokers.librdkafka(error_cb=errors)
        | {
            "client.id": "streamguard-decide",
            "enable.idempotence": True,
            "message.timeout.ms": int(TIMEOUT_SECONDS * 1000),
            "allow.auto.create.topics": False,
        }
    )


def write(
    brokers: Brokers, topic: str, partition: int, key: bytes | None, value: bytes, header: tuple[str, bytes]
) -> int:
    """Write one record to a partition, wait for all replicas, and return its offset; errors as in `described`."""
    errors, answers = ClientErrors(), list[tuple[KafkaError | None, Message]]()
    producer = _producer(brokers, errors)
    with explained(brokers, topic, errors):
        producer.produce(
            topic,
            value,
            key,
            partition=partition,
            headers=[header],
            on_delivery=lambda error, message: answers.append((error, message)),
        )
        producer.flush(2 * TIMEOUT_SECONDS)
        error, message = answers[0] if answers else (KafkaError(KafkaError._TIMED_OUT), None)
        if error is not None or message is None:
            raise KafkaException(error)
        return int(message.offset() or 0)


@contextmanager
def explained(brokers: Brokers, topic: str, errors: ClientErrors) -> Iterator[None]:
    """Convert an exception of the client to an error that states the reason and a remedy; errors as in `described`."""
    try:
        yield
    except KafkaException as error:
        code = error.args[0].code() if error.args and isinstance(error.args[0], KafkaError) else None
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise TopicsMismatchError(
                f"Kafka at {brokers} has no topic {topic}: run `streamguard topics create`, or correct the settings"
            ) from None
        reason, remedy = errors.reason(
            error.args[0], "check that the brokers answer and that this user may read and write the topic"
        )
        raise UnavailableError(
            f"Kafka at {brokers} refused a request for {topic} ({reason}): {remedy}"
        ) from None
