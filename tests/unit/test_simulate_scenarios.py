"""Attack scenarios: labelled outside the event bytes, placed in time, and shaped like the attack they simulate."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from typing import Any

import msgspec
import pytest

from streamguard.events.event import parse
from streamguard.simulate import SCENARIOS, SimulatedEvent, Simulation
from streamguard.simulate.drift import DAY_MS
from streamguard.simulate.habits import LEAVER
from streamguard.simulate.places import CITIES

MONTH_MS = 30 * DAY_MS
SEEDS = range(3)


@cache
def run(seed: int) -> tuple[Simulation, list[SimulatedEvent]]:
    """A month with one campaign of each scenario."""
    simulation = Simulation(seed=seed, events_per_day=60, duration_ms=MONTH_MS, scenarios=list(SCENARIOS))
    return simulation, list(simulation)


def attack(name: str, seed: int) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.value) for event in run(seed)[1] if event.scenario == name]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_yields_labelled_events_in_its_window(name: str, seed: int) -> None:
    simulation, events = run(seed)
    (campaign,) = [campaign for campaign in simulation.campaigns if campaign.scenario == name]
    mine = [event for event in events if event.campaign == campaign.id]
    assert campaign.id == f"{name}-1"
    assert campaign.technique == SCENARIOS[name].technique
    assert campaign.technique[0] == "T"
    assert len(mine) == campaign.events >= 8
    assert {event.scenario for event in mine} == {name}
    assert {event.user for event in mine} == campaign.users
    assert (mine[0].timestamp, mine[-1].timestamp) == (campaign.start, campaign.end)
    assert campaign.start >= simulation.start_ms + 0.4 * MONTH_MS
    assert campaign.end < simulation.start_ms + MONTH_MS


@pytest.mark.parametrize("seed", SEEDS)
def test_some_attacks_start_in_the_last_third(seed: int) -> None:
    simulation, _ = run(seed)
    starts = [(campaign.start - simulation.start_ms) / MONTH_MS for campaign in simulation.campaigns]
    assert sum(start > 0.7 for start in starts) >= 3


def test_labels_are_not_in_the_event_bytes() -> None:
    _, events = run(0)
    words = [name.encode() for name in SCENARIOS if name not in ("dga",)]
    words += [b"attack", b"campaign", b"scenario", b"label", b"benign", b"malicious"]
    for event in events:
        assert not any(word in event.value for word in words), event.value


def test_attack_and_benign_events_have_the_same_fields() -> None:
    shapes: dict[bool, dict[str, set[str]]] = {True: defaultdict(set), False: defaultdict(set)}
    for event in run(0)[1]:
        body = msgspec.json.decode(event.value)
        nested = [
            f"{key}.{inner}" for key, value in body.items() if isinstance(value, dict) for inner in value
        ]
        shapes[event.scenario is not None][body["event_type"]].add(" ".join([*body, *nested]))
    assert shapes[True] == shapes[False]
    assert all(len(seen) == 1 for seen in shapes[True].values())


def test_threat_scores_do_not_reveal_attacks() -> None:
    raised = {True: 0, False: 0}
    for event in run(0)[1]:
        raised[event.scenario is not None] += msgspec.json.decode(event.value)["threat_score"] > 0.5
    assert raised[False] > raised[True] / 10
    assert raised[True] < 0.2 * sum(event.scenario is not None for event in run(0)[1])


def test_every_attack_event_is_accepted() -> None:
    values = [event.value for event in run(0)[1] if event.scenario is not None]
    _, index, refused, _ = parse(values)
    assert not refused
    assert len(index) == len(values)


def test_repeated_scenario_is_another_campaign() -> None:
    simulation = Simulation(duration_ms=MONTH_MS, scenarios=["dga", "dga", "brute_force"])
    assert [campaign.id for campaign in simulation.campaigns] == ["dga-1", "dga-2", "brute_force-1"]
    assert simulation.campaigns[0].start != simulation.campaigns[1].start


def test_campaigns_start_within_the_window() -> None:
    names = ["brute_force"] * 12
    simulation = Simulation(duration_ms=MONTH_MS, scenarios=names, window=(0.9, 0.95))
    for campaign in simulation.campaigns:
        assert 0.9 <= (campaign.start - simulation.start_ms) / MONTH_MS <= 0.95


def test_short_live_run_contains_its_attacks() -> None:
    simulation = Simulation(
        users=100, rate=200.0, duration_ms=60_000, scenarios=["brute_force", "dns_tunnel", "ransomware"]
    )
    found = Counter(event.campaign for event in simulation if event.campaign)
    assert set(found) == {"brute_force-1", "dns_tunnel-1", "ransomware-1"}
    assert found == {campaign.id: campaign.events for campaign in simulation.campaigns}


@pytest.mark.parametrize("seed", SEEDS)
def test_brute_force_uses_one_address_and_spraying_many(seed: int) -> None:
    guesses = attack("brute_force", seed)
    assert len({body["source_ip"] for body in guesses}) == 1
    assert sum(body["status"] != "success" for body in guesses) >= 60
    for name in ("password_spray", "credential_stuffing"):
        tries = attack(name, seed)
        assert len({body["source_ip"] for body in tries}) >= 5
        assert len({body["user"] for body in tries}) >= 14
        largest = Counter(body["user"] for body in tries).most_common(1)[0][1]
        assert largest <= 12


@pytest.mark.parametrize("seed", SEEDS)
def test_dormant_account_is_unused_for_over_sixty_days(seed: int) -> None:
    own = [event for event in run(seed)[1] if event.user == LEAVER]
    before = [event.timestamp for event in own if event.campaign is None]
    revived = [event.timestamp for event in own if event.campaign == "dormant_account-1"]
    assert len(before) > 200
    assert revived[0] - before[-1] > 60 * DAY_MS


def test_leaver_exists_only_if_requested() -> None:
    assert all(event.user != LEAVER for event in Simulation(events=3000))
    assert any(event.user == LEAVER for event in Simulation(events=100, leaver=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_impossible_travel_is_far_from_the_places_of_the_user(seed: int) -> None:
    _, events = run(seed)
    thief = attack("impossible_travel", seed)
    cities = {city.name: city for city in CITIES}
    far = cities[thief[0]["metadata"]["geo_location"]]
    own = [
        cities[msgspec.json.decode(event.value)["metadata"]["geo_location"]]
        for event in events
        if event.user == thief[0]["user"] and event.scenario is None
    ]
    assert all(far.distance_km(city) > 900 for city in own)
    usual = Counter(city.name for city in own).most_common(1)[0][0]
    assert far.distance_km(cities[usual]) > 4500


@pytest.mark.parametrize("seed", SEEDS)
def test_insiders_use_their_own_hosts(seed: int) -> None:
    _, events = run(seed)
    for name in ("off_hours_insider", "mass_download"):
        bodies = attack(name, seed)
        user = bodies[0]["user"]
        own = {
            msgspec.json.decode(event.value)["metadata"]["hostname"]
            for event in events
            if event.user == user and event.scenario is None
        }
        assert {body["metadata"]["hostname"] for body in bodies} <= own


@pytest.mark.parametrize("seed", SEEDS)
def test_other_scenarios_have_their_typical_size_and_content(seed: int) -> None:
    sent = sum(body.get("network_details", {}).get("bytes_sent", 0) for body in attack("exfiltration", seed))
    assert 1e9 < sent < 1e11
    encrypted = [
        body for body in attack("ransomware", seed) if body.get("file_details", {}).get("is_encrypted")
    ]
    assert len(encrypted) >= 500
    assert all(len(body["dns_details"]["query_name"]) > 40 for body in attack("dns_tunnel", seed))
    missing = [
        body for body in attack("dga", seed) if body.get("dns_details", {}).get("response_code") == "NXDOMAIN"
    ]
    assert len(missing) >= 80
    commands = [
        body["process_details"]["command_line"]
        for body in attack("encoded_powershell", seed)
        if "process_details" in body
    ]
    assert any("powershell.exe -nop -w hidden -e" in command for command in commands)
    slow = attack("low_and_slow", seed)
    assert slow[-1]["timestamp"] - slow[0]["timestamp"] > 1.5 * DAY_MS
    assert len(slow) < 150
