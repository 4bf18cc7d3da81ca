"""Situations: benign, labelled, deterministic, and with the shape that their sentence says; takeovers inside them."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from itertools import chain, pairwise
from random import Random
from typing import Any

import msgspec
import pytest

from streamguard.events.event import parse
from streamguard.simulate import SITUATIONS, SimulatedEvent, Simulation
from streamguard.simulate.encode import EventIds, encode_step
from streamguard.simulate.population import Population, Spot
from streamguard.simulate.scenarios.context import DAY, HOUR, MINUTE, Actor, ScenarioContext
from streamguard.simulate.simulation import START_MS
from streamguard.simulate.situations import newcomers
from streamguard.simulate.weave import Weave

USERS = 40
SHORT, LONG = 28, 63
"""Days of a run."""


@cache
def company(days: int) -> tuple[Population, list[list[SimulatedEvent]]]:
    """A company in which every account signs in and opens a document each working day, services also at weekends."""
    population, ids = Population(USERS, 1), EventIds(days)
    context = ScenarioContext(population, Random(days), None)
    blocks = []
    for day in range(START_MS, START_MS + days * DAY, DAY):
        steps = []
        for user in range(USERS):
            if population.habits.person[user] and (day // DAY + 3) % 7 >= 5:
                continue
            actor = Actor(context, user, population.place(user, Spot.DESK, day))
            time = day + 9 * HOUR + user * MINUTE
            steps += [actor.sign_in(time), actor.touch(time + 3 * HOUR, "/a")]
        steps.sort(key=lambda step: step.timestamp)
        made = []
        for step in steps:
            (event_id,) = ids.take(1)
            value = encode_step(event_id, step)
            made.append(SimulatedEvent(event_id, step.user, step.timestamp, value, None, None))
        blocks.append(made)
    return population, blocks


def days_of(name: str) -> int:
    return SHORT if SITUATIONS[name].days + 7 <= SHORT else LONG


def woven(name: str, *, takeovers: bool = True) -> list[SimulatedEvent]:
    population, blocks = company(days_of(name))
    end = START_MS + days_of(name) * DAY
    weave = Weave(population, START_MS, end, [name], (), takeovers)
    return list(chain.from_iterable(weave.into(iter(blocks))))


@cache
def run(name: str) -> list[SimulatedEvent]:
    return woven(name)


@cache
def marked(name: str) -> list[dict[str, Any]]:
    """The decoded events with the label of a situation."""
    return [msgspec.json.decode(event.value) for event in run(name) if event.situation == name]


def begin_of(name: str) -> int:
    return SITUATIONS[name].begin(START_MS, START_MS + days_of(name) * DAY)


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_is_deterministic_labelled_and_benign(name: str) -> None:
    events = run(name)
    assert woven(name) == events
    labelled = [event for event in events if event.situation is not None]
    assert {event.situation for event in labelled} == {name}
    assert len(labelled) >= 6
    assert all(event.scenario is None and event.campaign is None for event in labelled)
    assert len({event.event_id for event in events}) == len(events)
    assert not any(b"situation" in event.value for event in events)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_event_is_accepted_and_in_time_order_unless_it_is_late(name: str) -> None:
    values = [event.value for event in run(name)]
    parsed = parse(values)
    assert not parsed.refused and len(parsed.events) == len(values)
    times = [event.timestamp for event in run(name)]
    assert (times == sorted(times)) == (name != "back_fill")


@pytest.mark.parametrize("name", SITUATIONS)
def test_takeover_lies_within_the_situation(name: str) -> None:
    taken = [event for event in run(name) if event.scenario is not None]
    assert {(event.scenario, event.campaign) for event in taken} == {
        ("account_takeover", f"account_takeover-in-{name}")
    }
    (victim,) = {event.user for event in taken}
    assert len(taken) >= 8
    days = SITUATIONS[name].days
    assert begin_of(name) <= taken[0].timestamp < begin_of(name) + days * DAY or name == "month_end"
    others = {event.user for event in run(name) if event.scenario is None}
    assert victim in others


def test_takeovers_are_on_request() -> None:
    assert not any(event.scenario for event in woven("gap", takeovers=False))
    assert any(event.scenario for event in woven("gap"))


@pytest.mark.parametrize("name", SITUATIONS)
def test_nothing_changes_before_the_situation_for_those_who_are_not_part_of_it(name: str) -> None:
    _, blocks = company(days_of(name))
    before = [event for block in blocks for event in block if event.timestamp < begin_of(name)]
    known = {event.event_id for event in before}
    assert [event for event in run(name) if event.event_id in known] == before


def test_morning_wave_is_one_sign_in_a_morning_from_an_own_address() -> None:
    bodies = marked("morning_wave")
    addresses = defaultdict(set)
    for body in bodies:
        addresses[body["user"]].add(body["source_ip"])
    assert len(addresses) == newcomers.WAVE_PEOPLE
    assert all(len(own) == 1 for own in addresses.values())
    assert len(set.union(*addresses.values())) == newcomers.WAVE_PEOPLE
    good = Counter(body["timestamp"] // DAY for body in bodies if body["status"] == "success")
    assert list(good.values()) == [newcomers.WAVE_PEOPLE] * newcomers.WAVE_DAYS
    minutes = sorted(body["timestamp"] % DAY // MINUTE for body in bodies)
    assert minutes[len(minutes) // 20] >= 525 and minutes[-len(minutes) // 20] <= 555


def test_onboarding_has_1700_new_users_in_days() -> None:
    bodies = marked("onboarding")
    people = {body["user"] for body in bodies}
    assert len(people) == 1700
    assert bodies[-1]["timestamp"] - bodies[0]["timestamp"] < 4 * DAY
    assert not people & {event.user for block in company(SHORT)[1] for event in block}


def test_new_log_source_has_hundreds_of_unknown_users_within_a_day() -> None:
    bodies = marked("new_log_source")
    assert len({body["user"] for body in bodies}) == newcomers.SAAS_PEOPLE
    assert len({body["timestamp"] // DAY for body in bodies}) == 1
    assert {body["event_type"] for body in bodies} == {"saas.login", "saas.view", "saas.edit"}


def test_provider_outage_refuses_for_an_hour_and_clients_retry() -> None:
    failed = [body for body in marked("provider_outage") if body["status"] == "failed"]
    assert 0.9 * HOUR < failed[-1]["timestamp"] - failed[0]["timestamp"] <= HOUR
    assert {body["auth_details"]["failure_reason"] for body in failed} == {"idp_unavailable"}
    tries = Counter(body["user"] for body in failed)
    assert sum(count >= 10 for count in tries.values()) > len(tries) / 2  # others were not at work
    last = {body["user"]: body["status"] for body in marked("provider_outage") if tries[body["user"]] >= 10}
    assert set(last.values()) == {"success"}


@pytest.mark.parametrize("name", ["vpn_rollout", "vpn_rollout_abroad"])
def test_vpn_rollout_puts_all_people_behind_one_address(name: str) -> None:
    population, _ = company(SHORT)
    people = {population.habits.name(user) for user in range(USERS) if population.habits.person[user]}
    assert {body["source_ip"] for body in marked(name)} == {"203.0.113.9"}
    assert {body["user"] for body in marked(name)} == people
    abroad = {body["metadata"]["geo_location"] for body in marked(name)} == {"PL-Warsaw"}
    assert abroad == (name == "vpn_rollout_abroad")
    since = begin_of(name) + 2 * DAY + 8 * HOUR
    later = [event for event in run(name) if event.timestamp >= since and event.user in people]
    assert all(event.situation == name for event in later if event.scenario is None)


def test_private_relay_has_many_addresses_in_several_countries_for_some_people() -> None:
    bodies = marked("private_relay")
    people = len(company(SHORT)[0].habits.person[:USERS].nonzero()[0])
    assert len({body["user"] for body in bodies}) == round(0.3 * people)
    assert len({body["source_ip"] for body in bodies}) > 0.7 * len(bodies)
    assert len({body["metadata"]["geo_location"][:2] for body in bodies}) >= 5


def test_everybody_is_away_for_five_weeks_and_back_on_one_day() -> None:
    population, _ = company(LONG)
    people = {population.habits.name(user) for user in range(USERS) if population.habits.person[user]}
    begin = begin_of("everybody_back")
    away = [event for event in run("everybody_back") if begin <= event.timestamp < begin + 35 * DAY]
    assert away and not people & {event.user for event in away}
    first = [body for body in marked("everybody_back") if body["timestamp"] < begin + 36 * DAY]
    assert {body["user"] for body in first} == people


def test_one_person_is_on_leave_for_six_weeks() -> None:
    (person,) = {body["user"] for body in marked("leave")}
    times = [event.timestamp for event in run("leave") if event.user == person and event.scenario is None]
    assert max(b - a for a, b in pairwise(times)) >= 42 * DAY
    begin = begin_of("leave")
    assert len({event.user for event in run("leave") if begin <= event.timestamp < begin + 42 * DAY}) > 30


def test_kiosk_is_one_account_on_ten_machines() -> None:
    bodies = marked("kiosk")
    assert {body["user"] for body in bodies} == {"frontdesk"}
    assert len({body["metadata"]["hostname"] for body in bodies}) == 10
    assert any(body["status"] == "failed" for body in bodies)


def test_service_accounts_fail_every_few_minutes_after_they_worked() -> None:
    failed = defaultdict(list)
    for body in marked("service_accounts"):
        if body["status"] == "failed":
            failed[body["user"]].append(body["timestamp"])
    assert len(failed) == 8
    for times in failed.values():
        pauses = [b - a for a, b in pairwise(times)]
        assert max(pauses) < 6 * MINUTE and len(times) > 500
    first = min(min(times) for times in failed.values())
    quiet = [event for event in run("service_accounts") if event.user in failed and not event.situation]
    assert quiet and all(event.timestamp < first + 6 * MINUTE for event in quiet)


def test_month_end_is_on_the_last_two_days_of_a_month() -> None:
    bodies = marked("month_end")
    assert {body["timestamp"] // DAY for body in bodies} <= {START_MS // DAY + 24, START_MS // DAY + 25}
    assert len({body["user"] for body in bodies}) == 9
    usual = [
        event
        for event in run("month_end")
        if event.user == "svc-close-00" and not event.situation and not event.scenario
    ]
    assert usual and all(b'"auth_attempt"' in event.value for event in usual)


def test_gap_removes_three_days_of_all() -> None:
    begin = begin_of("gap")
    assert not [event for event in run("gap") if begin <= event.timestamp < begin + 3 * DAY]
    assert [event for event in run("gap") if begin - DAY <= event.timestamp + 3 * DAY < begin + 3 * DAY]


def test_back_fill_arrives_days_late_and_out_of_order_beside_live_events() -> None:
    order = run("back_fill")
    late = [row for row, event in enumerate(order) if event.situation]
    times = [order[row].timestamp for row in late]
    assert times != sorted(times)
    newest = 0
    for event in order:
        if event.situation:
            assert newest - event.timestamp > 8 * HOUR
        else:
            newest = max(newest, event.timestamp) if not event.scenario else newest
    assert late[-1] - late[0] >= len(late)  # live events between them
    begin = begin_of("back_fill")
    through = {event.user for event in order if event.situation}
    on_time = [
        e for e in order if begin <= e.timestamp < begin + 3 * DAY and not e.situation and not e.scenario
    ]
    assert not through & {event.user for event in on_time}


def test_dhcp_renewal_gives_a_new_address_of_the_same_network_every_day() -> None:
    by_user: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for body in marked("dhcp_renewal"):
        by_user[body["user"]][body["timestamp"] // DAY].add(body["source_ip"])
    kinds = Counter()
    for days in by_user.values():
        assert all(len(addresses) == 1 for addresses in days.values())
        addresses = set.union(*days.values())
        assert len(addresses) >= len(days) - 1
        six = {":" in address for address in addresses}
        assert len(six) == 1
        kinds[six.pop()] += 1
        networks = {address.rpartition(".")[0] for address in addresses if "." in address}
        assert len(networks) <= 1
    assert kinds[True] > 5 and kinds[False] > 5


def test_situations_combine_and_other_events_keep_their_bytes() -> None:
    population, blocks = company(SHORT)
    weave = Weave(population, START_MS, START_MS + SHORT * DAY, ["kiosk", "gap"], (), True)
    events = list(chain.from_iterable(weave.into(iter(blocks))))
    assert {event.situation for event in events} == {None, "kiosk", "gap"}
    assert {campaign.id for campaign in weave.campaigns} == {
        "account_takeover-in-kiosk",
        "account_takeover-in-gap",
    }
    for campaign in weave.campaigns:
        assert campaign.events == sum(event.campaign == campaign.id for event in events)
    values = {event.event_id: event.value for event in events}
    plain = [event for block in blocks for event in block]
    kept = [event for event in plain if event.event_id in values]
    assert all(values[event.event_id] == event.value for event in kept)
    assert 0.6 * len(plain) < len(kept) < len(plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"situations": ["gap"], "duration_ms": 6 * DAY}, "gap does not fit into the run: it needs 14 days"),
        ({"situations": ["gap"]}, "a situation needs a run with a duration"),
        ({"situations": ["flood"], "duration_ms": DAY}, "unknown situation 'flood'"),
        ({"situations": ["month_end"], "duration_ms": 15 * DAY}, "last two days of a month"),
        ({"activities": ["golf"]}, "unknown activity 'golf'"),
    ],
)
def test_impossible_situation_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulation(**arguments)
