"""Optional fields, repairs and valid timestamps of events."""

from __future__ import annotations

import pytest

from streamguard.events.event import EARLIEST_MS, LATEST_MS, parse
from streamguard.events.event_time import epoch_ms
from tests.streams import START, event


def test_user_or_source_is_sufficient() -> None:
    events, index, refused, _ = parse([event(START, None, source_ip="10.0.0.1"), event(START, "ann")])
    assert [e.user for e in events] == [None, "ann"]
    assert index == [0, 1]
    assert refused == []


def test_unknown_types_and_fields_are_accepted() -> None:
    events, _, refused, _ = parse([event(START, "ann", "coffee_made", strength=[1, {"x": None}])])
    assert refused == []
    assert events[0].event_type == "coffee_made"


def test_null_means_absent() -> None:
    values = dict.fromkeys(
        ("source_ip", "threat_score", "status", "metadata", "auth_details", "network_details", "dns_details")
    )
    assert len(parse([event(START, "ann", **values)])[0]) == 1


@pytest.mark.parametrize(
    ("stamp", "ms"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000.25, 1_700_000_000_250),
        ("1700000000.25", 1_700_000_000_250),
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000_123_456_789, 1_700_000_000_123),
        ("2023-11-14T22:13:20", 1_700_000_000_000),
        ("2023-11-14 22:13:20+00:00", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("2023-11-14T22:13:20.123456Z", 1_700_000_000_123),
        ("2023-11-14t22:13:20z", 1_700_000_000_000),
        ("2023-11-14 22:13:20 UTC", 1_700_000_000_000),
        ("2023-11-14T22:13:20 GMT", 1_700_000_000_000),
        ("2023-11-14 22:13:20 Z", 1_700_000_000_000),
        ("2023-11-14 23:13:20 +0100", 1_700_000_000_000),
        (" 2023-11-14T22:13:20Z ", 1_700_000_000_000),
        ("20231114T221320Z", 1_700_000_000_000),
        ("2023-11-14T22:13:20,5Z", 1_700_000_000_500),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2016-12-31T23:59:60.5+00:00", 1_483_228_800_500),
        ("1.7e9", 1_700_000_000_000),
        ("1.7e12", 1_700_000_000_000),
        ("17000000000000e-1", 1_700_000_000_000),
        ("1712123112304", 1_712_123_112_304),
        (" 1700000000 ", 1_700_000_000_000),
        ("", None),
        ("1_700_000_000", None),
        ("nan", None),
        ("2023-11-14T22:61:60Z", None),
        ("2023-11-14T22:13:20Z" + " " * 100, None),
        ("2023-11-14", 1_699_920_000_000),
        ("tomorrow", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (-(10**400), None),
    ],
)
def test_timestamps_are_converted_to_milliseconds(stamp: int | float | str, ms: int | None) -> None:
    assert epoch_ms(stamp) == ms


def test_years_outside_the_accepted_range_are_refused() -> None:
    stamps = (EARLIEST_MS - 1, EARLIEST_MS, LATEST_MS - 1, LATEST_MS)
    _, index, refused, _ = parse([event(stamp) for stamp in stamps])
    assert index == [1, 2]
    assert {r.reason for r in refused} == {"timestamp_out_of_range"}
