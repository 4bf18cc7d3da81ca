"""Attack patterns: each is found as soon as it is complete, not earlier, and not if it is a habit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from streamguard.fold.evidence import HABIT_DAYS
from streamguard.fold.patterns import PATTERNS
from streamguard.settings.schema import Detection
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event

HOME = {"source_ip": "10.0.0.1", "metadata": {"geo_location": "DE-Berlin"}}
ENCODED = {
    "process_details": {"process_name": "powershell.exe", "command_line": "powershell -enc " + "QQBB" * 8}
}


def found(values: Iterable[bytes]) -> list[set[str]]:
    """The patterns of each event."""
    values = list(values)
    return [
        {p.name for k, p in enumerate(PATTERNS) if bits >> k & 1}
        for folded in Partition(detection=Detection(alert_risk=80.0)).chunks(values)
        for bits in folded.patterns.tolist()
    ]


def life(days: int = 40, **fields: Any) -> list[bytes]:
    """Four logins a day, ending on the evening of the day before `START + days`."""
    return [
        event(START + d * DAY + h * HOUR, status="success", **HOME, **fields)
        for d in range(days)
        for h in (8, 11, 14, 17)
    ]


NOW = START + 40 * DAY + 9 * HOUR


def files(n: int, operation: str, **details: Any) -> list[bytes]:
    return [
        event(NOW + 500 * k, kind="file_access", **HOME, file_details={"operation": operation, **details})
        for k in range(n)
    ]


def logins(n: int, status: str, start: int = NOW, step: int = 2000) -> list[bytes]:
    return [event(start + step * k, status=status, **HOME) for k in range(n)]


def first(name: str, values: list[bytes], before: list[bytes]) -> int | None:
    """Number of values before the first one that completes the pattern."""
    hits = [k for k, names in enumerate(found(before + values)) if name in names]
    return hits[0] - len(before) if hits else None


def test_ordinary_logins_complete_no_pattern() -> None:
    assert set().union(*found(life())) == set()


def test_brute_force_needs_consecutive_failures_within_minutes() -> None:
    assert first("brute_force", logins(20, "failed"), life()) == 7
    assert first("brute_force", logins(20, "failed", step=HOUR), life()) is None


def test_success_after_failures_needs_five_recent_failures() -> None:
    success = logins(1, "success", NOW + MINUTE)
    assert first("success_after_failures", logins(5, "failed") + success, life()) == 5
    assert first("success_after_failures", logins(4, "failed") + success, life()) is None
    assert (
        first("success_after_failures", logins(5, "failed") + logins(1, "success", NOW + HOUR), life())
        is None
    )


def test_password_spray_needs_many_users() -> None:
    tries = [event(NOW + 1000 * k, f"name{k}", status="failed", source_ip="203.0.113.9") for k in range(30)]
    at = first("password_spray", tries, life())
    assert at is not None
    assert 7 <= at < 15
    same = [event(NOW + 1000 * k, "ann", status="failed", source_ip="203.0.113.9") for k in range(30)]
    assert first("password_spray", same, life()) is None


def test_distributed_guessing_needs_a_wave_of_failures() -> None:
    # a wave is measured against the usual rate, so an hour of plain traffic comes first
    usual = [
        event(NOW + 10_000 * k, f"u{k % 9}", status="success", source_ip=f"10.1.0.{k % 9}")
        for k in range(360)
    ]
    wave = [
        event(NOW + HOUR + 1000 * k, f"u{k % 9}", status="failed", source_ip=f"198.{k}.7.1")
        for k in range(60)
    ]
    at = first("distributed_guessing", wave, life() + usual)
    assert at is not None
    assert at >= 3
    one_by_one = [
        event(NOW + HOUR + HOUR * k, f"u{k % 9}", status="failed", source_ip=f"198.{k}.7.1")
        for k in range(60)
    ]
    assert first("distributed_guessing", one_by_one, life() + usual) is None


def test_impossible_travel_needs_an_unknown_distant_place_within_hours() -> None:
    home = logins(1, "success")

    def away(later: int, place: str = "US-Ohio", source: str = "198.51.100.1") -> list[bytes]:
        return [
            *home,
            event(NOW + later, status="success", source_ip=source, metadata={"geo_location": place}),
        ]

    assert first("impossible_travel", away(HOUR), life()) == 1
    assert first("impossible_travel", away(3 * HOUR), life()) is None
    assert first("impossible_travel", away(HOUR, "DE-Bonn"), life()) is None
    assert first("impossible_travel", away(HOUR, source="10.0.0.1"), life()) is None


@pytest.mark.parametrize(
    ("hostname", "agent", "travels"),
    [
        ("laptop", "Firefox", False),
        ("other", "Firefox", True),
        ("laptop", "curl", True),
        ("laptop", "", True),
    ],
)
def test_own_device_travels_by_a_relay(hostname: str, agent: str, travels: bool) -> None:
    def visit(at: int, place: str, source: str, host: str, program: str) -> bytes:
        details = {"geo_location": place, "hostname": host, "user_agent": program}
        return event(at, status="success", source_ip=source, metadata=details)

    home = [visit(NOW - HOUR + MINUTE * k, "DE-Berlin", "10.0.0.1", "laptop", "Firefox") for k in range(40)]
    away = visit(NOW + MINUTE, "US-Ohio", "198.51.100.1", hostname, agent)
    found = first("impossible_travel", [*home, away], life())
    assert (found == len(home)) if travels else (found is None)


def test_late_event_of_an_earlier_journey_is_not_travel() -> None:
    late = event(
        NOW - 7 * DAY, status="success", source_ip="198.51.100.1", metadata={"geo_location": "US-Ohio"}
    )
    home = logins(1, "success", NOW + MINUTE)
    assert first("impossible_travel", [*logins(1, "success"), late, *home], life()) is None


def colleagues(days: int) -> list[bytes]:
    """Two people who take turns after `NOW`."""
    return [
        event(NOW + d * DAY // 2, ("bob", "carl")[d % 2], status="success", **HOME) for d in range(2 * days)
    ]


def test_nobody_is_dormant_after_a_gap_of_the_whole_log() -> None:
    gap = 60 * DAY
    assert first("dormant_account", logins(1, "success", NOW + gap), life()) is None
    both = [*life(), *colleagues(3)]
    assert first("dormant_account", logins(1, "success", NOW + gap), both) is None


def test_nobody_is_dormant_when_all_come_back() -> None:
    """Two operators stay; twelve people come back after six weeks, two minutes apart."""
    people = [f"p{k}" for k in range(12)]
    before = [
        event(START + d * DAY + h * HOUR + k * MINUTE, who, status="success", **HOME)
        for d in range(40)
        for h in (8, 14)
        for k, who in enumerate(people)
    ]
    back = [
        event(NOW + 42 * DAY + 2 * k * MINUTE, who, status="success", **HOME) for k, who in enumerate(people)
    ]
    names = found([*before, *colleagues(42), *back])[-len(back) :]
    assert not any("dormant_account" in one for one in names)


def test_dormant_account_is_unused_for_a_month() -> None:
    def back(days: int) -> int | None:
        return first("dormant_account", logins(1, "success", NOW + days * DAY), life() + colleagues(days))

    assert back(35) == 0
    assert back(25) is None


def test_account_used_monthly_is_not_dormant() -> None:
    monthly = [
        event(START + d * DAY, "job" if d % 31 == 0 else "bob", status="success", **HOME)
        for d in range(31 * 26)
    ]
    assert set().union(*found(monthly)) == set()


def test_mass_download_needs_many_reads() -> None:
    assert first("mass_download", files(200, "read"), life()) in range(60, 70)
    assert first("mass_download", files(59, "read"), life()) is None


def test_forged_future_event_does_not_hide_a_mass_download() -> None:
    """The first event of a new user once set the user's first time to whatever time it claimed."""
    ghost = event(START + 50 * 365 * DAY, "eve", status="success", source_ip="10.0.0.3")
    eve = [
        event(NOW + 500 * k, "eve", "file_access", source_ip="10.0.0.3", file_details={"operation": "read"})
        for k in range(300)
    ]
    before = [*life(30), ghost, *life(40)[120:]]
    assert first("mass_download", eve, before) is not None


def test_exfiltration_needs_unusually_large_uploads() -> None:
    def moved(size: float, n: int, start: int = NOW) -> list[bytes]:
        return [
            event(start + 1000 * k, kind="network_connection", **HOME, network_details={"bytes_sent": size})
            for k in range(n)
        ]

    assert first("exfiltration", moved(1.5e8, 3, NOW + HOUR), life() + moved(1e5, 30)) == 1
    assert first("exfiltration", moved(1e6, 12, NOW + HOUR), life() + moved(1e5, 30)) is None
    assert first("exfiltration", moved(5e7, 4, NOW + 2 * HOUR), life() + moved(5e7, 200)) is None


def test_ransomware_needs_many_encryptions_or_changes() -> None:
    assert first("ransomware", files(40, "write", is_encrypted=True), life()) in range(15, 18)
    assert first("ransomware", files(200, "rename"), life()) in range(60, 70)
    assert first("ransomware", files(200, "list"), life()) is None


def test_suspicious_commands_complete_their_patterns() -> None:
    run = event(NOW, kind="process_execution", **HOME, **ENCODED)
    dump = event(NOW, kind="process_execution", process_details={"command_line": "mimikatz"})
    assert found([*life(), run, dump])[-2:] == [{"encoded_command"}, {"credential_dumping"}]


def test_dns_queries_complete_tunnel_and_generated_names() -> None:
    assert first("dns_tunnel", [query(k, f"{k:040x}q.t.example.com") for k in range(12)], life()) in range(
        7, 10
    )
    assert first(
        "generated_names", [query(k, f"xkqzjvwpqht{a}w.biz") for k, a in enumerate(LETTERS)], life()
    ) in range(7, 10)


LETTERS = "bcdfghjklmnpqrstvwxz"


def query(k: int, name: str) -> bytes:
    """A query of a name that does not exist, k seconds after `NOW`."""
    return event(
        NOW + 1000 * k, kind="dns_query", dns_details={"query_name": name, "response_code": "NXDOMAIN"}
    )


def test_long_names_under_many_domains_are_no_tunnel() -> None:
    names = [f"{k:040x}.cdn.example{k}.com" for k in range(40)]
    assert first("dns_tunnel", [query(k, name) for k, name in enumerate(names)], life()) is None


def test_one_long_name_again_and_again_is_no_tunnel() -> None:
    assert first("dns_tunnel", [query(k, "q" * 40 + ".t.example.com") for k in range(40)], life()) is None


def test_long_names_of_other_domains_hide_no_tunnel() -> None:
    mixed = [query(2 * k + side, f"{k:040x}.t.example{side * k}.com") for k in range(30) for side in range(2)]
    assert first("dns_tunnel", mixed, life()) is not None


def test_each_kind_of_name_counts_its_own() -> None:
    tunnel = [query(k, f"{k:040x}q.t.example.com") for k in range(12)]
    assert first("generated_names", [query(13, "xkqzjvwpqhtrw.biz")], life() + tunnel) is None


def evidence_of_last(values: list[bytes]) -> tuple[float, float]:
    """Bits of the last event, without and with its patterns."""
    *_, folded = Partition().chunks(values)
    return float(folded.tail[-1]), float(folded.evidence[-1])


def encoded(at: int) -> bytes:
    return event(at, kind="process_execution", **HOME, **ENCODED)


def test_pattern_seen_on_many_days_gives_no_evidence() -> None:
    days = int(HABIT_DAYS) + 1
    tail, evidence = evidence_of_last([*life(), *(encoded(NOW + d * DAY) for d in range(days + 1))])
    assert evidence == tail
    tail, evidence = evidence_of_last([*life(), *(encoded(NOW + 1000 * k) for k in range(50))])
    assert evidence > tail + 9


def test_timestamps_cannot_make_a_habit_within_minutes() -> None:
    """Late events, and a single event far in the future, once counted as days of their own."""
    claimed = [NOW, NOW - DAY, NOW, NOW - 2 * DAY, NOW + 1, NOW + 9 * 365 * DAY, NOW + 2, NOW - DAY, NOW + 3]
    tail, evidence = evidence_of_last([*life(), *map(encoded, claimed)])
    assert evidence > tail + 9
