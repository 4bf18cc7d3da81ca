"""Grouping of alerts into incidents: entity, id, and the alerts at which an incident is published again."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.settings.schema import Detection
from tests.streams import HOUR, MINUTE, START, Partition, event, habit

BASE = habit(3000)
NOW = START + 3000 * 20_000
HOME = {"source_ip": "10.3.0.1", "metadata": {"geo_location": "DE-Berlin", "hostname": "laptop-3"}}


def incidents_of(attack: list[bytes], base: list[bytes] = BASE, **detection: Any) -> list[dict[str, Any]]:
    """Incidents that are published for an attack after an ordinary day."""
    partition = Partition(detection=Detection(**detection))
    bodies = partition.run([*base, *attack])
    return [body for body in bodies if body["origin"]["offset"] >= len(base)]


def guesses(n: int, user: str = "user3", start: int = NOW, step: int = 2000, **fields: Any) -> list[bytes]:
    return [event(start + step * k, user, status="failed", **{**HOME, **fields}) for k in range(n)]


def test_incident_of_each_entity_only_grows() -> None:
    """Each is published a few times under one id, and never with lower values than before."""
    bodies = incidents_of(guesses(1000, source_ip="203.0.113.9"))
    assert len(bodies) < 30
    for kind in ("user", "source", "crowd"):
        of_kind = [b for b in bodies if b["entity"]["kind"] == kind]
        assert len({b["id"] for b in of_kind}) <= 1
        assert len({b["first_seen"] for b in of_kind}) <= 1
        for name in ("count", "evidence_bits", "last_seen"):
            rising = [b[name] for b in of_kind]
            assert rising == sorted(rising), name
    assert bodies[-1]["technique"] == "T1110.001"


def test_thousand_failed_logins_from_one_source_are_one_incident() -> None:
    bodies = incidents_of(guesses(1000, source_ip="203.0.113.9"))
    late = {b["id"] for b in bodies if b["count"] >= 16}
    assert len(late) == 1


def test_password_spray_from_one_source_is_one_incident() -> None:
    spray = [event(NOW + 3000 * k, f"name{k}", status="failed", source_ip="203.0.113.9") for k in range(300)]
    bodies = incidents_of(spray)
    assert {b["entity"]["kind"] for b in bodies[3:]} == {"source"}
    campaign = [b for b in bodies if b["entity"]["value"] == "203.0.113.9"]
    assert len({b["id"] for b in campaign}) == 1
    assert campaign[-1]["technique"] == "T1110.003"
    assert campaign[-1]["severity"] == "critical"
    assert len({b["id"] for b in bodies}) <= 4


def test_failures_from_changing_addresses_are_an_incident_of_the_crowd() -> None:
    # from distant networks, at known accounts of all users, one attempt from each address
    wave = [
        event(NOW + 2000 * k, f"user{k % 20}", status="failed", source_ip=f"198.{k % 250}.{k // 250}.1")
        for k in range(300)
    ]
    bodies = incidents_of(wave)
    crowds = [b for b in bodies if b["entity"]["kind"] == "crowd"]
    assert crowds
    assert len({b["id"] for b in crowds}) == 1
    assert crowds[-1]["count"] >= 64


def test_event_without_a_user_belongs_to_its_source() -> None:
    lone = [event(NOW + 1000 * k, None, "odd", status="failed", source_ip="203.0.113.9") for k in range(40)]
    bodies = incidents_of(lone, alert_risk=54.5)
    assert {b["entity"]["kind"] for b in bodies} == {"source"}


def test_user_failing_at_the_usual_address_is_not_a_source_incident() -> None:
    assert "source" not in {b["entity"]["kind"] for b in incidents_of(guesses(60))}


def test_failures_of_one_user_belong_to_that_user() -> None:
    assert {b["entity"]["value"] for b in incidents_of(guesses(60))} == {"user3"}


def test_pause_ends_an_incident() -> None:
    def ids(gap: int) -> int:
        again = guesses(30) + guesses(30, start=NOW + gap)
        return len(
            {
                b["id"]
                for b in incidents_of(again, incident_gap_seconds=3600.0)
                if b["entity"]["kind"] == "user"
            }
        )

    assert ids(30 * MINUTE) == 1
    assert ids(3 * HOUR) == 2


def test_incident_keeps_its_id_when_a_late_event_joins() -> None:
    late = guesses(5, start=NOW - 40 * MINUTE, step=100)
    bodies = [
        b
        for b in incidents_of(guesses(30) + late + guesses(200, start=NOW + MINUTE))
        if b["entity"]["kind"] == "user"
    ]
    assert len({b["id"] for b in bodies}) == 1


def test_incident_is_published_only_when_it_grows() -> None:
    """It is published at the first alert, with new patterns, with stronger evidence, or if its count doubled."""
    partition = Partition()
    values = BASE + guesses(500)
    kinds = [k for folded in partition.chunks(values) for k in folded.kind.tolist()][len(BASE) :]
    alerts = [k for k in kinds if k]
    assert len(alerts) > 400
    assert sum(k > 0 for k in alerts) < 20


@pytest.mark.parametrize("chunk", [1, 500])
def test_id_is_that_of_the_first_event(chunk: int) -> None:
    partition = Partition()
    bodies = partition.run(BASE + guesses(60), chunk=chunk)
    by_id: dict[str, dict[str, Any]] = {}
    for body in bodies:
        by_id.setdefault(body["id"], body)
    for name, body in by_id.items():
        assert name.split("-")[1] == str(body["origin"]["offset"])


def test_campaign_on_two_days_is_one_incident() -> None:
    spray = [
        event(NOW + day * 20 * HOUR + 3000 * k, f"name{k}", status="failed", source_ip="203.0.113.9")
        for day in range(2)
        for k in range(60)
    ]
    campaign = [b for b in incidents_of(spray) if b["entity"]["kind"] == "source"]
    assert len({b["id"] for b in campaign}) == 1
    assert campaign[-1]["last_seen"] > campaign[0]["last_seen"]
