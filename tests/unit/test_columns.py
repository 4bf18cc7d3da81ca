"""Conversion of events to arrays."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.events import indicators as flag
from streamguard.events.columns import MAX_COMMAND, MAX_QUANTITY, TEXTS, Columns, columns
from streamguard.events.event import parse
from tests.streams import START, event


def of(kind: str = "auth_attempt", **fields: Any) -> Columns:
    events, _, refused, _ = parse([event(START, "ann", kind, **fields)])
    assert not refused
    return columns(events)


def texts(c: Columns) -> dict[str, str]:
    return dict(zip(TEXTS, c.texts, strict=True))


def test_texts_of_an_event_are_hashed() -> None:
    c = of(
        source_ip="10.0.0.1",
        status="failed",
        metadata={"geo_location": "DE-Berlin", "hostname": "laptop", "user_agent": "curl"},
        auth_details={"auth_type": "password", "failure_reason": "bad_password"},
    )
    assert texts(c) == {
        "source": "10.0.0.1", "location": "DE-Berlin", "host": "laptop", "agent": "curl", "resource": "password",
        "type": "auth_attempt", "reason": "bad_password", "action": "auth_attempt (failed)", "command": "", "name": "",
    }  # fmt: skip
    assert c.hashes.shape == (1, len(TEXTS))
    assert (c.hashes[:, :8] != 0).all()
    assert c.users == ["ann"]
    assert c.timestamp.tolist() == [START]


def test_absent_texts_hash_to_zero() -> None:
    c = of("other")
    assert c.hashes[0, :5].tolist() == [0] * 5
    assert c.network[0] == c.area[0] == 0
    assert (c.threat[0], c.volume[0]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "details", "resource"),
    [
        ("network_connection", {"network_details": {"destination_hostname": "db.example"}}, "db.example"),
        ("network_connection", {"destination_ip": "10.9.9.9", "network_details": {}}, "10.9.9.9"),
        ("file_access", {"file_details": {"file_path": "C:\\Users\\ann\\x.txt"}}, "C:/Users/ann"),
        ("file_access", {"file_details": {"file_path": "/srv/share/x.txt"}}, "/srv/share"),
        ("process_execution", {"process_details": {"process_name": "cmd.exe"}}, "cmd.exe"),
        ("dns_query", {"dns_details": {"query_name": "a.b.example.com."}}, "example.com"),
        ("anything", {"destination_ip": "10.9.9.9"}, "10.9.9.9"),
    ],
)
def test_resource_depends_on_the_event_type(kind: str, details: dict[str, Any], resource: str) -> None:
    assert texts(of(kind, **details))["resource"] == resource


DETAILS: dict[str, tuple[dict[str, Any], int]] = {
    "auth_details": ({"auth_type": "password"}, 0),
    "network_details": ({"destination_hostname": "db.example", "bytes_sent": 9}, flag.HAS_VOLUME),
    "file_details": (
        {"file_path": "/a/b", "operation": "encrypt", "file_size_bytes": 9},
        flag.FILE_CHANGE | flag.HAS_VOLUME,
    ),
    "process_details": ({"process_name": "x", "command_line": "mimikatz"}, flag.CREDENTIAL_DUMP),
    "dns_details": ({"query_name": "xkqzjvwpqhtrw.biz", "response_code": 3}, flag.GENERATED_NAME),
}
"""Details of each kind, and the flags that they set."""


@pytest.mark.parametrize("hidden", DETAILS)
def test_empty_details_hide_nothing(hidden: str) -> None:
    details, flags = DETAILS[hidden]
    empty: dict[str, Any] = {name: {} for name in DETAILS if name != hidden}
    alone, padded = of("event", **{hidden: details}), of("event", **{**empty, hidden: details})
    assert alone.flags[0] & flags == flags
    assert (padded.flags[0], padded.volume[0], padded.texts) == (alone.flags[0], alone.volume[0], alone.texts)


@pytest.mark.parametrize("hidden", DETAILS)
@pytest.mark.parametrize("shown", DETAILS)
def test_details_of_one_kind_hide_no_flag_and_no_volume_of_another(shown: str, hidden: str) -> None:
    both = of("event", **{shown: DETAILS[shown][0], hidden: DETAILS[hidden][0]})
    flags = DETAILS[shown][1] | DETAILS[hidden][1]
    assert both.flags[0] & flags == flags
    first = min(shown, hidden, key=list(DETAILS).index)
    assert texts(both)["resource"] == texts(of("event", **{first: DETAILS[first][0]}))["resource"] != ""


def test_negative_bytes_of_one_kind_hide_no_volume_of_another() -> None:
    c = of("event", network_details={"bytes_sent": -1e12}, file_details={"file_size_bytes": 5000})
    assert c.volume[0] == 5000.0
    c = of("event", network_details={"bytes_sent": 5000}, file_details={"file_size_bytes": -1e12})
    assert c.volume[0] == 5000.0


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("success", flag.SUCCEEDED), ("", flag.SUCCEEDED), (None, flag.SUCCEEDED), ("failed", flag.FAILED),
        ("failure", flag.FAILED), ("blocked", flag.FAILED), ("denied", flag.FAILED), ("pending", 0), ("odd", 0),
    ],
)  # fmt: skip
def test_status_sets_the_outcome_flags(status: str | None, expected: int) -> None:
    assert of(status=status).flags[0] & (flag.FAILED | flag.SUCCEEDED) == expected


def test_quantities_are_bounded() -> None:
    sent = {"bytes_sent": 1e308, "bytes_received": 1e308}
    assert of("network_connection", network_details=sent).volume[0] == MAX_QUANTITY
    assert of("network_connection", network_details={"bytes_sent": -5}).volume[0] == 0.0
    assert of(threat_score=1e300).threat[0] == 1e6
    assert of(threat_score=-3).threat[0] == 0.0


def test_details_set_flags() -> None:
    read = of("file_access", file_details={"operation": "Download", "file_size_bytes": 9}).flags[0]
    assert read & flag.FILE_READ
    assert read & flag.HAS_VOLUME
    written = of("file_access", file_details={"operation": "write", "is_encrypted": True}).flags[0]
    assert written & flag.FILE_CHANGE
    assert written & flag.ENCRYPTED
    for code in ("NXDOMAIN", 3, "3"):
        dns = {"query_name": "xkqzjvwpqhtrw.biz", "response_code": code}
        assert of("dns_query", dns_details=dns).flags[0] & flag.GENERATED_NAME
    assert of(threat_score=0.0).flags[0] & flag.HAS_THREAT
    assert not of().flags[0] & flag.HAS_THREAT
    assert of("user_login").flags[0] & flag.AUTHENTICATION


def test_no_events_give_empty_arrays() -> None:
    c = columns([])
    assert len(c.users) == len(c.timestamp) == len(c.hashes) == 0


def test_command_has_no_particulars() -> None:
    def command(line: str) -> str:
        return texts(of("process_execution", process_details={"process_name": "ssh", "command_line": line}))[
            "command"
        ]

    assert command("ssh srv-12 -p 2222") == command("SSH srv-7 -p 22") == "ssh srv-# -p #"
    assert command("del {3F2504E0-4F89-11D3-9A0C-0305E82C3301}") == "del #"
    assert command("ssh srv-1") != command("scp srv-1")
    assert len(command("a b " * 1000)) <= MAX_COMMAND


def test_operation_on_a_file_is_part_of_the_action() -> None:
    c = of("file_access", file_details={"file_path": "/srv/a", "operation": "Delete"})
    assert texts(c)["action"] == "file_access delete"


def test_only_a_dns_name_with_an_indicator_is_kept() -> None:
    assert texts(of("dns_query", dns_details={"query_name": "www.example.com"}))["name"] == ""
    long = "q" * 40 + ".t.example.com"
    c = of("dns_query", dns_details={"query_name": long})
    assert (texts(c)["name"], texts(c)["resource"]) == (long, "example.com")
