"""The benign stream: reproducible bytes, people with working hours and habits, and the mix of event types."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pytest

from streamguard.events.event import parse
from streamguard.simulate import SCENARIOS, SimulatedEvent, Simulation
from streamguard.simulate.drift import DAY_MS, LIFE_DAYS, Drift, Thing
from streamguard.simulate.habits import KINDS, NAMED, TYPE_MIX, TYPES, Habits, type_mixes
from streamguard.simulate.population import Population, Spot

MONTH_MS = 30 * DAY_MS


@pytest.fixture(scope="module")
def month() -> list[tuple[SimulatedEvent, dict[str, Any]]]:
    """A month of the default population, decoded."""
    return [(event, msgspec.json.decode(event.value)) for event in Simulation(seed=3, duration_ms=MONTH_MS)]


def first(count: int, **arguments: Any) -> list[SimulatedEvent]:
    return list(islice(Simulation(**arguments), count))


def test_same_arguments_give_the_same_bytes() -> None:
    arguments = {"users": 40, "seed": 5, "duration_ms": 3 * DAY_MS, "scenarios": ["dga", "dormant_account"]}
    assert list(Simulation(**arguments)) == list(Simulation(**arguments))


def test_simulation_can_be_iterated_again() -> None:
    simulation = Simulation(events=500)
    assert list(simulation) == list(simulation)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"users": 15}, {"start_ms": 1_750_000_000_000}, {"rate": 50.0}]
)
def test_other_arguments_give_other_events(change: dict[str, Any]) -> None:
    usual, other = first(200), first(200, **change)
    assert not {event.event_id for event in usual} & {event.event_id for event in other}
    assert [event.user for event in usual] != [event.user for event in other]


def test_start_and_rate_do_not_change_the_people() -> None:
    now, later = 1_750_000_000_000, 1_750_000_600_000
    back_fill, live = Population(30, seed=9), Simulation(users=30, seed=9, rate=1000.0).population
    for user in range(30):
        assert back_fill.place(user, Spot.DESK, now) == live.place(user, Spot.DESK, later)


def test_events_are_ordered_by_time_and_have_unique_ids(
    month: list[tuple[SimulatedEvent, dict[str, Any]]],
) -> None:
    times = [event.timestamp for event, _ in month]
    assert times == sorted(times)
    assert len({event.event_id for event, _ in month}) == len(month)


def test_attributes_equal_the_fields_in_the_bytes(month: list[tuple[SimulatedEvent, dict[str, Any]]]) -> None:
    for event, body in month:
        assert (event.event_id, event.user, event.timestamp) == (
            body["event_id"],
            body["user"],
            body["timestamp"],
        )


def test_every_event_is_accepted(month: list[tuple[SimulatedEvent, dict[str, Any]]]) -> None:
    _, index, refused, _ = parse([event.value for event, _ in month])
    assert not refused
    assert len(index) == len(month)


def test_all_named_users_are_active(month: list[tuple[SimulatedEvent, dict[str, Any]]]) -> None:
    assert {event.user for event, _ in month} == {name for name, _ in NAMED}


def test_volume_follows_events_per_day() -> None:
    count = sum(
        len(block) for block in Simulation(users=200, events_per_day=50, duration_ms=14 * DAY_MS).blocks()
    )
    assert count == pytest.approx(200 * 50 * 14, rel=0.15)


@pytest.mark.parametrize(
    "arguments",
    [
        {"users": 14, "duration_ms": MONTH_MS},
        {"users": 3000, "rate": 20_000.0, "duration_ms": 3000},  # at night in Europe
        {"users": 14, "rate": 5000.0, "duration_ms": 8000, "start_ms": 1_736_161_200_000},  # at noon
    ],
)
def test_event_types_have_their_configured_shares(arguments: dict[str, Any]) -> None:
    counts = Counter(msgspec.json.decode(event.value)["event_type"] for event in Simulation(**arguments))
    total = sum(counts.values())
    for kind, share in zip(TYPES, TYPE_MIX, strict=True):
        assert counts[kind] / total == pytest.approx(share, abs=0.01)


def test_type_mixes_keep_the_total_for_any_active_users() -> None:
    weights = np.array([0.0, 0.1, 0.0, 0.0, 0.2, 0.0, 0.7])
    mixes = type_mixes(weights)
    assert weights @ mixes == pytest.approx(np.array(TYPE_MIX))
    assert mixes.sum(axis=1) == pytest.approx(np.ones(len(KINDS)))


def test_rate_is_kept_from_the_first_second_on() -> None:
    seconds = Counter(
        event.timestamp // 1000 for event in Simulation(users=2000, rate=3000.0, duration_ms=6000)
    )
    assert len(seconds) == 6
    for count in seconds.values():
        assert count == pytest.approx(3000, rel=0.15)


def by_user(month: list[tuple[SimulatedEvent, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    events = defaultdict(list)
    for event, body in month:
        events[event.user].append(body)
    return events


def local_minutes(habits: Habits, user: int, events: list[dict[str, Any]]) -> Iterator[int]:
    for body in events:
        yield body["timestamp"] // 60_000 + int(habits.utc_minutes[user])


def test_people_keep_working_hours_and_weekends(month: list[tuple[SimulatedEvent, dict[str, Any]]]) -> None:
    habits, events = Habits(14, seed=3), by_user(month)
    for user, (name, kind) in enumerate(NAMED):
        if kind not in ("office", "developer", "sales", "finance"):
            continue
        minutes = np.array(list(local_minutes(habits, user, events[name])))
        in_hours = (minutes - habits.start_minute[user]) % 1440 < habits.work_minutes[user]
        weekend = (minutes // 1440 + 3) % 7 >= 5
        assert in_hours.mean() > 0.85, name
        assert weekend.mean() < 0.05, name


def test_people_are_less_active_at_lunch(month: list[tuple[SimulatedEvent, dict[str, Any]]]) -> None:
    habits, events = Habits(14, seed=3), by_user(month)
    lunch = before = 0
    for user, (name, kind) in enumerate(NAMED):
        if kind == "office":
            since = (
                np.array(list(local_minutes(habits, user, events[name]))) - habits.start_minute[user]
            ) % 1440
            before += int(((since >= 150) & (since < 195)).sum())
            lunch += int(((since >= 210) & (since < 255)).sum())
    assert lunch < 0.7 * before


def test_services_work_around_the_clock_and_the_night_desk_at_night(
    month: list[tuple[SimulatedEvent, dict[str, Any]]],
) -> None:
    habits, events = Habits(14, seed=3), by_user(month)
    names = [name for name, _ in NAMED]
    for name in ("svc-backup", "svc-deploy", "svc-monitor"):
        hours = Counter(
            minute // 60 % 24 for minute in local_minutes(habits, names.index(name), events[name])
        )
        assert len(hours) == 24
        assert min(hours.values()) > len(events[name]) / 100
    night = [m // 60 % 24 for m in local_minutes(habits, names.index("night-desk"), events["night-desk"])]
    assert sum(hour >= 21 or hour < 8 for hour in night) > 0.9 * len(night)


def test_people_use_few_addresses_and_mistype_passwords(
    month: list[tuple[SimulatedEvent, dict[str, Any]]],
) -> None:
    for name, bodies in by_user(month).items():
        addresses = Counter(body["source_ip"] for body in bodies)
        assert addresses.most_common(1)[0][1] > 0.15 * len(bodies), name
        assert len(addresses) < 40, name
        sign_ins = [body for body in bodies if body["event_type"] == "auth_attempt"]
        assert sum(body["status"] == "failed" for body in sign_ins) < 0.15 * len(sign_ins), name
    retried = [body for _, body in month if body.get("auth_details", {}).get("attempts_count", 1) > 1]
    assert retried
    assert sum(body["status"] == "success" for body in retried) > 0.6 * len(retried)


def test_backups_are_large_only_at_night(month: list[tuple[SimulatedEvent, dict[str, Any]]]) -> None:
    habits, user = Habits(14, seed=3), [name for name, _ in NAMED].index("svc-backup")
    sent: dict[bool, list[int]] = {True: [], False: []}
    for event, body in month:
        if event.user == "svc-backup" and body["event_type"] == "network_connection":
            minute = event.timestamp // 60_000 + int(habits.utc_minutes[user] - habits.start_minute[user])
            sent[minute % 1440 < habits.work_minutes[user]].append(body["network_details"]["bytes_sent"])
    assert np.median(sent[True]) > 50 * np.median(sent[False])
    assert max(sent[True]) > 50_000_000


def test_some_users_travel() -> None:
    simulation = Simulation(users=60, seed=1, events_per_day=60, duration_ms=MONTH_MS)
    places = defaultdict(Counter)
    for event in simulation:
        places[event.user][msgspec.json.decode(event.value)["metadata"]["geo_location"]] += 1
    assert any(len(cities) > 1 for cities in places.values())
    assert sum(len(cities) == 1 for cities in places.values()) > 20


def test_finance_is_busy_at_the_end_of_a_month() -> None:
    days = Counter(
        event.timestamp // DAY_MS
        for event in Simulation(seed=2, duration_ms=35 * DAY_MS)
        if event.user == "carol"
    )
    start = Simulation().start_ms // DAY_MS
    busy = [days[start + day] for day in (23, 24)]  # 30 and 31 January
    usual = [days[start + day] for day in (7, 8, 9, 10, 14, 15, 16, 17) if days[start + day]]
    assert sum(busy) / 2 > 1.2 * np.mean(usual)


def test_things_are_replaced_at_the_end_of_their_life() -> None:
    drift, now = Drift(50, seed=0), 1_736_121_600_000
    for thing in Thing:
        users = np.arange(50)
        kind = np.full(50, int(thing))
        here = drift.generation(kind, users, np.full(50, now))
        soon = drift.generation(kind, users, np.full(50, now + 1))
        then = drift.generation(kind, users, np.full(50, now + LIFE_DAYS[thing] * DAY_MS))
        assert (then == here + 1).all()
        assert (soon - here).sum() <= 1


def test_new_laptop_changes_host_and_agent_together() -> None:
    population = Population(1, seed=0)
    start = 1_736_121_600_000
    places = [
        population.place(0, Spot.DESK, start + day * DAY_MS) for day in range(LIFE_DAYS[Thing.LAPTOP] + 1)
    ]
    assert len({place.hostname for place in places}) == 2
    assert len({place.agent for place in places}) > 5  # a browser has a new version every four weeks


def test_generated_users_match_the_requested_number() -> None:
    users = {event.user for event in Simulation(users=100, seed=4, duration_ms=7 * DAY_MS)}
    assert 95 <= len(users) <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": 0}, "users must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"rate": 0}, "rate must be above 0"),
        ({"events_per_day": -3}, "events_per_day must be above 0"),
        ({"window": (0.9, 0.1)}, "window must be two rising shares"),
        ({"scenarios": ["blizzard"]}, "unknown scenario 'blizzard': choose one of brute_force"),
    ],
)
def test_invalid_arguments_are_reported(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulation(**arguments)


def test_every_scenario_is_available() -> None:
    assert set(SCENARIOS) == {
        "brute_force", "credential_stuffing", "password_spray", "account_takeover", "impossible_travel",
        "off_hours_insider", "mass_download", "exfiltration", "ransomware", "encoded_powershell",
        "credential_dumping", "dns_tunnel", "dga", "dormant_account", "low_and_slow",
    }  # fmt: skip
