"""Writes the audit log: records are chained in memory, sent by a thread, and refused while Kafka does not take them."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from streamguard.alerts.incident import rfc3339
from streamguard.kafka.connection import Brokers, ClientErrors
from streamguard.metrics import SERVE_AUDIT_REFUSED, SERVE_AUDIT_WAITING
from streamguard.serving.audit.record import (
    NOTHING,
    VERSION,
    AuditError,
    AuditRecord,
    Kind,
    cut,
    digest,
    encode,
)
from streamguard.text import counted

MAX_WAITING = 10_000
"""Records that may wait for Kafka; some megabytes."""
PATIENCE_SECONDS = 5.0
"""How long the oldest record may wait before the server refuses answers with names; a broker restarts within it."""
ALIVE_SECONDS = 300.0
"""Interval of the records that say that the server runs, so that a chain whose end is missing is found soon."""
REPEAT_SECONDS = 60.0
"""Interval of the records about a list that stays open and asks for its changes."""
CLOSE_SECONDS = 10.0
"""How long the last records may take when the server stops."""
_STEP_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_MESSAGE_SECONDS = 30.0
_PROPAGATION_MS = 2000
"""How long a topic that brokers do not know may be about to appear."""


_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    since: float
    value: bytes


class AuditLog:
    """The audit log of one run of a server; every method may be called from any thread.

    Records are kept in memory until Kafka has them, and are sent again after an error, so Kafka may have one twice, and
    never out of the chain.

    Parameters
    ----------
    brokers
        The brokers.
    topic
        Name of the audit topic.
    """

    def __init__(self, brokers: Brokers, topic: str) -> None:
        self.chain = secrets.token_hex(12)
        self._brokers, self._topic = brokers, topic
        self._errors = ClientErrors()
        self._changed = threading.Condition()
        self._number, self._previous = 0, NOTHING
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._unsent: deque[int] = deque()
        self._repeated: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._failing = ""
        self._closing_at: float | None = None
        self._last_record = 0.0
        self._fatal = threading.Event()
        with self._changed:
            self._add("first")
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def record(
        self, by: str, role: str, what: str, subject: str = "", detail: str = "", *, repeated: bool = False
    ) -> None:
        """Keep a record; it is sent in the background.

        Parameters
        ----------
        repeated
            Whether a page asks for this by itself, again and again: then one record a minute is kept for each person.

        Raises
        ------
        AuditError
            If it cannot be kept: too many records wait, or Kafka has not taken one for some seconds.
        """
        with self._changed:
            self._require_usable()
            if repeated and not self._due(by, what):
                return
            self._add(
                "event", by=cut(by), role=cut(role), what=cut(what), subject=cut(subject), detail=cut(detail)
            )
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Number of records that Kafka has not acknowledged."""
        with self._changed:
            return len(self._waiting)

    def close(self) -> None:
        """Mark the end of the chain, and wait some seconds until Kafka has it."""
        with self._changed:
            if self._closing_at is None:
                self._add("last")
                self._closing_at = time.monotonic()
                self._changed.notify()
        self._thread.join()

    def _add(self, kind: Kind, **fields: str) -> None:
        at = rfc3339(int(datetime.now(UTC).timestamp() * 1000))
        made = AuditRecord(
            version=VERSION,
            chain=self.chain,
            number=self._number,
            previous=self._previous,
            kind=kind,
            at=at,
            **fields,
        )
        value = encode(made)
        self._last_record = time.monotonic()
        self._waiting[self._number] = _Waiting(self._last_record, value)
        self._unsent.append(self._number)
        SERVE_AUDIT_WAITING.set(len(self._waiting))
        self._number, self._previous = self._number + 1, digest(value)

    def _due(self, by: str, what: str) -> bool:
        """Whether the last record of what a page repeats is older than a minute."""
        now = time.monotonic()
        last = self._repeated.pop((by, what), None)
        due = last is None or now - last > REPEAT_SECONDS
        self._repeated[by, what] = now if last is None or due else last
        if len(self._repeated) > MAX_WAITING:
            self._repeated.popitem(last=False)
        return due

    def _require_usable(self) -> None:
        reason = ""
        if self._closing_at is not None:
            reason = "the server stops"
        elif self._failing:
            reason = self._failing
        elif len(self._waiting) >= MAX_WAITING:
            reason = f"{counted(MAX_WAITING, 'record')} wait for Kafka"
        elif self._waiting:
            waited = time.monotonic() - next(iter(self._waiting.values())).since
            if waited > PATIENCE_SECONDS:
                reason = f"Kafka has not taken a record for {waited:.0f} s"
        if reason:
            SERVE_AUDIT_REFUSED.inc()
            raise AuditError(
                f"the audit log {self._topic} cannot be written ({reason}), and names are shown only if that is "
                "recorded: check that the brokers answer, and that the topic exists (`streamguard topics create`)"
            )

    def _run(self) -> None:
        """Send records until the log is closed. While this thread is in trouble, records wait and names are refused."""
        while True:
            try:
                self._send_all()
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, a server without this thread shows no names
                _log.exception("the audit log is sent again: report this traceback")
                self._fail(f"{type(error).__name__}: {error}")
                with self._changed:
                    self._unsent = deque(self._waiting)
                time.sleep(_RETRY_SECONDS)

    def _send_all(self) -> None:
        producer = self._connected()
        retry_at = 0.0
        while True:
            with self._changed:
                if not self._unsent:
                    self._changed.wait(_STEP_SECONDS)
                if self._closing_at is None and time.monotonic() - self._last_record > ALIVE_SECONDS:
                    self._add("alive")
                closing = self._closing_at
                done = not self._waiting
            if closing is not None and (done or time.monotonic() - closing > CLOSE_SECONDS):
                break
            if self._fatal.is_set():
                producer = self._renewed(producer)
            if time.monotonic() >= retry_at and not self._send(producer):
                retry_at = time.monotonic() + _RETRY_SECONDS
            producer.poll(0)
        producer.purge()
        producer.flush(1.0)

    def _send(self, producer: Producer) -> bool:
        """Hand what was not sent to the client; False if it takes no more now."""
        while True:
            with self._changed:
                if not self._unsent:
                    return not self._failing
                number = self._unsent[0]
                value = self._waiting[number].value
            try:
                producer.produce(
                    self._topic,
                    value,
                    self.chain.encode(),
                    partition=0,
                    on_delivery=partial(self._delivered, number),
                )
            except (BufferError, KafkaException) as error:
                self._fail(str(error))
                return False
            with self._changed:
                self._unsent.popleft()

    def _delivered(self, number: int, error: KafkaError | None, _message: Any) -> None:
        with self._changed:
            if error is None:
                self._waiting.pop(number, None)
                SERVE_AUDIT_WAITING.set(len(self._waiting))
                self._failing = ""
            elif number in self._waiting:
                self._unsent.append(number)
        if error is not None:
            reason, remedy = self._errors.reason(error, "")
            self._fail(f"{reason}{remedy and f': {remedy}'}")

    def _fail(self, reason: str) -> None:
        with self._changed:
            changed, self._failing = reason != self._failing, reason
        if changed:
            _log.warning("the audit log %s cannot be written, so no names are shown: %s", self._topic, reason)

    def _renewed(self, producer: Producer) -> Producer:
        """Another producer after an error that ends one; what Kafka has not acknowledged is sent again."""
        self._fatal.clear()
        producer.purge()
        producer.flush(1.0)
        with self._changed:
            self._unsent = deque(self._waiting)
        return self._connected()

    def _connected(self) -> Producer:
        return Producer(
            self._brokers.librdkafka(error_cb=self._report)
            | {
                "client.id": "streamguard-serve",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": int(_MESSAGE_SECONDS * 1000),
                "allow.auto.create.topics": False,
                "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
            }
        )

    def _report(self, error: KafkaError) -> None:
        self._errors(error)
        if error.code() == KafkaError._FATAL:
            self._fatal.set()
