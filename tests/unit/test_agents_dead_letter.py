"""Content of a dead letter: what it keeps of a record, and the headers that describe the rest."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from streamguard.agents.output.dead_letter import (
    MAX_HEADERS_BYTES,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    Message,
    dead_letter,
    without_record,
)
from streamguard.events.event import Refusal
from streamguard.kafka.topics import MAX_EVENT_BYTES

REFUSAL = Refusal(0, "not_json", "it is not \N{GREEK SMALL LETTER ALPHA}" * 1000)
ORIGIN = {"sg.topic": b"events", "sg.partition": b"3", "sg.offset": b"7", "sg.reason": b"not_json"}


def record(value: bytes | None, key: bytes | None, headers: Any = ()) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("events", 3, 7, 0, 0, key, value, None, 0, 0, tuple(headers))


def headers_of(message: Message) -> dict[str, bytes | None]:
    return dict(message.headers)


def test_dead_letter_keeps_the_record_unchanged() -> None:
    message = dead_letter(
        record(b"x" * MAX_VALUE_BYTES, None, [("trace", None), ("sg.reason", b"fake")]), REFUSAL
    )
    assert (message.value, message.key) == (b"x" * MAX_VALUE_BYTES, None)
    headers = headers_of(message)
    assert headers.items() >= ORIGIN.items()
    assert headers["trace"] is None
    assert not headers.keys() & {"sg.cut", "sg.null", "sg.size", "sg.sha256"}


@pytest.mark.parametrize("letter", [dead_letter, without_record])
def test_null_key_and_value_are_marked_in_a_header(letter: Any) -> None:
    message = letter(record(None, None), REFUSAL)
    assert (message.value, message.key) == (None, b"")
    assert headers_of(message)["sg.null"] == b"key,value"


@pytest.mark.parametrize("key", [None, b"k"])
def test_too_large_value_is_replaced_by_size_and_digest(key: bytes | None) -> None:
    value = b"x" * (MAX_VALUE_BYTES + 1)
    message = dead_letter(record(value, key), REFUSAL)
    assert (message.value, message.key) == (b"", key)
    headers = headers_of(message)
    assert headers["sg.cut"] == b"value"
    assert headers["sg.size"] == str(len(value)).encode()
    assert headers["sg.sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert headers.items() >= ORIGIN.items()


@pytest.mark.parametrize(
    "headers",
    [[("h", b"x" * MAX_HEADERS_BYTES)], [("", None)] * MAX_HEADERS_BYTES, [("h" * MAX_HEADERS_BYTES, b"")]],
)
def test_oversized_headers_and_key_are_dropped(headers: Any) -> None:
    message = dead_letter(record(b"v", b"k" * (MAX_KEY_BYTES + 1), headers), REFUSAL)
    assert (message.value, message.key) == (b"v", b"")
    assert headers_of(message)["sg.cut"] == b"key,headers"
    assert len(message.headers) < 10


def test_dead_letter_fits_the_message_limit_of_its_topic() -> None:
    largest = record(b"x" * MAX_VALUE_BYTES, b"k" * MAX_KEY_BYTES, [("h", b"x" * (MAX_HEADERS_BYTES - 20))])
    message = dead_letter(largest, REFUSAL)
    assert "sg.cut" not in headers_of(message)
    assert MAX_EVENT_BYTES < message.size < MAX_EVENT_BYTES + 60_000
    assert without_record(largest, REFUSAL).size < 3000
