"""Refused events by reason, user and source: bounded, harmless to print, and equal however they are divided."""

from __future__ import annotations

import random

from streamguard.events.event import Refusal, parse
from streamguard.events.refusals import MAX_NAMES, SHOWN_NAMES, Refusals, count, lines, merged
from streamguard.text import printable


def table(refused: list[Refusal]) -> dict[str, Refusals]:
    counted: dict[str, Refusals] = {}
    count(counted, refused)
    return counted


def drawn(number: int) -> list[Refusal]:
    draw = random.Random(1)
    return [
        Refusal(
            k,
            draw.choice(("bad_timestamp", "missing_field", "not_json")),
            "",
            draw.choice(("", "ann", "bob", f"u{draw.randrange(30)}")),
            draw.choice(("", "10.0.0.1", f"10.0.0.{draw.randrange(30)}")),
        )
        for k in range(number)
    ]


def test_tables_of_parts_add_up_to_that_of_the_whole() -> None:
    refused = drawn(500)
    parts = [table(refused[a:b]) for a, b in ((0, 1), (1, 200), (200, 500))]
    assert merged(parts) == merged([table(refused)])
    assert list(merged(parts)) == list(merged([table(refused)]))
    assert sum(entry.number for entry in merged(parts).values()) == 500


def test_most_frequent_reasons_and_names_come_first() -> None:
    refused = [Refusal(k, "missing_field", "", f"u{min(k, 6)}", "") for k in range(20)]
    found = merged([table([Refusal(0, "not_json", ""), *refused])])
    assert list(found) == ["missing_field", "not_json"]
    assert found["missing_field"] == Refusals(20, {"u6": 14, "u0": 1, "u1": 1, "u2": 1, "u3": 1}, {})
    assert len(found["missing_field"].users) == SHOWN_NAMES


def test_names_are_bounded_in_number_and_length_and_printable() -> None:
    known = [Refusal(0, "bad_timestamp", "", "ann", "")]
    flood = [Refusal(0, "bad_timestamp", "", "\x1b[2J\u202e\n" * 1000 + str(k), str(k)) for k in range(1000)]
    entry = table(known + flood + known)["bad_timestamp"]
    assert entry.number == 1002
    assert len(entry.users) <= MAX_NAMES and len(entry.sources) == MAX_NAMES
    assert entry.users["ann"] == 2
    for line in lines({"bad_timestamp": entry}):
        assert line == printable(line) and len(line) < 2000


def test_user_and_source_of_an_event_that_can_be_read_so_far_are_counted() -> None:
    refused = parse(
        [
            b'{"user": "ann", "source_ip": "10.0.0.1"}',
            b'{"user": null, "source_ip": "10.0.0.1"}',
            b"{",
        ]
    ).refused
    assert lines(table(refused)) == ["refused as missing_field: user ann 1; source 10.0.0.1 2"]
