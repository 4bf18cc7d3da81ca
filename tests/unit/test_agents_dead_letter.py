"""Content of a dead letter: what it keeps of a record, and the headers that describe the rest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from streamguard.agents.output.dead_letter import (
    MAX_LETTERS,
    MAX_SUBJECTS,
    MAX_VALUE_BYTES,
    REFILL_MS,
    Allowance,
    Message,
    dead_letter,
    dead_letters,
    without_record,
)
from streamguard.events.event import Refusal, Withheld
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.records.record import MAX_HEADERS_BYTES, MAX_KEY_BYTES, Record

REFUSAL = Refusal(0, "not_json", "it is not \N{GREEK SMALL LETTER ALPHA}" * 1000)
ORIGIN = {"sg.topic": b"events", "sg.partition": b"3", "sg.offset": b"7", "sg.reason": b"not_json"}


def record(value: bytes | None, key: bytes | None, headers: Any = (), offset: int = 7, **more: Any) -> Record:
    return Record("events", 3, offset, 0, key, value, list(headers), **more)


def headers_of(message: Message) -> dict[str, bytes | None]:
    return dict(message.headers)


def test_dead_letter_keeps_the_record_unchanged() -> None:
    message = dead_letter(record(b"x" * MAX_VALUE_BYTES, None, [("trace", None)]), REFUSAL)
    assert (message.value, message.key) == (b"x" * MAX_VALUE_BYTES, None)
    headers = headers_of(message)
    assert headers.items() >= ORIGIN.items()
    assert headers["trace"] is None
    assert not headers.keys() & {"sg.cut", "sg.null", "sg.size", "sg.sha256", "sg.count"}


def test_subject_of_a_refused_event_is_named_in_a_bounded_printable_header() -> None:
    sent = record(b"?", b"key")
    for user, source, named in (
        ("ann\x1b[2J", "10.0.0.1", "user ann�[2J"),
        ("", "10.0.0.1", "source 10.0.0.1"),
        ("u" * 1_000_000, "", "user " + "u" * 99 + "…"),
        ("\ud800", "", "user �"),
    ):
        refusal = Refusal(0, "bad_timestamp", "", user, source)
        assert headers_of(dead_letter(sent, refusal))["sg.subject"] == named.encode()
        assert "sg.subject" not in headers_of(without_record(sent, refusal))
    assert "sg.subject" not in headers_of(dead_letter(sent, REFUSAL))


def test_headers_of_the_sender_cannot_pass_for_those_of_the_worker() -> None:
    forged = [
        ("sg.reason", b"fake"),
        ("sg.offset", b"1"),
        ("sg.count", b"9"),
        ("sg.x", None),
        ("trace", b"1"),
    ]
    message = dead_letter(record(b"?", None, forged), REFUSAL)
    own = [name for name, _ in message.headers if name.startswith("sg.")]
    assert own == ["sg.reason", "sg.detail", "sg.topic", "sg.partition", "sg.offset"]
    assert [name for name, _ in message.headers[: len(own)]] == own
    assert headers_of(message).items() >= ORIGIN.items()
    assert headers_of(message)["sender.sg.reason"] == b"fake"


@pytest.mark.parametrize("letter", [dead_letter, without_record])
def test_null_key_and_value_are_marked_in_a_header(letter: Any) -> None:
    message = letter(record(None, None), REFUSAL)
    assert (message.value, message.key) == (None, b"")
    assert headers_of(message)["sg.null"] == b"key,value"


@pytest.mark.parametrize("key", [None, b"k"])
def test_of_a_too_large_value_the_head_is_kept_with_size_and_digest(key: bytes | None) -> None:
    value = b"x" * (MAX_VALUE_BYTES + 1)
    message = dead_letter(record(value, key), REFUSAL)
    assert (message.value, message.key) == (value[:MAX_VALUE_BYTES], key)
    headers = headers_of(message)
    assert headers["sg.cut"] == b"value"
    assert headers["sg.size"] == str(len(value)).encode()
    assert headers["sg.sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert headers.items() >= ORIGIN.items()


def test_batch_has_one_dead_letter_with_its_offsets_and_the_head_of_its_bytes() -> None:
    batch = Withheld("unreadable_batch", "gzip: ?", b"head", 100, "5e", 7, 30)
    (letter,) = dead_letters([record(batch, None, offset=30)], [Refusal(0, batch.reason, batch.detail)])
    assert (letter.reason, letter.count, letter.message.value) == ("unreadable_batch", 24, b"head")
    headers = headers_of(letter.message)
    assert headers.items() >= {"sg.offset": b"7", "sg.last_offset": b"30", "sg.count": b"24"}.items()
    assert headers.items() >= {"sg.size": b"100", "sg.sha256": b"5e", "sg.cut": b"value"}.items()


def test_beyond_a_number_the_refused_records_of_a_chunk_are_summarised_by_reason() -> None:
    records = [record(b"?", b"key", offset=10 + i + i // 50) for i in range(120)]
    refused = [Refusal(i, "not_json" if i % 2 else "empty", "?") for i in range(120) if i > 5]
    letters = dead_letters(records, refused)
    assert sum(letter.count for letter in letters) == len(refused)
    assert [letter.count for letter in letters[:-2]] == [1] * (2 * MAX_LETTERS)
    covered = [records[r.index].offset for r in refused[: 2 * MAX_LETTERS]]
    for letter, reason in zip(letters[-2:], ("empty", "not_json"), strict=True):
        listed = json.loads(letter.message.value or b"")["offsets"]
        offsets = [offset for first, last in listed for offset in range(first, last + 1)]
        headers = headers_of(letter.message)
        assert headers["sg.reason"] == reason.encode() == letter.reason.encode()
        assert int(headers["sg.count"] or 0) == letter.count == len(offsets)
        assert (headers["sg.offset"], headers["sg.last_offset"]) == (b"%d" % offsets[0], b"%d" % offsets[-1])
        assert letter.smallest().value == b""
        covered += offsets
    assert sorted(covered) == [records[r.index].offset for r in refused]


def test_sender_of_few_bad_records_in_each_chunk_gets_letters_at_a_limited_rate() -> None:
    allowance, own, summarised, offset = Allowance(), 0, 0, 0
    for chunk in range(100):  # ten minutes
        ms = 1_700_000_000_000 + 6000 * chunk
        records = [record(b"?", None, offset=offset + i, append_ms=ms) for i in range(MAX_LETTERS)]
        offset += MAX_LETTERS
        letters = dead_letters(records, [Refusal(i, "not_json", "?") for i in range(MAX_LETTERS)], allowance)
        assert sum(letter.count for letter in letters) == MAX_LETTERS
        own += sum(not letter.summary for letter in letters)
        summarised += sum(letter.count for letter in letters if letter.summary)
        other = dead_letters(records[:1], [Refusal(0, "empty", "?")], allowance)
        assert [letter.summary for letter in other] == [False]  # another reason is not affected
    assert own == MAX_LETTERS + 99 * 6000 // REFILL_MS
    assert own + summarised == offset
    (first, *rest) = dead_letters(
        [record(b"?", None, append_ms=ms + REFILL_MS)] * 2,
        [Refusal(i, "not_json", "?") for i in range(2)],
        allowance,
    )
    assert not first.summary and all(letter.summary for letter in rest)


def test_time_of_a_sender_gives_no_letters() -> None:
    allowance = Allowance(lambda: 5.0)
    records = [Record("events", 3, i, 10_000_000 * i, None, b"?") for i in range(3 * MAX_LETTERS)]
    letters = dead_letters(records, [Refusal(i, "not_json", "?") for i in range(len(records))], allowance)
    assert sum(not letter.summary for letter in letters) == MAX_LETTERS


def test_summary_names_the_subjects_with_most_records() -> None:
    users = ["loud"] * 50 + ["\ud800"] * 30 + [f"user-{i:03d}" for i in range(100)]
    refused = [Refusal(i, "not_json", "?", user) for i, user in enumerate(["first"] * MAX_LETTERS + users)]
    records = [record(b"?", None, offset=i) for i in range(len(refused))]
    *_, summary = dead_letters(records, refused)
    subjects = json.loads(summary.message.value or b"")["subjects"]
    assert list(subjects.items())[:3] == [("user loud", 50), ("user \ufffd", 30), ("user user-000", 1)]
    assert len(subjects) == MAX_SUBJECTS
    assert summary.message.size < 10_000


def test_parts_that_the_reader_removed_are_named() -> None:
    message = dead_letter(record(b"v", b"", cut=("key", "headers")), REFUSAL)
    assert headers_of(message)["sg.cut"] == b"key,headers"


def test_dead_letter_fits_the_message_limit_of_its_topic() -> None:
    largest = record(b"x" * MAX_EVENT_BYTES, b"k" * MAX_KEY_BYTES, [("h", b"x" * (MAX_HEADERS_BYTES - 20))])
    assert dead_letter(largest, REFUSAL).size < MAX_VALUE_BYTES + MAX_KEY_BYTES + MAX_HEADERS_BYTES + 5000
    assert without_record(largest, REFUSAL).size < 3000
