"""Sends events to Kafka with an idempotent producer, keyed by user and partitioned as by Kafka's Java client."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.kafka.topics import TopicsMismatchError
from streamguard.text import counted


class ProduceError(UnavailableError):
    """Events could not be delivered; the message names the topic, the reason and the number of events."""


class EventProducer:
    """Produces (user, value) records to one topic. On exit, the context manager waits for the acknowledgements.

    Parameters
    ----------
    brokers
        Brokers of the topic.
    topic
        An existing topic.
    linger_ms
        How long a record may wait for others of its batch: 0 for live events, more for a back-fill.
    timeout_seconds
        How long an event may wait for its acknowledgement.

    Raises
    ------
    ProduceError
        If the broker does not answer, or refuses a record.
    """

    def __init__(
        self, brokers: Brokers, topic: str, *, linger_ms: float = 5.0, timeout_seconds: float = 60.0
    ) -> None:
        self._topic = topic
        self._brokers = brokers
        self._errors = ClientErrors()
        self._failed = 0
        self._error: KafkaError | None = None
        self._producer = Producer(
            brokers.librdkafka()
            | {
                "error_cb": self._errors,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "batch.size": 524_288,
                "queue.buffering.max.messages": 200_000,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
                "message.timeout.ms": int(timeout_seconds * 1000),
                "allow.auto.create.topics": False,
            }
        )

    def check(self, timeout: float = 10.0) -> None:
        """Check that a broker answers and has the topic.

        Parameters
        ----------
        timeout
            Seconds to wait for a broker.

        Raises
        ------
        ProduceError
            If no broker answers, or the broker refuses to describe the topic.
        TopicsMismatchError
            If the topic does not exist.
        """
        try:
            cluster = metadata(self._brokers, self._producer, self._errors, timeout, self._topic)
            found = cluster.topics[self._topic]
        except KafkaException as error:
            reason, remedy = self._errors.reason(
                error.args[0],
                "start one with `streamguard broker`, or name another one with --bootstrap-servers",
            )
            raise ProduceError(f"no Kafka answers at {self._brokers} ({reason}): {remedy}") from None
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise ProduceError(
                f"Kafka at {self._brokers} does not describe the topic {self._topic!r}: {found.error.str()}; check the "
                "access rights (`streamguard topics acls` prints the commands that grant them)"
            )
        if found.error is not None:
            raise TopicsMismatchError(
                f"Kafka at {self._brokers} has no topic {self._topic!r}: create it with `streamguard topics create`"
            )

    def send(self, events: Iterable[tuple[str, bytes]]) -> None:
        """Queue events; blocks while the queue is full.

        Parameters
        ----------
        events
            (user, value) of each event, in order.
        """
        produce, poll, topic = self._producer.produce, self._producer.poll, self._topic
        for user, value in events:
            while True:
                try:
                    produce(topic, value, user)
                except BufferError:
                    poll(0.05)
                    self._raise_failed()
                except KafkaException as error:
                    raise ProduceError(
                        f"an event for the topic {topic} at {self._brokers} was rejected: {error.args[0].str()}"
                    ) from None
                else:
                    break
        poll(0)
        self._raise_failed()

    def flush(self) -> None:
        """Wait until every event is acknowledged or has failed."""
        self._producer.flush()
        self._raise_failed()

    def _raise_failed(self) -> None:
        if self._error is not None:
            raise ProduceError(
                f"{counted(self._failed, 'event')} could not be delivered to the topic {self._topic} at "
                f"{self._brokers}: {self._error.str()}"
            )

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        del message
        if error is not None:
            self._failed += 1
            self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.flush()
        else:
            self._producer.purge()
