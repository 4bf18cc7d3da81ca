"""Further attacks and activities: on request only, labelled, and with the actions of a cloud, Windows and a cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from streamguard.cli.main import main
from streamguard.events.event import parse
from streamguard.simulate import ACTIVITIES, ALL_SCENARIOS, MORE_SCENARIOS, SCENARIOS, SITUATIONS, Simulation
from streamguard.simulate.activities import ActivityContext
from streamguard.simulate.population import Population, Spot
from streamguard.simulate.scenarios.context import DAY, ScenarioContext, Step
from streamguard.simulate.simulation import START_MS

USERS, SEEDS = 40, range(3)


@cache
def population() -> Population:
    return Population(USERS, 1)


@cache
def steps(name: str, seed: int) -> tuple[Step, ...]:
    context = ScenarioContext(population(), Random(seed), START_MS + 14 * DAY)
    return tuple(ALL_SCENARIOS[name].generate(context, START_MS + DAY))


def commands(name: str, seed: int) -> str:
    return "\n".join(step.details.get("command_line", "") for step in steps(name, seed))


def test_further_attacks_are_apart_from_the_others() -> None:
    assert not SCENARIOS.keys() & MORE_SCENARIOS.keys()
    assert len(SCENARIOS) == 15


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MORE_SCENARIOS)
def test_further_attack_is_one_account_with_at_least_eight_steps(name: str, seed: int) -> None:
    made = steps(name, seed)
    assert len(made) >= 8
    assert len({step.user for step in made}) == 1
    assert MORE_SCENARIOS[name].technique[0] == "T"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["cloud_blinding", "cloud_persistence", "cloud_snapshots"])
def test_cloud_attack_comes_from_a_usual_place_of_an_administrator(name: str, seed: int) -> None:
    habits = population().habits
    (place,) = {step.place for step in steps(name, seed)}
    user = next(user for user in habits.of_kind("admin") if habits.name(user) == steps(name, seed)[0].user)
    own = [population().place(user, spot, steps(name, seed)[0].timestamp) for spot in Spot]
    assert place in own


@pytest.mark.parametrize("seed", SEEDS)
def test_attacks_contain_what_they_are_named_for(seed: int) -> None:
    def actions(name: str) -> set[str]:
        return {step.event_type for step in steps(name, seed)}

    assert {"StopLogging", "DeleteTrail"} <= actions("cloud_blinding")
    assert {"CreateAccessKey", "AttachUserPolicy"} <= actions("cloud_persistence")
    assert {"ModifySnapshotAttribute", "GetSecretValue"} <= actions("cloud_snapshots")
    assert {"pods/exec.create", "secrets.list", "clusterrolebindings.create"} <= actions("cluster_takeover")
    words = ("-urlcache", "mshta.exe http", "/i:http", "/transfer", "javascript:")
    assert sum(word in commands("living_off_the_land", seed) for word in words) >= 3
    for word in ("process call create", "schtasks.exe /create"):
        assert word in commands("remote_execution", seed)
    for word in ("wevtutil.exe cl", "auditpol.exe /set", "vssadmin.exe delete shadows"):
        assert word in commands("covering_tracks", seed)


def day(name: str, number: int) -> Iterator[Step]:
    context = ActivityContext(population(), Random(number), None)
    yield from ACTIVITIES[name].make(context, START_MS + number * DAY)


@pytest.mark.parametrize("name", ACTIVITIES)
def test_activity_is_habit_in_working_hours(name: str) -> None:
    made = [step for number in range(5) for step in day(name, number)]
    assert len(made) > 50
    what: dict[str, set[str]] = defaultdict(set)
    for step in made:
        what[step.user].add(step.details.get("process_name") or step.event_type)
    assert all(len(own) <= 7 for own in what.values())
    weekend = [step for number in (5, 6) for step in day(name, number)]
    assert len(weekend) < len(made) / 5


def test_activities_are_woven_into_a_stream_without_labels() -> None:
    arguments: dict[str, Any] = {"users": 20, "duration_ms": DAY, "events_per_day": 10}
    simulation = Simulation(**arguments, activities=list(ACTIVITIES))
    events = list(simulation)
    assert events == list(simulation)
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    assert all(event.scenario is None and event.situation is None for event in events)
    values = [event.value for event in events]
    assert len(parse(values).events) == len(values)
    plain = list(Simulation(**arguments))
    assert [event for event in events if event.event_id in {one.event_id for one in plain}] == plain
    types = {msgspec.json.decode(value)["event_type"] for value in values}
    assert {"DescribeInstances", "pods.list"} & types


def test_run_without_an_end_can_have_activities() -> None:
    events = list(Simulation(users=20, events=500, activities=["windows"]))
    assert len(events) == 500


def test_command_writes_labels_of_situations_apart_from_those_of_attacks(tmp_path: Any) -> None:
    attacks, situations, table = tmp_path / "a.jsonl", tmp_path / "s.jsonl", tmp_path / "events.csv"
    arguments = [
        "simulate", "--days", "14", "--events-per-day", "3", "--situation", "kiosk", "--takeovers", "--with-labels",
        "--activity", "cloud, windows", "--output", table, "--labels", attacks, "--situation-labels", situations,
    ]  # fmt: skip
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert "account_takeover-in-kiosk (T1078)" in done.output
    attack = [msgspec.json.decode(line) for line in attacks.read_bytes().splitlines()]
    benign = [msgspec.json.decode(line) for line in situations.read_bytes().splitlines()]
    assert {label["campaign"] for label in attack} == {"account_takeover-in-kiosk"}
    assert {label["situation"] for label in benign} == {"kiosk"}
    assert not {label["event_id"] for label in attack} & {label["event_id"] for label in benign}
    assert table.read_text().splitlines()[0].endswith(",is_attack,attack_id,situation")


def test_command_lists_situations_and_refuses_takeovers_without_one() -> None:
    listed = CliRunner().invoke(main, ["simulate", "--list"]).output
    for name in (*ALL_SCENARIOS, *SITUATIONS, *ACTIVITIES):
        assert f"  {name} " in listed
    done = CliRunner().invoke(main, ["simulate", "--days", "14", "--takeovers", "--output", "x.jsonl"])
    assert done.exit_code == 2
    assert "--takeovers needs a --situation" in done.output


def test_page_lists_every_situation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    assert [name for name in SITUATIONS if f"`{name}`" not in page] == []
