"""Reads a topic of committed records from given offsets on, without a consumer group, for a store that follows it."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamguard.errors import TemporaryError, UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors, metadata

TAKE = 2000
"""Records of one call: their memory is bounded by this number and by the size of a record."""
ANSWER_SECONDS = 10.0
"""How long a broker may take to answer a request."""
GONE = {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET}
"""Errors of a partition whose next record was deleted."""
PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}
"""Errors of a partition that end by themselves."""

Headers = tuple[tuple[str, bytes | None], ...]


class LogRecord(NamedTuple):
    """A committed record.

    Attributes
    ----------
    timestamp
        Time of the record, epoch milliseconds; 0 if it has none.
    headers
        Names and values in their order; empty if a name is not UTF-8, because the client then reads none of them.
    """

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class DeletedError(TemporaryError):
    """Kafka has deleted records that were not read yet, so what follows them has to be read from the new beginning."""


class LogReader:
    """Follows partitions of a topic.

    Transactions that are aborted or still open are not seen. Every partition has a position, the offset of the next
    record; it passes control records, too, so at the end of the log it equals the end that the broker states.

    Parameters
    ----------
    brokers
        The brokers.
    topic
        Name of the topic.
    positions
        Offset of the first record to read, of each partition to read.

    Raises
    ------
    UnavailableError
        If no broker answers.
    """

    def __init__(self, brokers: Brokers, topic: str, positions: Mapping[int, int]) -> None:
        self.topic = topic
        self._errors = ClientErrors()
        self._consumer = Consumer(
            following(brokers, "streamguard-serve")
            | {"error_cb": self._errors, "queued.max.messages.kbytes": 32_768}
        )
        self._positions = dict(positions)
        self._at_end: set[int] = set()
        self.answered = time.monotonic()
        """When a broker last answered: a record or the end of a partition has arrived."""
        self._consumer.assign([TopicPartition(topic, p, offset) for p, offset in positions.items()])

    @property
    def positions(self) -> dict[int, int]:
        """By partition, the offset of the next record."""
        return dict(self._positions)

    @property
    def ended(self) -> frozenset[int]:
        """Partitions that were read to the end that they had at that moment."""
        return frozenset(self._at_end)

    @property
    def at_end(self) -> bool:
        """Whether every partition was read to the end that the log had at that moment."""
        return len(self._at_end) == len(self._positions)

    def take(self, seconds: float) -> list[LogRecord]:
        """The next records, at most `TAKE`, in offset order of each partition; waits for some at most so long.

        Raises
        ------
        DeletedError
            If the next record of a partition was deleted.
        KafkaException
            If the brokers reject a request for good.
        """
        found = []
        # `consume` waits the whole time for `TAKE` records, so the first one is awaited alone.
        first = self._consumer.poll(seconds)
        for message in () if first is None else (first, *self._consumer.consume(TAKE - 1, 0)):
            partition = int(message.partition() or 0)
            error = message.error()
            if error is None:
                found.append(log_record(message, headers_of(message)))
                self._at_end.discard(partition)
                self._positions[partition] = found[-1].offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(partition)
                self._positions[partition] = max(self._positions[partition], int(message.offset() or 0))
            elif error.code() in GONE:
                raise DeletedError(
                    f"Kafka has deleted records of {self.topic} that were not read yet ({error.str()})"
                )
            elif error.code() not in PASSING:
                raise KafkaException(error)
            self.answered = time.monotonic()
        return found

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


def following(brokers: Brokers, client_id: str) -> dict[str, Any]:
    """Configuration of a consumer that reads committed records from given offsets on, and reports ends."""
    return brokers.librdkafka() | {
        "client.id": client_id,
        "group.id": "streamguard-serve",  # required by the client; no offset is ever committed
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 50,
        "topic.metadata.refresh.interval.ms": 30_000,
    }


class Bounds(NamedTuple):
    """The offsets that a partition has: from `start` (inclusive) to `end` (exclusive)."""

    start: int
    end: int


class TopicState(NamedTuple):
    """What the brokers say of a topic.

    Attributes
    ----------
    id
        Kafka's id of the topic; a topic that is deleted and created again has another one.
    bounds
        Committed offsets that each partition has.
    """

    id: str
    bounds: dict[int, Bounds]


def topic_state(
    brokers: Brokers,
    topic: str,
    partitions: Collection[int] | None = None,
    seconds: float = ANSWER_SECONDS,
) -> TopicState | None:
    """Ask the brokers for the id and the bounds of a topic; None if the topic does not exist.

    Parameters
    ----------
    partitions
        Partitions whose bounds are asked for; None: all.
    seconds
        How long the brokers may take to answer each request.

    Raises
    ------
    UnavailableError
        If no broker answers.
    """
    from confluent_kafka import IsolationLevel, TopicCollection
    from confluent_kafka.admin import AdminClient, OffsetSpec

    errors = ClientErrors()
    admin = AdminClient(brokers.librdkafka(error_cb=errors))
    try:
        metadata(brokers, admin, errors, seconds)
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=seconds)[topic].result()
        asked = [p.id for p in described.partitions if partitions is None or p.id in partitions]
        found: list[dict[int, int]] = []
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
            answers: Any = admin.list_offsets(
                {TopicPartition(topic, p): spec for p in asked},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=seconds,
            )
            found.append({tp.partition: answer.result().offset for tp, answer in answers.items()})
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        reason, remedy = errors.reason(
            error.args[0], "check that the brokers answer and that this user may read the topic"
        )
        raise UnavailableError(
            f"Kafka at {brokers} refused a request for {topic} ({reason}): {remedy}"
        ) from None
    starts, ends = found
    return TopicState(str(described.topic_id), {p: Bounds(starts[p], ends[p]) for p in asked})


def log_record(message: Any, headers: Headers = ()) -> LogRecord:
    """A record of a `confluent_kafka` message without an error, with these headers."""
    return LogRecord(
        int(message.partition() or 0),
        int(message.offset() or 0),
        _milliseconds(message.timestamp()),
        message.key(),
        message.value(),
        headers,
    )


def headers_of(message: Any) -> Headers:
    """Headers of a `confluent_kafka` message; none at all if a name is not UTF-8.

    For such a name, the client (2.16) returns a tuple whose first place is a null pointer, and a program that reads
    that place ends with a segmentation fault. Its error is raised by this call or by the next one, or is lost.
    `gc.get_referents` passes over null pointers, so it shows which tuples are whole.
    """
    try:
        found = message.headers()
        if not found:
            return ()
        for pair in found:
            if len(gc.get_referents(pair)) != 2:
                return ()
    except (SystemError, UnicodeDecodeError):
        return ()
    return tuple(found)


def _milliseconds(timestamp: tuple[int, int]) -> int:
    return max(timestamp[1], 0) if timestamp[0] else 0
