"""Attacks that are injected into a recorded stream: forged events that make detection deaf, and named scenarios."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from random import Random

from streamguard.simulate import ALL_SCENARIOS, SimulatedEvent
from streamguard.simulate.encode import EventIds, encode_step
from streamguard.simulate.places import Place
from streamguard.simulate.population import Population
from streamguard.simulate.scenarios.accounts import thief_visits
from streamguard.simulate.scenarios.context import DAY, HOUR, Actor, ScenarioContext, Step

NUMBING_EVENTS, NUMBING_ACCOUNTS = 240, 60
"""Strange events and the accounts over which they are spread: few for each, so that no account stands out."""
NUMBED_ON = 21
"""Day of the run on which the forged events arrive."""
BACK_DATED_MS = 3 * DAY
"""How far the strange events are dated back."""
AHEAD_MS = 2_240_611_200_000
"""Time of the forged clocks minus that of the run's start, 71 years: they show the year 2096."""

Stream = Iterator[list[SimulatedEvent]]
Forgery = Callable[[Population, Sequence[list[SimulatedEvent]], int], tuple[int, Stream]]
"""Returns the time from which alerts are counted, and the stream with the forged events and the takeover."""


def numbing(population: Population, blocks: Sequence[list[SimulatedEvent]], start: int) -> tuple[int, Stream]:
    """240 strange, back-dated events over 60 accounts from their usual addresses; then an account is taken over."""
    draw = Random(f"{population.seed}:numbing")
    context = ScenarioContext(population, draw, None)
    arrives = start + NUMBED_ON * DAY + 3 * HOUR
    accounts = context.accounts(NUMBING_ACCOUNTS)
    forged: list[tuple[int, Step]] = []
    for number in range(NUMBING_EVENTS):
        user = accounts[number % len(accounts)]
        usual = context.own_place(user, arrives)
        strange = Place(
            usual.address,
            "ZA-Cape Town",
            f"x-{draw.getrandbits(32):08x}",
            f"agent-{draw.getrandbits(32):08x}",
        )
        actor = Actor(context, user, strange, noticed=1.0)
        step = actor.act(
            arrives - BACK_DATED_MS + number * 1000,
            f"strange.{draw.getrandbits(32):08x}",
            "192.0.2.1",
            "failed",
        )
        forged.append((arrives + number * 1000, step))
    return arrives, _stream(population, blocks, forged, arrives + DAY)


def forged_clocks(
    population: Population, blocks: Sequence[list[SimulatedEvent]], start: int
) -> tuple[int, Stream]:
    """Two events of two invented accounts, dated seventy years ahead; then an account is taken over."""
    draw = Random(f"{population.seed}:clocks")
    context = ScenarioContext(population, draw, None)
    arrives = start + NUMBED_ON * DAY + 3 * HOUR
    nowhere = Place("192.0.2.7", "DE-Berlin", "laptop-000001", "curl/8.4.0")
    forged = [
        (arrives + number, Actor(context, f"ghost-{number}", nowhere).sign_in(arrives + AHEAD_MS + number))
        for number in range(2)
    ]
    return arrives, _stream(population, blocks, forged, arrives + DAY)


def scenario(
    population: Population, blocks: Sequence[list[SimulatedEvent]], start: int, name: str
) -> tuple[int, Stream]:
    """One campaign of a scenario, on the day on which the others inject."""
    since = start + NUMBED_ON * DAY
    context = ScenarioContext(population, Random(f"{population.seed}:{name}"), None)
    attack = [(step.timestamp, step) for step in ALL_SCENARIOS[name].generate(context, since + DAY)]
    return since, _injected(blocks, [], attack, name)


def _stream(
    population: Population, blocks: Sequence[list[SimulatedEvent]], forged: list[tuple[int, Step]], from_: int
) -> Stream:
    """The company's events with the forged ones, which arrive at a time, and a takeover from a time on."""
    context = ScenarioContext(population, Random(f"{population.seed}:forgery:takeover"), None)
    victim = context.staff()
    visits = thief_visits(context, victim, context.next_working_time(victim, from_))
    return _injected(blocks, forged, [(step.timestamp, step) for step in visits], "account_takeover")


def _injected(
    blocks: Sequence[list[SimulatedEvent]],
    forged: list[tuple[int, Step]],
    attack: list[tuple[int, Step]],
    name: str,
) -> Stream:
    """A stream with forged events and with those of an attack, each at the time of its arrival."""
    ids = EventIds("injected", name)
    added: list[tuple[int, SimulatedEvent]] = []
    marks = [(arrival, step, None, "forged") for arrival, step in forged]
    marks += [(arrival, step, name, None) for arrival, step in attack]
    for arrival, step, attacked, mark in sorted(marks, key=lambda one: one[0]):
        (event_id,) = ids.take(1)
        value = encode_step(event_id, step)
        event = SimulatedEvent(event_id, step.user, step.timestamp, value, attacked, attacked, mark)
        added.append((arrival, event))
    base = ((event.timestamp, event) for block in blocks for event in block)
    yield [event for _, event in heapq.merge(base, added, key=lambda one: one[0])]


FORGERIES: dict[str, Forgery] = {"numbing": numbing, "forged_clocks": forged_clocks}
"""Name -> forgery."""
