"""An attacker's own text hides nothing: each attack is found as without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from streamguard.fold.patterns import PATTERNS
from tests.streams import MINUTE, START, Partition, habit

HISTORY = habit(1500)
NOW = START + len(HISTORY) * 20_000
PAD = "x" * 1000
ENCODED = "powershell.exe -nop -enc " + "QQBB" * 8

Fields = dict[str, Any]
Disguise = Callable[[Fields], bytes]


def login(ms: int, user: str, source: str, status: str = "failed", place: str = "US-Ohio") -> Fields:
    return {
        "timestamp": NOW + ms,
        "user": user,
        "event_type": "auth_attempt",
        "source_ip": source,
        "status": status,
        "metadata": {"geo_location": place},
    }


ATTACKS: dict[str, list[Fields]] = {
    "brute force and takeover": [
        *(login(2000 * k, "user3", "203.0.113.9") for k in range(20)),
        login(60_000, "user3", "203.0.113.9", "success"),
    ],
    "spray": [login(1000 * k, f"user{k % 20}", "203.0.113.9") for k in range(30)],
    "stuffing": [login(300 * k, f"name{k}", f"203.0.{k}.9") for k in range(60)],
    "impossible travel": [
        login(0, "user5", "10.5.0.1", "success", "DE-Berlin"),
        login(5 * MINUTE, "user5", "203.0.113.9", "success"),
    ],
    "encoded command": [
        {**login(1000 * k, "user7", "10.7.0.1", "success"), "process_details": {"command_line": ENCODED}}
        for k in range(3)
    ],
}


def encoded(fields: Fields) -> bytes:
    return msgspec.json.encode(fields)


def with_agent(agent: bytes) -> Disguise:
    """Raw JSON of the user agent."""
    return with_metadata({"user_agent": msgspec.Raw(agent)})


def with_metadata(more: Fields) -> Disguise:
    return lambda fields: encoded({**fields, "metadata": {**fields["metadata"], **more}})


def with_field(name: str, value: bytes) -> Disguise:
    """A further field in front, as raw JSON."""
    return lambda fields: b'{"' + name.encode() + b'":' + value + b"," + encoded(fields)[1:]


def with_wrong_types(value: bytes) -> Disguise:
    """Raw JSON as the value of every optional field that the attacks do not need."""
    wrong = msgspec.Raw(value)

    def disguise(fields: Fields) -> bytes:
        hide = with_metadata({"user_agent": wrong, "hostname": wrong})
        return hide({**dict.fromkeys(OPTIONAL, wrong), **fields})

    return disguise


def with_details(login: Fields, network: Fields) -> Disguise:
    """The event also has details of kinds that it does not need."""
    return lambda fields: encoded({"auth_details": login, "network_details": network, **fields})


def with_command(around: Callable[[str], str]) -> Disguise:
    def disguise(fields: Fields) -> bytes:
        if "process_details" not in fields:
            return encoded(fields)
        value = encoded({**fields, "process_details": {"command_line": around(ENCODED)}})
        return value.replace(b"@", b"\\ud800")

    return disguise


OPTIONAL = ("destination_ip", "threat_score", "failure_reason", "auth_details", "network_details", "file_details",
            "dns_details")  # fmt: skip
WRONG = (b"5", b"true", b'"high"', b"[]", b'[["x"]]', b"NaN", b"-Infinity", b"nothing", b'"\\q\\ud800"')

PADDINGS = {
    "padding in front of the command": lambda command: "x" * 50_000 + " " + command,
    "padding behind the command": lambda command: command + " " + "x" * 50_000,
    "padding around the command": lambda command: "{" * 3000 + " " + command + " " + "[" * 3000,
    "half a surrogate pair in front of the command": lambda command: "@" + command,
}
DISGUISES: dict[str, Disguise] = {
    "brackets in the user agent": with_agent(b'"' + b"[" * 201 + PAD.encode() + b'"'),
    "braces in a field that is not scored": with_field("x", b'"' + b"{" * 201 + PAD.encode() + b'"'),
    "deep nesting in a field that is not scored": with_field("x", b"[" * 5000 + b"]" * 5000),
    "deep nesting as user agent": with_agent(b"[" * 5000 + b"]" * 5000),
    "half a surrogate pair": with_agent(b'"curl\\udcff"'),
    "bytes that are not UTF-8": with_agent(b'"curl\xff\xfe"'),
    "an unknown escape": with_agent(b'"curl\\x41"'),
    "a control character": with_agent(b'"curl\x00\x1b\n"'),
    "a number that is none": with_field("x", b"NaN"),
    "empty details of every kind": with_details({}, {}),
    "details of a login": with_details({"auth_type": "password"}, {"destination_hostname": "db.example"}),
    "a long number": with_field("threat", b"9" * 100_000),
    **{name: with_command(around) for name, around in PADDINGS.items()},
    **{f"{value.decode()} as every optional field": with_wrong_types(value) for value in WRONG},
}


def verdicts(attack: str, disguise: Disguise) -> list[tuple[set[str], bool]]:
    """Patterns of each event of an attack after an ordinary history, and whether the event is alerted."""
    values = [disguise(fields) for fields in ATTACKS[attack]]
    offsets = np.arange(len(HISTORY), len(HISTORY) + len(values))
    folded = Partition(dict(saved_history())).state.fold(values, offsets)
    assert folded.refused == []
    return [
        ({p.name for k, p in enumerate(PATTERNS) if bits >> k & 1}, bool(kind))
        for bits, kind in zip(folded.patterns.tolist(), folded.kind.tolist(), strict=True)
    ]


@cache
def saved_history() -> tuple[tuple[bytes, bytes], ...]:
    partition = Partition()
    partition.run(HISTORY)
    return tuple(partition.saved.items())


@cache
def undisguised(attack: str) -> list[tuple[set[str], bool]]:
    return verdicts(attack, encoded)


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_found(attack: str) -> None:
    assert any(alerted for _, alerted in undisguised(attack))


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_found_in_every_disguise(attack: str, disguise: str) -> None:
    for (names, alerted), (plain, expected) in zip(
        verdicts(attack, DISGUISES[disguise]), undisguised(attack), strict=True
    ):
        assert names == plain
        assert alerted >= expected
