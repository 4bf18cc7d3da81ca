"""Sends events to Kafka: idempotent, keyed by user, spread over partitions as Kafka's own clients do."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors, metadata


class ProduceError(UnavailableError):
    """Events could not be delivered; the message says to where, why and how many."""


class EventProducer:
    """Produces (user, value) records to one topic; leaving its context waits for the acknowledgements.

    Parameters
    ----------
    brokers
        Where the topic is.
    topic
        An existing topic.
    linger_ms
        How long a record may wait for company: 0 for events that are waited for, more for a back-fill.
    timeout_seconds
        How long an event may wait for its acknowledgement.

    Raises
    ------
    ProduceError
        If the broker does not answer, does not have the topic, or refuses a record.
    """

    def __init__(
        self, brokers: Brokers, topic: str, *, linger_ms: float = 5.0, timeout_seconds: float = 60.0
    ) -> None:
        self._topic = topic
        self._brokers = brokers
        self._heard = ClientErrors()
        self._failed = 0
        self._error: KafkaError | None = None
        self._producer = Producer(
            brokers.librdkafka()
            | {
                "error_cb": self._heard,
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
        """See that the broker answers and has the topic.

        Parameters
        ----------
        timeout
            Seconds to wait for the broker.
        """
        try:
            found = metadata(self._producer, self._heard, timeout, self._topic).topics[self._topic]
        except KafkaException as error:
            reason, remedy = self._heard.reason(
                error.args[0], "start one with `streamguard broker` or name another with --bootstrap-servers"
            )
            raise ProduceError(f"no Kafka at {self._brokers} ({reason}): {remedy}") from None
        if found.error is not None:
            raise ProduceError(
                f"{self._brokers} has no topic {self._topic!r}: make it with `streamguard topics create`"
            )

    def send(self, events: Iterable[tuple[str, bytes]]) -> None:
        """Queue events; blocks while the queue is full.

        Parameters
        ----------
        events
            (user, value) in order.
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
                        f"{topic} at {self._brokers} takes no event: {error.args[0].str()}"
                    ) from None
                else:
                    break
        poll(0)
        self._raise_failed()

    def flush(self) -> None:
        """Wait until every event is acknowledged or has waited too long."""
        self._producer.flush()
        self._raise_failed()

    def _raise_failed(self) -> None:
        if self._error is not None:
            raise ProduceError(
                f"{self._topic} at {self._brokers} did not take {self._failed} events: {self._error.str()}"
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
