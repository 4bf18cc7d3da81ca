"""Weaves situations, their takeovers and further activities into the blocks of a stream, and delays what comes late."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import NamedTuple

from streamguard.simulate.activities import ACTIVITIES, ActivityContext
from streamguard.simulate.encode import EventIds, encode_step
from streamguard.simulate.labelled import Campaign, SimulatedEvent
from streamguard.simulate.population import Population
from streamguard.simulate.scenarios import SCENARIOS, Step
from streamguard.simulate.scenarios.accounts import thief_visits
from streamguard.simulate.scenarios.context import DAY, ScenarioContext
from streamguard.simulate.situations import SITUATIONS, Effect, SituationContext

TAKEOVER = SCENARIOS["account_takeover"]
"""Attack that a situation may contain."""


class _Woven(NamedTuple):
    """An added event before encoding, with its labels."""

    step: Step
    campaign: str | None = None
    situation: str | None = None


class Weave:
    """Situations and activities of one run.

    Parameters
    ----------
    population
        The accounts.
    start, end
        Beginning and end of the run, epoch ms; a run without an end can have activities only.
    situations, activities
        Names of `SITUATIONS` and `ACTIVITIES`.
    takeovers
        Whether an account is taken over inside each situation.

    Attributes
    ----------
    campaigns : tuple of Campaign
        The takeovers.

    Raises
    ------
    ValueError
        If a situation does not fit into the run.
    """

    def __init__(
        self,
        population: Population,
        start: int,
        end: int | None,
        situations: Sequence[str],
        activities: Sequence[str],
        takeovers: bool,
    ) -> None:
        if situations and end is None:
            raise ValueError("a situation needs a run with a duration: make it 28 days long")
        self._population = population
        self._start, self._end = start, end
        self._activities = [name for name in ACTIVITIES if name in activities]
        self._run = (population.seed, population.habits.count, start, end, tuple(situations), takeovers)
        self._effects: list[Effect] = []
        self._woven: list[_Woven] = []
        campaigns = []
        for name in dict.fromkeys(situations):
            assert end is not None
            begin = SITUATIONS[name].begin(start, end)
            about = f"{population.seed}:{name}:{start}"
            effect = SITUATIONS[name].make(
                SituationContext(population, Random(about), start, end, begin, name)
            )
            self._effects.append(effect)
            self._woven += [_Woven(step, situation=name) for step in effect.steps]
            self._woven += [_Woven(step) for step in effect.habits]
            if takeovers:
                campaign, steps = self._takeover(name, effect, end)
                campaigns.append(campaign)
                self._woven += [_Woven(step, campaign=campaign.id) for step in steps]
        self._woven = [
            one for one in self._woven if start <= one.step.timestamp and self._ends_after(one.step)
        ]
        self._woven.sort(key=lambda one: one.step.timestamp)
        self.campaigns = tuple(campaigns)

    def into(self, blocks: Iterator[list[SimulatedEvent]]) -> Iterator[list[SimulatedEvent]]:
        """Yield the events of a stream with those of the situations and activities, in the order of their arrival."""
        woven = self._merged(blocks)
        return self._delayed(woven) if any(effect.late for effect in self._effects) else woven

    def _takeover(self, name: str, effect: Effect, end: int) -> tuple[Campaign, list[Step]]:
        user, time = effect.intrusion
        draw = Random(f"{self._population.seed}:{name}:takeover:{self._start}")
        context = ScenarioContext(self._population, draw, end)
        steps = [step for step in thief_visits(context, user, time) if step.timestamp < end]
        steps.sort(key=lambda step: step.timestamp)
        if not steps:
            raise ValueError(f"the takeover inside {name} does not fit into the run: make the run longer")
        return Campaign(
            f"{TAKEOVER.name}-in-{name}",
            TAKEOVER.name,
            TAKEOVER.technique,
            steps[0].timestamp,
            steps[-1].timestamp,
            len(steps),
            frozenset(step.user for step in steps),
        ), steps

    def _merged(self, blocks: Iterator[list[SimulatedEvent]]) -> Iterator[list[SimulatedEvent]]:
        """Yield blocks in time order, each with the added events up to its last one, after all changes."""
        ids = EventIds("woven", *self._run, *self._activities)
        added = heapq.merge(self._woven, self._ordinary(), key=lambda one: one.step.timestamp)
        waiting = next(added, None)
        for block in blocks:
            due = []
            while waiting is not None and waiting.step.timestamp <= block[-1].timestamp:
                due.append(self._encode(waiting, ids))
                waiting = next(added, None)
            if due:
                block = sorted(block + due, key=lambda event: event.timestamp)
            if block := self._changed(block):
                yield block
        if self._end is not None and waiting is not None:
            rest = [self._encode(waiting, ids), *(self._encode(one, ids) for one in added)]
            yield from filter(None, [self._changed(rest)])

    def _ordinary(self) -> Iterator[_Woven]:
        """Yield the events of the activities, day by day, without an end if the run has none."""
        for day in count(self._start // DAY):
            if not self._activities or (self._end is not None and day * DAY >= self._end):
                return
            today: list[Step] = []
            for name in self._activities:
                draw = Random(f"{self._population.seed}:{name}:{day}")
                today += ACTIVITIES[name].make(ActivityContext(self._population, draw, self._end), day * DAY)
            today.sort(key=lambda step: step.timestamp)
            yield from (
                _Woven(step) for step in today if self._start <= step.timestamp and self._ends_after(step)
            )

    def _ends_after(self, step: Step) -> bool:
        return self._end is None or step.timestamp < self._end

    def _encode(self, woven: _Woven, ids: EventIds) -> SimulatedEvent:
        (event_id,) = ids.take(1)
        step = woven.step
        scenario = TAKEOVER.name if woven.campaign else None
        value = encode_step(event_id, step)
        return SimulatedEvent(
            event_id, step.user, step.timestamp, value, scenario, woven.campaign, woven.situation
        )

    def _changed(self, block: list[SimulatedEvent]) -> list[SimulatedEvent]:
        for effect in self._effects:
            if (change := effect.change) is not None:
                block = [changed for event in block if (changed := change(event)) is not None]
        return block

    def _delayed(self, blocks: Iterator[list[SimulatedEvent]]) -> Iterator[list[SimulatedEvent]]:
        """Hold the late events back, and yield each before the first event on time that is younger than its arrival."""
        held: list[tuple[int, int, SimulatedEvent]] = []
        serial = count()
        for block in blocks:
            out: list[SimulatedEvent] = []
            for event in block:
                arrival = self._arrival(event)
                if arrival is not None:
                    heapq.heappush(held, (arrival, next(serial), event))
                    continue
                while held and held[0][0] <= event.timestamp:
                    out.append(heapq.heappop(held)[2])
                out.append(event)
            if out:
                yield out
        if held:
            yield [event for _, _, event in sorted(held)]

    def _arrival(self, event: SimulatedEvent) -> int | None:
        arrivals = [effect.late(event) for effect in self._effects if effect.late is not None]
        return max((arrival for arrival in arrivals if arrival is not None), default=None)
