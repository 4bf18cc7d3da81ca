"""The lenient reader: every repair, and the same values as the strict decoder for strict JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events.event import MAX_USER_CHARACTERS, UNKNOWN_STATUS, Event, RepairedEvent, parse
from streamguard.events.lenient import MAX_DEPTH, REPAIRS, LenientReader, NotAnObjectError, Repair
from streamguard.events.scan import unescape
from tests.streams import START, event

READER = LenientReader(Event)


def one(value: bytes) -> tuple[Event, list[str]]:
    """The only event of a chunk, and its repairs."""
    parsed = parse([value])
    assert parsed.refused == []
    (read,) = parsed.events
    assert parsed.repaired == ([read] if isinstance(read, RepairedEvent) else [])
    return read, [str(repair) for repair in read.repairs] if isinstance(read, RepairedEvent) else []


def with_value(field: str, raw: bytes) -> bytes:
    """An event with raw JSON as a field."""
    group, _, name = field.rpartition(".")
    inner = b'{"%s":%s}' % (name.encode(), raw) if group else raw
    given = msgspec.json.decode(event(START, "ann", source_ip="10.0.0.1"))
    return msgspec.json.encode({**given, group or name: msgspec.Raw(inner)})


@pytest.mark.parametrize(
    ("field", "raw", "value", "repair"),
    [
        ("event_type", b"4625", "4625", "converted"),
        ("user", b"1001", "1001", "converted"),
        ("user", b"1" * 40, "1" * 40, "converted"),
        ("status", b"true", "true", "converted"),
        ("threat_score", b'"0.7"', 0.7, "converted"),
        ("threat_score", b"true", 1.0, "converted"),
        ("network_details.bytes_sent", b'"1024"', 1024.0, "converted"),
        ("file_details.is_encrypted", b'"True"', True, "converted"),
        ("file_details.is_encrypted", b"1", True, "converted"),
        ("dns_details.response_code", b"3.5", "3.5", "converted"),
        ("source_ip", b'["192.0.2.3", "10.0.0.1"]', "192.0.2.3", "unwrapped"),
        ("source_ip", b'[null, "", "192.0.2.3"]', "192.0.2.3", "unwrapped"),
        ("source_ip", b'{"port": 5, "ip": ["192.0.2.3"]}', "192.0.2.3", "unwrapped"),
        ("user", b'{"id": "7", "name": "alice"}', "alice", "unwrapped"),
        ("user", b'{"domain": "x"}', None, "wrong_type"),
        ("user", b"[[[[1]]]]", None, "wrong_type"),
        ("metadata.hostname", b'["a", "b"]', "a", "unwrapped"),
        ("process_details.command_line", b'["reg", "save", "hklm"]', "reg save hklm", "unwrapped"),
        ("process_details.command_line", b'["a", 5, "\\ud800"]', "a 5 \ufffd", "unwrapped"),
        ("threat_score", b'"high"', None, "wrong_type"),
        ("threat_score", b"high", None, "wrong_type"),
        ("user", b"alice", None, "wrong_type"),
        ("status", b"[]", UNKNOWN_STATUS, "wrong_type"),
        ("status", b"{}", UNKNOWN_STATUS, "wrong_type"),
        ("threat_score", b"NaN", None, "out_of_range"),
        ("threat_score", b"1e999", 1.7976931348623157e308, "out_of_range"),
        ("network_details.bytes_sent", b"9" * 100_000, 1.7976931348623157e308, "out_of_range"),
        ("threat_score", b'"-inf"', -1.7976931348623157e308, "out_of_range"),
        ("user", b'"a\\udcff"', "a\ufffd", "bad_text"),
        ("user", b'"a\xff"', "a\ufffd", "bad_text"),
        ("user", b'"a\\x41"', "a\\x41", "bad_text"),
        ("user", b'"a\\u12"', "a\\u12", "bad_text"),
        ("user", b'"a\nb"', "a\nb", "bad_text"),
        ("user", b'"\\ud83d\\ude00\\ud83d"', "\U0001f600\ufffd", "bad_text"),
    ],
)
def test_a_value_is_repaired(field: str, raw: bytes, value: Any, repair: str | None) -> None:
    read, repairs = one(with_value(field, raw))
    for name in field.split("."):
        read = getattr(read, name)
    assert read == value
    assert not repair or f"{field}: {repair}" in repairs
    assert {text.rpartition(" ")[2] for text in repairs} <= set(REPAIRS)


@pytest.mark.parametrize("raw", [b"5", b'"x"', b"[]", b"true", b"[5]"])
def test_a_group_of_another_type_is_dropped(raw: bytes) -> None:
    read, repairs = one(with_value("auth_details", raw))
    assert (read.auth_details, read.source_ip) == (None, "10.0.0.1")
    assert repairs == ["auth_details: wrong_type"]


def test_a_group_in_a_list_is_read() -> None:
    read, repairs = one(with_value("metadata", b'[{"hostname": "h"}, {}]'))
    assert read.metadata is not None and read.metadata.hostname == "h"
    assert repairs == ["metadata: unwrapped"]


def test_brackets_in_texts_and_wide_records_are_not_nested() -> None:
    for value in (
        event(START, metadata={"user_agent": "[" * 5000}),
        event(START, process_details={"command_line": '{[\\"' * 500}),
        event(START, x=[[]] * 500),
        event(START, x=json.loads("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)), y=["[" * 300]),
    ):
        assert one(value) == (msgspec.convert(msgspec.json.decode(value), Event), [])


@pytest.mark.parametrize("depth", [MAX_DEPTH, 400, 100_000])
@pytest.mark.parametrize("field", ["x", "destination_ip", "metadata", "dns_details.query_name"])
def test_a_value_that_is_nested_too_deeply_costs_only_itself(field: str, depth: int) -> None:
    read, repairs = one(with_value(field, b"[" * depth + b"]" * depth))
    assert (read.user, read.source_ip) == ("ann", "10.0.0.1")
    assert "too_deep" in repairs


def test_long_users_stay_different() -> None:
    users = ["u" * MAX_USER_CHARACTERS, "u" * 1000, "u" * 1001, "u" * 1000 + "\ud800"]
    read = [one(json.dumps({"timestamp": START, "event_type": "t", "user": user}).encode()) for user in users]
    assert read[0] == (Event(START, "t", users[0]), [])
    assert len({e.user for e, _ in read}) == 4
    assert {len(e.user or "") for e, _ in read} == {MAX_USER_CHARACTERS}
    assert all("user: too_long" in repairs for _, repairs in read[1:])


def test_without_a_type_an_event_is_scored() -> None:
    for value in (
        b'{"timestamp": %d, "user": "a"}' % START,
        b'{"timestamp": %d, "user": "a", "event_type": null}' % START,
    ):
        assert one(value) == (
            RepairedEvent(START, "", "a", repairs=(Repair("event_type", "missing_type"),)),
            ["event_type: missing_type"],
        )


def test_a_byte_order_mark_is_skipped() -> None:
    assert one(b"\xef\xbb\xbf" + event(START))[1] == ["bad_text"]


def test_an_escaped_name_is_the_name_and_the_last_value_counts() -> None:
    value = (
        b'{"us\\u0065r": "bob", "user\\u0000": "x", "user\x00": "x", "timestamp": %d, "a": 1, "a": [nothing]}'
        % START
    )
    assert one(value)[0].user == "bob"
    assert one(value.replace(b'"a": 1', b'"user": 5'))[0].user == "5"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4), st.booleans(), st.sampled_from([None, 2]))
def test_strict_json_is_read_like_the_strict_decoder_does(
    more: dict[str, Any], ascii: bool, indent: int | None
) -> None:
    good = {
        "timestamp": START,
        "event_type": "t",
        "user": "ann",
        "metadata": {"hostname": 'a"\\☃'},
        "dns_details": None,
    }
    value = json.dumps({**more, **good, "x": more}, ensure_ascii=ascii, indent=indent).encode()
    fields, repairs, depth = READER.read(value)
    assert repairs == []
    assert Event(**fields) == msgspec.json.decode(value, type=Event)
    assert depth == measured(json.loads(value))
    for cut in range(0, len(value) - 1, 7):
        with pytest.raises(NotAnObjectError):
            READER.read(value[:cut])


@pytest.mark.parametrize(("value", "what"), [
    (b'[{"a": 1}]', "one object in each line"),
    (b"\x1f\x8b\x08", "gzip"),
    ("{}".encode("utf-16"), "UTF-16"),
    (b"{", "ends early, at byte 1"),
    (b'{"a": 1', "ends early, at byte 7"),
    (b'{"a" 1}', "damaged at byte 6 of 7"),
    (b"7", "not a JSON object"),
])  # fmt: skip
def test_text_that_is_no_object_is_described(value: bytes, what: str) -> None:
    with pytest.raises(NotAnObjectError, match=what):
        READER.read(value)


def measured(value: Any) -> int:
    """Independent measure of nesting."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(measured, value), default=0) if isinstance(value, list) else 0


@given(
    st.lists(
        st.sampled_from(
            ["\\", "u", "d83d", "\\ude00", "dc00", "\\/", "\\n", "00e9", "x", "é", "\\ud83d", "☃"]
        )
    ).map("".join)
)
def test_texts_are_unescaped_as_by_the_standard_library(text: str) -> None:
    raw = np.frombuffer(text.encode(), np.uint8)
    out = np.empty(len(raw), np.uint8)
    length, faults = unescape(raw, out)
    read = out[:length].tobytes().decode()
    try:
        expected = json.loads(f'"{text}"')
    except ValueError:
        assert faults
    else:
        assert read == re.sub("[\ud800-\udfff]", "\ufffd", expected)
        assert bool(faults) == (read != expected)
