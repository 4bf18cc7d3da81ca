"""From alerts to incidents: whose they are, what they are called, when they are told again."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.settings.schema import Detection
from tests.streams import HOUR, MINUTE, START, Partition, event, habit

BASE = habit(3000)
NOW = START + 3000 * 20_000
HOME = {"source_ip": "10.3.0.1", "metadata": {"geo_location": "DE-Berlin", "hostname": "laptop-3"}}


def told(attack: list[bytes], base: list[bytes] = BASE, **detection: Any) -> list[dict[str, Any]]:
    """The incidents told of an attack after an ordinary day."""
    partition = Partition(detection=Detection(**detection))
    bodies = partition.run([*base, *attack])
    return [body for body in bodies if body["origin"]["offset"] >= len(base)]


def guesses(n: int, user: str = "user3", start: int = NOW, step: int = 2000, **fields: Any) -> list[bytes]:
    return [event(start + step * k, user, status="failed", **{**HOME, **fields}) for k in range(n)]


def test_a_thousand_failed_logins_rise_in_one_place() -> None:
    """Told a few times as it grows, under one name for each entity, never weaker than before."""
    bodies = told(guesses(1000, source_ip="203.0.113.9"))
    assert len(bodies) < 30
    for kind in ("user", "source", "crowd"):
        told_of_it = [b for b in bodies if b["entity"]["kind"] == kind]
        assert len({b["id"] for b in told_of_it}) <= 1
        assert len({b["first_seen"] for b in told_of_it}) <= 1
        for name in ("count", "evidence_bits", "last_seen"):
            rising = [b[name] for b in told_of_it]
            assert rising == sorted(rising), name
    assert bodies[-1]["technique"] == "T1110.001"


def test_a_thousand_failed_logins_of_one_source_are_one_incident() -> None:
    bodies = told(guesses(1000, source_ip="203.0.113.9"))
    late = {b["id"] for b in bodies if b["count"] >= 16}
    assert len(late) == 1


def test_a_source_that_tries_many_names_is_one_incident() -> None:
    spray = [event(NOW + 3000 * k, f"name{k}", status="failed", source_ip="203.0.113.9") for k in range(300)]
    bodies = told(spray)
    assert {b["entity"]["kind"] for b in bodies[3:]} == {"source"}
    campaign = [b for b in bodies if b["entity"]["value"] == "203.0.113.9"]
    assert len({b["id"] for b in campaign}) == 1
    assert campaign[-1]["technique"] == "T1110.003"
    assert campaign[-1]["severity"] == "critical"
    assert len({b["id"] for b in bodies}) <= 4


def test_a_wave_from_changing_addresses_is_the_crowd_s() -> None:
    # from nowhere near, at everybody's known accounts, each address once
    wave = [
        event(NOW + 2000 * k, f"user{k % 20}", status="failed", source_ip=f"198.{k % 250}.{k // 250}.1")
        for k in range(300)
    ]
    bodies = told(wave)
    crowds = [b for b in bodies if b["entity"]["kind"] == "crowd"]
    assert crowds
    assert len({b["id"] for b in crowds}) == 1
    assert crowds[-1]["count"] >= 64


def test_an_event_without_a_user_is_its_source_s() -> None:
    lone = [event(NOW + 1000 * k, None, "odd", status="failed", source_ip="203.0.113.9") for k in range(40)]
    bodies = told(lone, alert_risk=30.0)
    assert {b["entity"]["kind"] for b in bodies} == {"source"}


def test_at_home_a_failing_user_is_not_a_source() -> None:
    assert "source" not in {b["entity"]["kind"] for b in told(guesses(60))}


def test_one_user_s_failures_are_the_user_s() -> None:
    assert {b["entity"]["value"] for b in told(guesses(60))} == {"user3"}


def test_silence_ends_an_incident() -> None:
    def ids(gap: int) -> int:
        again = guesses(30) + guesses(30, start=NOW + gap)
        return len(
            {b["id"] for b in told(again, incident_gap_seconds=3600.0) if b["entity"]["kind"] == "user"}
        )

    assert ids(30 * MINUTE) == 1
    assert ids(3 * HOUR) == 2


def test_an_incident_keeps_its_name_when_a_late_event_joins() -> None:
    late = guesses(5, start=NOW - 40 * MINUTE, step=100)
    bodies = [
        b
        for b in told(guesses(30) + late + guesses(200, start=NOW + MINUTE))
        if b["entity"]["kind"] == "user"
    ]
    assert len({b["id"] for b in bodies}) == 1


def test_it_is_told_at_rises_only() -> None:
    """As told: the first, new patterns, stronger evidence, or a number that doubled."""
    partition = Partition()
    values = BASE + guesses(500)
    kinds = [k for folded in partition.chunks(values) for k in folded.kind.tolist()][len(BASE) :]
    alerts = [k for k in kinds if k]
    assert len(alerts) > 400
    assert sum(k > 0 for k in alerts) < 20


@pytest.mark.parametrize("chunk", [1, 500])
def test_ids_are_of_the_first_event(chunk: int) -> None:
    partition = Partition()
    bodies = partition.run(BASE + guesses(60), chunk=chunk)
    by_id: dict[str, dict[str, Any]] = {}
    for body in bodies:
        by_id.setdefault(body["id"], body)
    for name, body in by_id.items():
        assert name.split("-")[1] == str(body["origin"]["offset"])


def test_a_campaign_that_goes_on_next_day_is_the_same() -> None:
    spray = [
        event(NOW + day * 20 * HOUR + 3000 * k, f"name{k}", status="failed", source_ip="203.0.113.9")
        for day in range(2)
        for k in range(60)
    ]
    campaign = [b for b in told(spray) if b["entity"]["kind"] == "source"]
    assert len({b["id"] for b in campaign}) == 1
    assert campaign[-1]["last_seen"] > campaign[0]["last_seen"]
