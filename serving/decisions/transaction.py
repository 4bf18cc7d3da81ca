"""Writes several records in one Kafka transaction: readers of committed records see all of them, or none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors
from streamguard.kafka.control import explained
from streamguard.limits import MAX_INCIDENT_BYTES

TIMEOUT_SECONDS = 10.0
"""How long each step of a transaction may take. Kafka ends a transaction that is open for longer: until then, nobody
reads what follows it in its partitions."""
_PROPAGATION_MS = 3000
"""How long a topic that brokers do not know may be about to appear; below `TIMEOUT_SECONDS`, so that the error names
the topic."""


class Record(NamedTuple):
    """A record to write."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Transactions:
    """Writes records in transactions; threads take turns. It connects when it is needed first.

    Parameters
    ----------
    brokers
        The brokers.
    transactional_id
        Name of the writer, which no other process has: a second one would end the transactions of the first.
    """

    def __init__(self, brokers: Brokers, transactional_id: str) -> None:
        self._brokers = brokers
        self._id = transactional_id
        self._lock = threading.Lock()
        self._errors = ClientErrors()
        self._producer: Producer | None = None

    def write(self, records: Sequence[Record]) -> list[int]:
        """Write records together, and return their offsets when the transaction is committed.

        Raises
        ------
        UnavailableError
            If Kafka does not commit the transaction in time. Then either all records are written or none is.
        TopicsMismatchError
            If a topic does not exist.
        """
        if not self._lock.acquire(timeout=TIMEOUT_SECONDS):
            raise UnavailableError("other decisions are being written: repeat this one with the same id")
        try:
            found = self._written(records)
            self._errors = ClientErrors()  # errors that were overcome explain no later one
            return found
        except UnavailableError as error:
            raise UnavailableError(
                f"{error}; the decision may have been written, so repeat it with the same id"
            ) from None
        finally:
            self._lock.release()

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._drop()

    def _written(self, records: Sequence[Record]) -> list[int]:
        offsets: dict[int, int] = {}
        refused: list[tuple[str, KafkaError]] = []

        def noted(place: int) -> Any:
            def delivered(error: KafkaError | None, message: Any) -> None:
                if error is not None:
                    refused.append((records[place].topic, error))
                else:
                    offsets[place] = int(message.offset())

            return delivered

        try:
            producer = self._connected()
            producer.begin_transaction()
            for place, one in enumerate(records):
                producer.produce(
                    one.topic,
                    one.value,
                    one.key,
                    partition=one.partition,
                    headers=list(one.headers),
                    on_delivery=noted(place),
                )
            producer.commit_transaction(TIMEOUT_SECONDS)
        except (KafkaException, BufferError) as error:
            # Whether it was committed may be unknown. The next producer of the same name learns and ends it.
            topic, reason = refused[0] if refused else (records[0].topic, None)
            self._drop()
            with explained(self._brokers, topic, self._errors):
                raise (KafkaException(reason) if reason is not None else error) from None
        return [offsets[place] for place in range(len(records))]

    def _connected(self) -> Producer:
        if self._producer is None:
            producer = Producer(
                self._brokers.librdkafka(error_cb=self._report)
                | {
                    "client.id": "streamguard-serve",
                    "transactional.id": self._id,
                    "transaction.timeout.ms": int(TIMEOUT_SECONDS * 1000),
                    "message.timeout.ms": int(TIMEOUT_SECONDS * 1000),
                    "message.max.bytes": MAX_INCIDENT_BYTES,
                    "linger.ms": 0,
                    "allow.auto.create.topics": False,
                    "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
                }
            )
            producer.init_transactions(TIMEOUT_SECONDS)
            self._producer = producer
        return self._producer

    def _report(self, error: KafkaError) -> None:
        self._errors(error)

    def _drop(self) -> None:
        """Give the producer up; a transaction that it has open is aborted."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with contextlib.suppress(KafkaException):  # none is open, or Kafka ends it by itself
            producer.abort_transaction(TIMEOUT_SECONDS / 2)
        producer.purge()
        producer.flush(TIMEOUT_SECONDS / 2)
