"""Writes case actions to the topic of decisions, and returns the offsets that settle their order."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from types import TracebackType
from typing import Any, Self

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors
from streamguard.kafka.control import explained
from streamguard.limits import MAX_INCIDENT_BYTES
from streamguard.serving.decisions.codec import encode
from streamguard.serving.decisions.record import CaseAction
from streamguard.serving.decisions.transaction import Record, Transactions

TIMEOUT_SECONDS = 10.0
"""How long Kafka may take to acknowledge an action: a person waits for it, and a broker that restarts is soon back."""
PARTITION = 0
"""The topic has one partition, so there is one order."""
_PROPAGATION_MS = 3000
"""How long a topic that brokers do not know may be about to appear; below `TIMEOUT_SECONDS`, so that the error names
the topic."""
_POLL_SECONDS = 0.5
"""How long the thread that receives acknowledgements sleeps at most before it looks whether the writer is closed."""


class ActionWriter:
    """Writes case actions. Threads share one writer; it connects when it is made and keeps the connection.

    Parameters
    ----------
    brokers
        The brokers.
    topic
        Name of the topic of decisions.
    transactional_id
        Name under which it writes several records together; no other process has it. Empty: a random one.
    """

    def __init__(self, brokers: Brokers, topic: str, transactional_id: str = "") -> None:
        self._brokers = brokers
        self._topic = topic
        self._transactions = Transactions(brokers, transactional_id or f"{topic}-{secrets.token_hex(8)}")
        self._errors = ClientErrors()
        self._lock = threading.Lock()
        self._fatal = threading.Event()
        self._producer = self._connected()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="case-actions", daemon=True)
        self._thread.start()

    def write(self, action: CaseAction) -> int:
        """Write an action, wait until all replicas have it, and return its offset.

        The same action may be written again, such as after an error whose outcome is unknown: of two records with one
        id the first one counts.

        Raises
        ------
        RecordError
            If readers would refuse the action.
        UnavailableError
            If Kafka does not acknowledge the action in time.
        TopicsMismatchError
            If the topic does not exist.
        """
        pending = self.submit(action)
        try:
            with explained(self._brokers, self._topic, self._errors):
                offset = _result(pending)
        except UnavailableError as error:
            raise UnavailableError(
                f"{error}; the action may have been written, so repeat it with the same id"
            ) from None
        self._errors = ClientErrors()  # errors that were overcome explain no later one
        return offset

    def write_together(
        self, actions: Sequence[CaseAction], others: Sequence[Record] = ()
    ) -> tuple[int, list[int]]:
        """Write actions, and records of other topics, so that readers see all of them or none.

        Returns
        -------
        offset
            Of the last action.
        offsets
            Of the other records.

        Raises
        ------
        RecordError, UnavailableError, TopicsMismatchError
            As `write`.
        """
        if len(actions) == 1 and not others:
            return self.write(actions[0]), []
        records = [Record(self._topic, PARTITION, key_of(one), encode(one)) for one in actions]
        offsets = self._transactions.write([*others, *records])
        return offsets[-1], offsets[: len(others)]

    def end(self) -> int:
        """Offset behind the last record of the topic, whether or not its transaction is committed.

        Raises
        ------
        UnavailableError
            If Kafka does not answer in time.
        TopicsMismatchError
            If the topic does not exist.
        """
        errors = ClientErrors()
        admin = AdminClient(self._brokers.librdkafka(error_cb=errors))
        place = TopicPartition(self._topic, PARTITION)
        with explained(self._brokers, self._topic, errors):
            found: Any = admin.list_offsets(
                {place: OffsetSpec.latest()},
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=TIMEOUT_SECONDS,
            )
            return int(found[place].result().offset)

    def submit(self, action: CaseAction) -> Future[int]:
        """Begin to write an action; the future has its offset, or a `KafkaException`.

        Raises
        ------
        RecordError
            If readers would refuse the action.
        UnavailableError
            If so many actions wait already that the client takes no more, or the writer is closed.
        """
        value = encode(action)
        pending: Future[int] = Future()

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:
                pending.set_result(int(message.offset()))
            else:
                pending.set_exception(KafkaException(error))

        with self._lock:
            if self._closed.is_set():
                raise UnavailableError(
                    f"the writer of {self._topic} is closed: the server stops; repeat the action later"
                )
            try:
                self._usable().produce(
                    self._topic, value, key_of(action), partition=PARTITION, on_delivery=delivered
                )
            except BufferError:
                raise UnavailableError(
                    f"too many actions wait for Kafka at {self._brokers}: check that the brokers answer, and repeat "
                    "the action"
                ) from None
            except KafkaException as error:
                pending.set_exception(error)
        return pending

    def close(self) -> None:
        """Wait for actions that were submitted, and disconnect."""
        with self._lock:
            self._closed.set()
        self._thread.join()
        self._producer.flush(TIMEOUT_SECONDS)
        self._transactions.close()

    def _connected(self) -> Producer:
        return Producer(
            self._brokers.librdkafka(error_cb=self._report)
            | {
                "client.id": "streamguard-serve",
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.timeout.ms": int(TIMEOUT_SECONDS * 1000),
                "message.max.bytes": MAX_INCIDENT_BYTES,
                "allow.auto.create.topics": False,
                "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
            }
        )

    def _usable(self) -> Producer:
        """The producer, or a new one if an error has ended it: an idempotent one does not survive every error."""
        if self._fatal.is_set():
            ended = self._producer
            self._fatal.clear()
            self._producer = self._connected()
            ended.purge()
            ended.flush(_POLL_SECONDS)
        return self._producer

    def _report(self, error: KafkaError) -> None:
        self._errors(error)
        if error.code() == KafkaError._FATAL:
            self._fatal.set()

    def _receive(self) -> None:
        prepared: Producer | None = None
        while not self._closed.is_set():
            producer = self._producer
            if producer is not prepared and self._knows_topic(producer):
                prepared = producer
            producer.poll(_POLL_SECONDS)

    def _knows_topic(self, producer: Producer) -> bool:
        """Ask for the topic before the first action needs it, which would otherwise wait a second."""
        try:
            producer.list_topics(self._topic, timeout=_POLL_SECONDS)
        except KafkaException:
            return False  # an action that is written meanwhile states the reason
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _result(pending: Future[int]) -> int:
    try:
        return pending.result(2 * TIMEOUT_SECONDS)
    except NotDone:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None


def key_of(action: CaseAction) -> bytes:
    """Key of a record: the id of the action and a random number.

    Compaction keeps the last record of a key. If a repeated action had the same key, its first record would vanish, and
    a store that is rebuilt would see it after actions that it preceded.
    """
    return f"{action.id}/{secrets.token_hex(8)}".encode()
