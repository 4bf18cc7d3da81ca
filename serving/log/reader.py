"""Reads a topic of committed records from given offsets on, without a consumer group, for a store that follows it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamguard.errors import TemporaryError, UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.records.partition_log import OffsetsGoneError
from streamguard.serving.log.damage import past
from streamguard.serving.log.record import LogRecord, headers_of, log_record
from streamguard.text import counted

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
DAMAGED = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG}
"""Errors of a partition whose next batch cannot be read."""
REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
"""Errors that say that this user may not read."""
STALL_SECONDS = 5.0
"""Time without a record, and without the end, after which a partition is looked at: the client repeats the request for
some damaged batches for ever, and says nothing."""

_log = logging.getLogger(__name__)


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

    Attributes
    ----------
    unreadable
        Number of offsets that were passed over so far, because their batches are damaged.
    """

    def __init__(self, brokers: Brokers, topic: str, positions: Mapping[int, int]) -> None:
        self.topic = topic
        self.unreadable = 0
        self._brokers = brokers
        self._errors = ClientErrors()
        self._consumer = Consumer(
            following(brokers, "streamguard-serve")
            | {"error_cb": self._errors, "queued.max.messages.kbytes": 32_768}
            | {"check.crcs": True}  # a damaged batch is noticed, as the worker notices it
        )
        self._positions = dict(positions)
        self._at_end: set[int] = set()
        self._repaired: set[int] = set()
        """Partitions that were read past a damaged batch, and have had no record since."""
        self.answered = time.monotonic()
        """When a broker last answered: a record or the end of a partition has arrived."""
        self._moved = dict.fromkeys(positions, self.answered)
        """When a partition last had a record, or its end."""
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
        UnavailableError
            If the brokers reject a request for good, such as for a missing right.
        """
        found: list[LogRecord] = []
        damaged: set[int] = set()
        # `consume` waits the whole time for `TAKE` records, so the first one is awaited alone.
        first = self._consumer.poll(seconds)
        for message in () if first is None else (first, *self._consumer.consume(TAKE - 1, 0)):
            partition = int(message.partition() or 0)
            error = message.error()
            if partition in damaged:
                continue  # it was fetched behind what is to be passed over, and is read again
            if error is None:
                found.append(log_record(message, headers_of(message)))
                self._at_end.discard(partition)
                self._repaired.discard(partition)
                self._positions[partition] = found[-1].offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(partition)
                self._positions[partition] = max(self._positions[partition], int(message.offset() or 0))
            elif error.code() in GONE and partition in self._repaired:
                continue  # the client asked behind the damaged batch; if it is true, the partition stalls and is read
            elif error.code() in GONE:
                raise DeletedError(
                    f"Kafka has deleted records of {self.topic} that were not read yet ({error.str()})"
                )
            elif error.code() in DAMAGED:
                damaged.add(partition)
            elif error.code() not in PASSING:
                raise self._refused(error)
            self.answered = self._moved[partition] = time.monotonic()
        stalled = time.monotonic() - STALL_SECONDS
        for partition in self._positions.keys() - self._at_end:
            if partition in damaged or self._moved[partition] < stalled:
                found += self._past_damage(partition)
        return found

    def _past_damage(self, partition: int) -> list[LogRecord]:
        """Read a partition on with the worker's reader, up to a damaged batch and past it."""
        # Behind a damaged batch, the client would ask for offsets that the topic does not have.
        self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        try:
            return self._read_past(partition, self._positions[partition])
        finally:
            place = TopicPartition(self.topic, partition, self._positions[partition])
            self._consumer.incremental_assign([place])
            self._moved[partition] = time.monotonic()
            self._repaired.add(partition)

    def _read_past(self, partition: int, start: int) -> list[LogRecord]:
        try:
            state = topic_state(self._brokers, self.topic, {partition})
            end = state.bounds[partition].end if state is not None and partition in state.bounds else 0
            if end <= start:
                return []
            passed = past(self._brokers, self.topic, partition, start, end, TAKE)
        except UnavailableError as error:  # whoever compares the topic with the brokers learns it, too
            _log.warning("%s", error)
            return []
        except OffsetsGoneError as error:
            raise DeletedError(str(error)) from None
        if passed.unreadable:
            self.unreadable += passed.unreadable
            _log.error(
                "partition %d of %s: %s before offset %d cannot be read (%s), and are passed over",
                partition,
                self.topic,
                counted(passed.unreadable, "record"),
                passed.position,
                passed.reason,
            )
        self._positions[partition] = passed.position
        return passed.records

    def _refused(self, error: KafkaError) -> UnavailableError:
        if error.code() in REFUSED:
            return UnavailableError(
                f"Kafka at {self._brokers} does not let this user read {self.topic} ({error.str()}): grant the rights "
                "that `streamguard topics acls serve User:NAME` prints"
            )
        reason, remedy = self._errors.reason(error, "check the brokers")
        return UnavailableError(f"Kafka at {self._brokers} cannot read {self.topic} ({reason}): {remedy}")

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
