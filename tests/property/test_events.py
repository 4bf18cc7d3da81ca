"""Hostile input: every record is scored or refused with a known reason, and later good events are still scored."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.alerts.incident import encode
from streamguard.events.event import REASONS, Parsed, Withheld, parse
from streamguard.events.event_time import epoch_ms
from streamguard.events.lenient import Repair
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.settings.schema import Detection
from tests.incidents import published
from tests.streams import START, Partition, event, fold_one

FIELDS = (
    "timestamp", "event_type", "user", "source_ip", "destination_ip", "threat_score", "rule_name", "status",
    "failure_reason", "metadata", "auth_details", "network_details", "file_details", "process_details", "dns_details",
    "unknown",
)  # fmt: skip
ODD = (
    b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\udc00"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\x00"',
    b'"\\q"',
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e308", b"1e-400", b"9" * 30, b"9" * 400, b"9" * 5000, b"-1", b"0",
    b"1e15", b"true", b"null", b"[]", b"{}", b'""', b'"' + b"x" * 70_000 + b'"', b"[" * 180 + b"]" * 180,
    b'{"bytes_sent": 1e308, "bytes_received": 1e308}', b'{"bytes_sent": -5, "file_size_bytes": -1e300}',
    b'{"hostname": 5}', b'{"query_name": "' + b"." * 300 + b'", "response_code": 3}', b'{"query_name": null}',
    b'{"file_path": "\\\\\\\\", "operation": "READ", "is_encrypted": null}',
    b'{"process_name": null, "command_line": "mimikatz"}', b'{"command_line": "\\u0000\\n mimikatz"}',
    '"یوزر ☃"'.encode(), b'"1970-01-01T00:00:00Z"', b'"2200-01-01T00:00:00Z"', b'"0001-01-01T00:00:00+23:59"',
    b'"9999-12-31T23:59:59.999999-23:59"', b'"2023-02-30"', b'"1e400"', b'"-"', b'"nan"', b'"1_0"', b"7258118400000",
    b"-62135596800000", b"4102444799999", b"946684800000", b"1e11", b"99999999999.5",
)  # fmt: skip


def document(fields: dict[str, bytes]) -> bytes:
    """An attack event of a user, with some of its fields replaced by raw JSON."""
    whole = {
        "timestamp": b"%d" % START,
        "event_type": b'"process_execution"',
        "user": b'"eve"',
        "process_details": b'{"command_line": "mimikatz"}',
        **fields,
    }
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in whole.items()) + b"}"


def assert_survives(value: bytes | None) -> None:
    """Fold the record between two good ones, with every event alerted."""
    partition = Partition(resident=64, detection=Detection(alert_risk=0.0))
    values = [event(START, "ann"), value, event(START + 1000, "ann")]
    folded = partition.state.fold(values, np.arange(3))
    assert {r.reason for r in folded.refused} <= set(REASONS)
    assert folded.index + [r.index for r in folded.refused] in ([0, 1, 2], [0, 2, 1])
    for name in ("features", "raw", "excess", "score", "tail", "evidence"):
        assert np.isfinite(getattr(folded, name)).all(), name
    for update in folded.incidents:
        record = encode(update.incident)
        assert len(record) < 1_000_000
        assert published(record)["event"] is not None
    partition.save()
    assert partition.state.next_offset == 3
    again = fold_one(Partition(partition.saved, resident=64), event(START + 2000, "ann"), 3)
    assert again.count == 1
    assert np.isfinite(again.features).all()


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD), min_size=1, max_size=3))
def test_records_with_odd_fields_are_handled(fields: dict[str, bytes]) -> None:
    assert_survives(document(fields))


@pytest.mark.parametrize("field", FIELDS)
def test_each_odd_value_in_each_field_is_handled(field: str) -> None:
    partition = Partition(resident=2000, detection=Detection(alert_risk=0.0))
    values = [document({field: value}) for value in ODD]
    folded = partition.state.fold([*values, event(START, "ann")], np.arange(len(values) + 1))
    assert {r.reason for r in folded.refused} <= set(REASONS)
    assert len(values) in folded.index
    assert np.isfinite(folded.features).all()
    assert np.isfinite(folded.evidence).all()
    for incident in folded.incidents:
        assert encode(incident.incident)
    partition.save()


@settings(max_examples=60)
@given(st.one_of(st.none(), st.binary(max_size=80), st.text(max_size=40).map(str.encode)))
def test_any_bytes_are_handled(value: bytes | None) -> None:
    assert_survives(value)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6))
def test_any_json_types_are_handled(fields: dict[str, Any]) -> None:
    assert_survives(document({name: msgspec.json.encode(value) for name, value in fields.items()}))


@settings(max_examples=60)
@given(st.integers(0, 200), st.binary(max_size=3))
def test_damaged_events_are_handled(at: int, noise: bytes) -> None:
    good = event(
        START, "eve", source_ip="203.0.113.9", metadata={"hostname": "a"}, auth_details={"auth_type": "sso"}
    )
    at %= len(good)
    assert_survives(good[:at])
    assert_survives(good[:at] + noise + good[at + len(noise) :])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"not json", "not_json"),
        (b"\x00" * 10, "not_json"),
        (b'{"timestamp": NaN, "user": "a", "event_type": "t"}', "bad_timestamp"),
        (b'{"timestamp": 1, "user": "\xff", "event_type": "t"}', "timestamp_out_of_range"),
        (b"5", "not_json"),
        (b"[]", "not_json"),
        (event(START)[:-1], "not_json"),
        (event(START)[:-1] + b"]", "not_json"),
        (event(START) + b"x", "not_json"),
        (event(START) + event(START), "not_json"),
        (b'{"user": "a", "event_type": "t"}', "missing_field"),
        (event(START, None), "missing_user"),
        (event(START, ""), "missing_user"),
        (event(START, " "), "missing_user"),
        (event(START, "N/A"), "missing_user"),
        (document({"timestamp": b'"soon"'}), "bad_timestamp"),
        (document({"timestamp": b"9" * 400}), "bad_timestamp"),
        (document({"timestamp": b'"1970-01-01T00:00:00Z"'}), "timestamp_out_of_range"),
        (document({"timestamp": b'"2200-01-01T00:00:00Z"'}), "timestamp_out_of_range"),
        (event(START, note="x" * MAX_EVENT_BYTES), "too_large"),
        (b"x" * (MAX_EVENT_BYTES + 1), "too_large"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "missing_field"),
        (b'{"x":' + b"[" * 990, "not_json"),
        (b'{"x":' * 190_000, "not_json"),
        (document({"user": b"[]", "source_ip": b"[{}]"}), "missing_user"),
    ],
)
def test_refusals_have_the_expected_reason(value: bytes | None, reason: str) -> None:
    events, _, refused, _ = parse([value])
    assert not events
    assert (refused[0].reason, refused[0].index) == (reason, 0)
    assert len(refused[0].detail) <= 200
    assert_survives(value)


def test_nesting_never_raises_at_any_depth_of_the_caller() -> None:
    """A short record of brackets once raised RecursionError if the stack of the caller was deep."""
    good = event(START)[:-1] + b',"x":' + b"[" * 400 + b"]" * 400 + b"}"

    def deeper(levels: int) -> Parsed:
        return deeper(levels - 1) if levels else parse([good, b'{"x":' + b"[" * 900])

    parsed = deeper(sys.getrecursionlimit() // 2)
    assert parsed == parse([good, b'{"x":' + b"[" * 900])
    assert [r.reason for r in parsed.refused] == ["not_json"]
    assert parsed.repaired[0].repairs == (Repair("", "too_deep"),)


@pytest.mark.parametrize(
    "user", ["-", " - ", "N/A", "n/a", "(null)", "None", "NULL", "unknown", "Unknown", "\t", "  "]
)
def test_text_that_stands_for_no_user_names_none(user: str) -> None:
    """Events without a user, once all of one user, belong to their sources."""
    values = [event(START, user, source_ip=source) for source in ("192.0.2.1", "192.0.2.2")]
    assert [one.user for one in parse(values).events] == [None, None]
    (refused,) = parse([event(START, user)]).refused
    assert (refused.reason, refused.user) == ("missing_user", "")


@pytest.mark.parametrize("user", ["na", "nil", "root", "0", "x-", "-x", " ann", "Unknown Soldier"])
def test_name_that_looks_like_none_is_a_user(user: str) -> None:
    (one,) = parse([event(START, user)]).events
    assert one.user == user


@pytest.mark.parametrize("reason", ["not_json", "too_large"])
def test_refused_text_names_its_subject_as_far_as_it_is_read(reason: str) -> None:
    whole = event(
        START, "eve", source_ip="192.0.2.66", note="x" * (MAX_EVENT_BYTES if reason == "too_large" else 9)
    )
    value = whole if reason == "too_large" else whole[:-3]
    (refused,) = parse([value]).refused
    assert (refused.reason, refused.user, refused.source) == (reason, "eve", "192.0.2.66")
    head = Withheld(reason, "", value[:4096], len(value), "", 0, 0)
    (refused,) = parse([head]).refused
    assert (refused.reason, refused.user, refused.source) == (reason, "eve", "192.0.2.66")


def test_time_that_cannot_be_read_is_shown_harmless_and_short() -> None:
    (refused,) = parse([event("Dec 10 06:55:46", "eve")]).refused
    assert refused.detail == "the timestamp 'Dec 10 06:55:46' is neither a number nor RFC 3339"
    (refused,) = parse([event("\x1b[2J\u202e" + "9" * 1000, "eve")]).refused
    assert refused.detail.isprintable() and len(refused.detail) < 100


def test_event_of_megabytes_is_scored() -> None:
    (one,) = parse([event(START, "eve", note="x" * (MAX_EVENT_BYTES - 1000))]).events
    assert one.user == "eve"


def test_alerted_event_with_an_invalid_ignored_field_is_published_repaired() -> None:
    """Scoring does not check ignored fields; publishing such an incident once raised an error at each restart."""
    for odd in (
        b'"\xff"',
        b"1e999",
        b"9" * 5000,
        b'"\\ud800"',
        b"NaN",
        b'"\\x41"',
        b'"\x01"',
        b'"[[' + b"[" * 300 + b'"',
    ):
        partition = Partition(resident=64, detection=Detection(alert_risk=0.0))
        folded = fold_one(partition, document({"unknown": odd}), 0)
        body = published(encode(folded.incidents[0].incident))
        assert "mimikatz" in body["event"]["process_details"]["command_line"]


def test_alerted_event_that_is_no_document_is_published_as_text() -> None:
    for odd in (b"[" * 300 + b"]" * 300, b"nothing"):
        partition = Partition(resident=64, detection=Detection(alert_risk=0.0))
        folded = fold_one(partition, document({"unknown": odd}), 0)
        body = published(encode(folded.incidents[0].incident))
        assert "mimikatz" in body["event"]


def test_incident_is_small_for_an_event_of_any_size() -> None:
    """Kafka refuses a message over 1 MB by default, which would stop the worker at this event permanently."""
    numbers = b"[" + b",".join([b"1e15"] * 180_000) + b"]"
    long = b'"' + b"x" * 300_000 + b'"'
    for fields in ({"unknown": numbers}, {"source_ip": long, "event_type": long, "status": long}):
        value = document(fields)
        assert len(value) <= MAX_EVENT_BYTES
        partition = Partition(resident=64, detection=Detection(alert_risk=0.0))
        for user in (value, value.replace(b'"eve"', b'""')):
            for incident in fold_one(partition, user, (partition.state.next_offset or 0)).incidents:
                assert len(encode(incident.incident)) < 500_000


@given(st.one_of(st.integers(), st.floats(), st.text(max_size=30), st.datetimes().map(str)))
def test_epoch_ms_of_any_value_is_a_number_or_none(stamp: int | float | str) -> None:
    assert isinstance(epoch_ms(stamp), int | None)


@given(st.integers(946_684_800, 4_102_444_799), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_epoch_ms_detects_the_unit(seconds: int, unit: int) -> None:
    assert epoch_ms(seconds * unit) == seconds * 1000
    assert epoch_ms(str(seconds * unit)) == seconds * 1000
