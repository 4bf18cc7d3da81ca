"""Reads single events of a topic by their offsets, for the incidents that name them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamguard.errors import StreamGuardError
from streamguard.kafka.connection import Brokers
from streamguard.serving.log.missing import MissingEvent, Reason
from streamguard.serving.log.reader import GONE, PASSING, TopicState, following, topic_state
from streamguard.serving.log.record import LogRecord, log_record
from streamguard.text import counted

MAX_EVENTS = 100
"""Events of one call; an incident names fewer."""
AT_ONCE = 4
"""Calls that read at the same time; each holds a connection to every broker and the fetched records."""
BUSY_SECONDS = 0.25
"""How long a further call waits for one of these to end: whoever waits keeps a thread from everybody else."""
PATIENCE = 5.0
"""Seconds after which a call answers with what it has."""
NEAR = 200
"""Offsets up to which reading on is cheaper than a new request: a fetch returns about so many events."""

QUEUED_KILOBYTES = 8192
"""Records that are fetched ahead; the client stops fetching above it."""

STALL_SECONDS = 1.5
"""Seconds without a record after which a place is given up for the next one of its partition: the client repeats the
request for a damaged batch for ever, and says nothing."""

_POLL_SECONDS = 0.1
_slots = threading.BoundedSemaphore(AT_ONCE)


class Place(NamedTuple):
    """Where an event is."""

    partition: int
    offset: int


def event_at(
    brokers: Brokers, topic: str, partition: int, offset: int, topic_id: str | None, seconds: float = PATIENCE
) -> LogRecord | MissingEvent:
    """Read one event; see `events_at`."""
    return events_at(brokers, topic, [Place(partition, offset)], topic_id, seconds)[Place(partition, offset)]


def events_at(
    brokers: Brokers, topic: str, places: Sequence[Place], topic_id: str | None, seconds: float = PATIENCE
) -> dict[Place, LogRecord | MissingEvent]:
    """Read the committed records at several offsets with one consumer.

    Parameters
    ----------
    places
        At most `MAX_EVENTS`; more are answered with `busy`.
    topic_id
        Kafka's id of the topic that the offsets belong to; None if it is unknown.
    seconds
        Time after which the remaining places are answered with `timed_out`.

    Returns
    -------
    dict
        An answer for every place: its record without headers, or why there is none.
    """
    deadline = time.monotonic() + seconds
    wanted = sorted(set(places))
    answers: dict[Place, LogRecord | MissingEvent] = {
        place: _missing(place, "busy", f"at most {counted(MAX_EVENTS, 'event')} are read at once")
        for place in wanted[MAX_EVENTS:]
    }
    wanted = wanted[:MAX_EVENTS]
    if not wanted:
        return answers
    if not _slots.acquire(timeout=min(seconds, BUSY_SECONDS)):
        return answers | {
            place: _missing(place, "busy", "too many events are being read: ask again") for place in wanted
        }
    try:
        state = topic_state(brokers, topic, {place.partition for place in wanted}, seconds)
        for place in wanted:
            problem = _outside(place, topic, state, topic_id)
            if problem is not None:
                answers[place] = problem
        missing = [place for place in wanted if place not in answers]
        if missing and state is not None:
            ends = {partition: bounds.end for partition, bounds in state.bounds.items()}
            answers |= _Search(brokers, topic, missing, ends).run(deadline)
    except (StreamGuardError, KafkaException) as error:
        for place in wanted:
            answers.setdefault(place, _missing(place, "timed_out", f"Kafka has not answered ({error})"))
    finally:
        _slots.release()
    return answers


def _outside(place: Place, topic: str, state: TopicState | None, topic_id: str | None) -> MissingEvent | None:
    """Why the topic cannot have the event."""
    if state is None:
        return _missing(place, "no_topic", f"Kafka has no topic {topic}")
    if topic_id is not None and state.id != topic_id:
        return _missing(place, "another_topic", f"{topic} was deleted and created again since")
    bounds = state.bounds.get(place.partition)
    if bounds is None:
        return _missing(place, "no_topic", f"{topic} has no such partition")
    if place.offset < bounds.start:
        return _missing(place, "expired", f"Kafka has deleted it: {topic} begins at offset {bounds.start}")
    if place.offset >= bounds.end:
        return _missing(place, "not_committed", f"the committed records of {topic} end before it")
    return None


class _Search:
    """Finds the records at places that the topic has, in order of each partition."""

    def __init__(
        self, brokers: Brokers, topic: str, places: Sequence[Place], ends: Mapping[int, int]
    ) -> None:
        self._topic = topic
        self._ends = ends
        self._waiting: dict[int, list[Place]] = {}
        for place in places:
            self._waiting.setdefault(place.partition, []).append(place)
        self._answers: dict[Place, LogRecord | MissingEvent] = {}
        self._sought: dict[int, int] = {}
        self._moved: dict[int, float] = {}
        self._consumer = Consumer(
            following(brokers, "streamguard-serve-events") | {"queued.max.messages.kbytes": QUEUED_KILOBYTES}
        )

    def run(self, deadline: float) -> dict[Place, LogRecord | MissingEvent]:
        """An answer for every place, at the latest when the deadline has passed."""
        try:
            self._consumer.assign(
                [TopicPartition(self._topic, p, some[0].offset) for p, some in self._waiting.items()]
            )
            self._moved = dict.fromkeys(self._waiting, time.monotonic())
            while self._waiting and time.monotonic() < deadline:
                for message in self._consumer.consume(NEAR, _POLL_SECONDS):
                    self._take(message)
                stalled = time.monotonic() - STALL_SECONDS
                for partition in [p for p in self._waiting if self._moved[p] < stalled]:
                    self._fail(partition, "timed_out", "Kafka has not answered, or its batch is damaged")
        finally:
            self._consumer.close()
        for some in self._waiting.values():
            for place in some:
                self._answers[place] = _missing(
                    place, "timed_out", "Kafka has not answered in time: ask again"
                )
        return self._answers

    def _take(self, message: Any) -> None:
        partition = message.partition()
        if partition not in self._waiting:
            return  # fetched before the partition was done
        error = message.error()
        if error is None:
            record = log_record(message)
            if record.offset < self._ends[partition]:  # a damaged batch can state any offset
                self._passed(partition, record.offset, record)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._passed(partition, int(message.offset()), None)
        elif error.code() in GONE:
            self._fail(partition, "expired", "Kafka has just deleted it")
        elif error.code() not in PASSING:
            self._fail(partition, "unreadable", f"it cannot be read ({error.str()})")

    def _passed(self, partition: int, offset: int, record: LogRecord | None) -> None:
        """Answer what is at an offset or before it, and continue at the next place."""
        self._moved[partition] = time.monotonic()
        waiting = self._waiting[partition]
        while waiting and waiting[0].offset <= offset:
            place = waiting[0]
            if place.offset == offset and record is None:
                break
            del waiting[0]
            self._answers[place] = (
                record
                if record is not None and place.offset == offset
                else _missing(place, "not_committed", f"{self._topic} has no committed record at this offset")
            )
        self._continue(partition, offset)

    def _fail(self, partition: int, reason: Reason, text: str) -> None:
        self._moved[partition] = time.monotonic()
        place = self._waiting[partition].pop(0)
        self._answers[place] = _missing(place, reason, text)
        self._continue(partition, -NEAR)

    def _continue(self, partition: int, offset: int) -> None:
        waiting = self._waiting[partition]
        if not waiting:
            del self._waiting[partition]
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])
            return
        place = waiting[0].offset
        if place > offset + NEAR and self._sought.get(partition) != place:
            self._sought[partition] = place
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])
            self._consumer.incremental_assign([TopicPartition(self._topic, partition, place)])


def _missing(place: Place, reason: Reason, text: str) -> MissingEvent:
    message = f"partition {place.partition}, offset {place.offset}: {text}"
    return MissingEvent(place.partition, place.offset, reason, message)
