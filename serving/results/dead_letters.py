"""The dead letter topic in short: how many records were refused, by reason, with the newest of each as samples."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Annotated

import msgspec
from confluent_kafka import KafkaException

from streamguard.errors import StreamGuardError
from streamguard.kafka.connection import Brokers
from streamguard.serving.log.reader import Bounds, DeletedError, LogReader, topic_state
from streamguard.serving.log.record import LogRecord
from streamguard.serving.results.answers import Unavailable
from streamguard.text import printable, shortened

SAMPLES = 5
"""Letters of one reason that are kept, the newest ones."""
MAX_REASONS = 64
"""Reasons that are counted by themselves; a worker knows a dozen, and the others are counted together."""
TAIL = 10_000
"""Letters of one partition that are read when a server starts: letters keep up to 64 KiB of a record."""
HEAD_BYTES = 200
"""Bytes of a refused record that a sample shows."""
REASON_CHARACTERS = 64
DETAIL_CHARACTERS = 300
SUBJECT_CHARACTERS = 120
MAX_COUNT = 1 << 32
"""Records that one letter may stand for; a larger number is no number of a worker."""
OTHER = "other"
UNKNOWN = "unknown"
"""Reason of a letter that states none, so it was not written by a worker."""


class Sample(msgspec.Struct, frozen=True):
    """A dead letter."""

    partition: Annotated[int, msgspec.Meta(description="Partition of the letter in the dead letter topic")]
    offset: int
    written_ms: Annotated[
        int, msgspec.Meta(description="Time of the letter, epoch milliseconds; 0 if unknown")
    ]
    topic: Annotated[str | None, msgspec.Meta(description="Topic of the refused record")]
    source_partition: int | None
    source_offset: Annotated[int | None, msgspec.Meta(description="Its offset; the first of several")]
    source_last_offset: Annotated[int | None, msgspec.Meta(description="The last of several; null for one")]
    count: Annotated[int, msgspec.Meta(description="Records that the letter stands for")]
    detail: str
    subject: Annotated[str | None, msgspec.Meta(description="User or source, if the record names one")]
    size: Annotated[
        int, msgspec.Meta(description="Bytes of the refused record, or of the part that was kept")
    ]
    head: Annotated[str, msgspec.Meta(description="Its first bytes, with unsafe characters replaced")]


class RefusedReason(msgspec.Struct, frozen=True):
    """The dead letters of one reason."""

    reason: str
    records: Annotated[int, msgspec.Meta(description="Refused records; after a crash some are counted twice")]
    letters: int
    first_ms: Annotated[int, msgspec.Meta(description="Time of the earliest letter, epoch milliseconds")]
    last_ms: int
    samples: Annotated[tuple[Sample, ...], msgspec.Meta(description="The newest letters first")]


class DeadLetterSummary(msgspec.Struct, frozen=True):
    """The dead letter topic since the oldest letter that was read."""

    records: int
    letters: int
    reasons: Annotated[tuple[RefusedReason, ...], msgspec.Meta(description="Most records first")]
    next_offsets: Annotated[
        dict[int, int], msgspec.Meta(description="By partition, the offset after the last letter")
    ]


class DeadLetters:
    """Counts dead letters record by record, in bounded memory; other threads may ask for the summary meanwhile.

    Examples
    --------
    >>> letters = DeadLetters()
    >>> letters.add(LogRecord(0, 7, 0, None, b"?", (("sg.reason", b"not_json"), ("sg.count", b"3"))))
    >>> found = letters.summary()
    >>> found.records, found.letters, found.reasons[0].reason, found.reasons[0].samples[0].head
    (3, 1, 'not_json', '?')
    """

    def __init__(self) -> None:
        self._reasons: dict[str, _Counted] = {}
        self._next: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, record: LogRecord) -> None:
        """Count one letter; one that was counted before, by its offset, changes nothing."""
        headers = dict(record.headers)
        reason = _text(headers.get("sg.reason"), REASON_CHARACTERS) or UNKNOWN
        sample = _sample(record, headers)
        with self._lock:
            if record.offset < self._next.get(record.partition, 0):
                return
            self._next[record.partition] = record.offset + 1
            if reason not in self._reasons and len(self._reasons) >= MAX_REASONS:
                reason = OTHER
            self._reasons.setdefault(reason, _Counted()).add(sample)

    def summary(self) -> DeadLetterSummary:
        """What was counted so far."""
        with self._lock:
            reasons = tuple(counted.shown(reason) for reason, counted in self._reasons.items())
            next_offsets = dict(sorted(self._next.items()))
        return DeadLetterSummary(
            sum(one.records for one in reasons),
            sum(one.letters for one in reasons),
            tuple(sorted(reasons, key=lambda one: (-one.records, one.reason))),
            next_offsets,
        )


class _Counted:
    def __init__(self) -> None:
        self._records = self._letters = self._first_ms = self._last_ms = 0
        self._samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        self._records += sample.count
        self._letters += 1
        if sample.written_ms:
            self._first_ms = min(self._first_ms or sample.written_ms, sample.written_ms)
            self._last_ms = max(self._last_ms, sample.written_ms)
        self._samples = sorted([sample, *self._samples], key=_age)[:SAMPLES]

    def shown(self, reason: str) -> RefusedReason:
        return RefusedReason(
            reason, self._records, self._letters, self._first_ms, self._last_ms, tuple(self._samples)
        )


def _age(sample: Sample) -> tuple[int, int, int]:
    return -sample.written_ms, sample.partition, -sample.offset


def tail(bounds: Mapping[int, Bounds]) -> dict[int, int]:
    """Offsets from which a server reads: the last `TAIL` letters of each partition.

    Examples
    --------
    >>> tail({0: Bounds(0, 25_000), 1: Bounds(3, 9)})
    {0: 15000, 1: 3}
    """
    return {p: max(one.start, one.end - TAIL) for p, one in bounds.items()}


def dead_letters(brokers: Brokers, topic: str, seconds: float = 10.0) -> DeadLetterSummary | Unavailable:
    """Read the last letters of the topic once, such as for a command; a server feeds `DeadLetters` by itself.

    Parameters
    ----------
    seconds
        Time after which the summary of the letters that were read is returned.
    """
    deadline = time.monotonic() + seconds
    letters = DeadLetters()
    try:
        state = topic_state(brokers, topic, seconds=seconds)
        if state is None:
            return Unavailable("none", f"Kafka has no topic {topic}: run `streamguard topics create`")
        reader = LogReader(brokers, topic, tail(state.bounds))
        try:
            while not reader.at_end and time.monotonic() < deadline:
                for record in reader.take(0.1):
                    letters.add(record)
        except DeletedError:  # Kafka deletes while the topic is read; what was read is the answer
            pass
        finally:
            reader.close()
    except (StreamGuardError, KafkaException) as error:
        return Unavailable("unreadable", str(error))
    return letters.summary()


def _sample(record: LogRecord, headers: Mapping[str, bytes | None]) -> Sample:
    value = record.value or b""
    return Sample(
        partition=record.partition,
        offset=record.offset,
        written_ms=record.timestamp,
        topic=_text(headers.get("sg.topic"), SUBJECT_CHARACTERS),
        source_partition=_number(headers.get("sg.partition")),
        source_offset=_number(headers.get("sg.offset")),
        source_last_offset=_number(headers.get("sg.last_offset")),
        count=_count(headers.get("sg.count")),
        detail=_text(headers.get("sg.detail"), DETAIL_CHARACTERS) or "",
        subject=_text(headers.get("sg.subject"), SUBJECT_CHARACTERS),
        size=_number(headers.get("sg.size")) or len(value),
        head=_text(value[:HEAD_BYTES], HEAD_BYTES) or "",
    )


def _text(data: bytes | None, limit: int) -> str | None:
    """Bytes as a text that is safe to show, at most so many characters."""
    if data is None:
        return None
    return shortened(printable(data[: 4 * limit].decode(errors="replace")), limit)


def _number(data: bytes | None) -> int | None:
    """A decimal number of at most 18 digits, as workers write it."""
    return int(data) if data is not None and len(data) <= 18 and data.isdigit() else None


def _count(data: bytes | None) -> int:
    number = _number(data)
    return number if number is not None and 0 < number <= MAX_COUNT else 1
