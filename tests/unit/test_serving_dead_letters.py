"""The summary of dead letters: each refused record counts once, memory is bounded, hostile content is harmless."""

from __future__ import annotations

import json
import random

import msgspec
import pytest

from streamguard.agents.output.dead_letter import MAX_LETTERS, Message, dead_letters
from streamguard.events.event import Refusal
from streamguard.records.record import Record
from streamguard.serving.log.record import LogRecord
from streamguard.serving.results.dead_letters import (
    DETAIL_CHARACTERS,
    HEAD_BYTES,
    MAX_REASONS,
    OTHER,
    SAMPLES,
    UNKNOWN,
    DeadLetters,
    DeadLetterSummary,
)


def letter(offset: int, *headers: tuple[str, bytes | None], value: bytes | None = b"?", partition: int = 0,
           timestamp: int = 0) -> LogRecord:  # fmt: skip
    return LogRecord(partition, offset, timestamp, None, value, tuple(headers))


def summary(*records: LogRecord) -> DeadLetterSummary:
    letters = DeadLetters()
    for record in records:
        letters.add(record)
    return letters.summary()


def written(messages: list[Message]) -> list[LogRecord]:
    return [
        LogRecord(0, k, 1000 + k, message.key, message.value, tuple(message.headers))
        for k, message in enumerate(messages)
    ]


def test_letters_of_a_worker_are_counted_as_the_records_that_they_stand_for() -> None:
    refused = [(b'{"user": 5, "x', "not_json")] * 500 + [(b"{}", "no_timestamp")] * 3
    records = [Record("events", 3, 10 + k, 0, b"k", value) for k, (value, _) in enumerate(refused)]
    refusals = [
        Refusal(k, reason, f"detail {k}", user="ann" if k % 2 else "")
        for k, (_, reason) in enumerate(refused)
    ]
    found = summary(*written([one.message for one in dead_letters(records, refusals)]))
    assert {one.reason: one.records for one in found.reasons} == {"not_json": 500, "no_timestamp": 3}
    assert (found.records, found.letters) == (503, MAX_LETTERS + 1 + 3)
    first, second = found.reasons
    assert (first.reason, len(first.samples), len(second.samples)) == ("not_json", SAMPLES, 3)
    summarised, *others = first.samples
    assert (summarised.count, summarised.source_offset, summarised.source_last_offset) == (480, 30, 509)
    assert [one.source_offset for one in others] == [29, 28, 27, 26]
    assert others[0].head == '{"user": 5, "x' and others[0].subject == "user ann"
    assert (others[0].topic, others[0].source_partition, others[0].detail) == ("events", 3, "detail 19")
    assert found.next_offsets == {0: found.letters}


def test_samples_are_the_newest_whatever_the_order_of_partitions() -> None:
    records = [
        letter(k, ("sg.reason", b"r"), partition=p, timestamp=1000 * k + p)
        for p in range(3)
        for k in range(20)
    ]
    expected = [(record.partition, record.offset) for record in sorted(records, key=lambda r: -r.timestamp)]
    by_partition = summary(*records)
    for seed in range(3):
        mixed = sorted(records, key=lambda r: (r.offset, random.Random(seed + r.partition).random()))
        found = summary(*mixed)
        assert [(one.partition, one.offset) for one in found.reasons[0].samples] == expected[:SAMPLES]
        assert found == by_partition
    assert (by_partition.reasons[0].first_ms, by_partition.reasons[0].last_ms) == (0 + 1, 19_002)


def test_letter_that_is_read_again_is_not_counted_again() -> None:
    once = [letter(k, ("sg.reason", b"r")) for k in range(4)]
    assert summary(*once, *once, once[2]) == summary(*once)


@pytest.mark.parametrize(
    "count",
    [b"", b"-3", b"0", b"1e9", b"9" * 5000, b"9" * 18, b"\xff", b"\xd9\xa3", None, b" 7", b"7_000"],
)
def test_count_that_no_worker_writes_counts_as_one(count: bytes | None) -> None:
    found = summary(letter(0, ("sg.reason", b"r"), ("sg.count", count), ("sg.offset", count)))
    assert found.records == 1
    json.loads(msgspec.json.encode(found))


def test_letters_of_others_are_counted_too() -> None:
    found = summary(letter(0), letter(1, ("sg.reason", None)), letter(2, ("sg.reason", b""), value=None))
    assert [(one.reason, one.records) for one in found.reasons] == [(UNKNOWN, 3)]
    assert found.reasons[0].samples[0].head == ""


def test_memory_is_bounded_by_reasons_samples_and_lengths() -> None:
    letters = DeadLetters()
    for k in range(1000):
        letters.add(
            letter(
                k,
                ("sg.reason", f"reason {k} ".encode() * 1000),
                ("sg.detail", b"d" * 1_000_000),
                ("sg.subject", b"s" * 1_000_000),
                value=b"v" * 1_000_000,
            )
        )
    found = letters.summary()
    assert (found.letters, found.records) == (1000, 1000)
    assert len(found.reasons) == MAX_REASONS + 1
    assert found.reasons[0].reason == OTHER and found.reasons[0].records == 1000 - MAX_REASONS
    sample = found.reasons[0].samples[0]
    assert (len(sample.head), sample.size) == (HEAD_BYTES, 1_000_000)
    assert len(sample.detail) == DETAIL_CHARACTERS
    assert len(msgspec.json.encode(found)) < 200_000


def test_hostile_content_is_harmless_text() -> None:
    hostile = "\x1b[2J\u202e<script>\x00\n".encode() + b"\xff\xfe"
    names = ("sg.reason", "sg.detail", "sg.subject", "sg.topic")
    found = summary(letter(0, *((name, hostile) for name in names), value=hostile))
    (reason,) = found.reasons
    (sample,) = reason.samples
    for text in (reason.reason, sample.detail, sample.subject, sample.topic, sample.head):
        assert text is not None and text.isprintable() and "<script>" in text


def test_reason_of_a_sender_is_not_that_of_the_worker() -> None:
    record = Record("events", 0, 1, 0, b"k", b"?", [("sg.reason", b"mine"), ("sg.count", b"999")])
    (one,) = dead_letters([record], [Refusal(0, "not_json", "")])
    found = summary(*written([one.message]))
    assert [(reason.reason, reason.records) for reason in found.reasons] == [("not_json", 1)]
