"""One simulated run: the benign stream merged with campaigns, in time order, numbered and encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from random import Random

import numpy as np

from streamguard.simulate.activities import ACTIVITIES
from streamguard.simulate.arrivals import ARRIVAL, Arrivals
from streamguard.simulate.encode import Encoder, EventIds, encode_step
from streamguard.simulate.labelled import Campaign, SimulatedEvent
from streamguard.simulate.population import Population
from streamguard.simulate.scenarios import ALL_SCENARIOS, Scenario, ScenarioContext, Step
from streamguard.simulate.situations import SITUATIONS
from streamguard.simulate.weave import Weave

START_MS = 1_736_121_600_000
"""Default start: Monday, 2025-01-06, 00:00 UTC."""
ENDLESS_WINDOW_MS = 600_000
"""In a run without an end, campaigns begin within the first 10 minutes."""


class Simulation:
    """Security events of an invented company: habits, drift and named attacks.

    Iteration yields `SimulatedEvent` in time order; each iteration starts over and yields the same bytes.

    Parameters
    ----------
    users
        Number of accounts; the first 14 are named.
    seed
        Equal arguments result in equal bytes. The accounts depend on seed and users alone, so that a back-fill and a
        later live run have the same accounts.
    start_ms
        Epoch ms at which the virtual clock begins.
    duration_ms
        Duration of the run; None: no end, or up to `events`.
    events
        Number of events after which the run stops.
    events_per_day
        Events of the average account per day, averaged over a week.
    rate
        Events per second of all accounts together at any hour, instead of `events_per_day`.
    scenarios
        Names of `ALL_SCENARIOS`, one campaign each; a name may be repeated.
    window
        Part of the run in which campaigns begin, as shares. The default leaves a quiet beginning for learning.
    leaver
        Whether the run begins with four weeks of the account whose owner left 70 days before the start, which
        `dormant_account` needs. None: yes if that scenario is among the `scenarios`.
    situations
        Names of `SITUATIONS`, which happen after three fifths of the run.
    takeovers
        Whether an account is taken over inside each situation: an attack that has to be found there.
    activities
        Names of `ACTIVITIES`, further kinds of ordinary events. Without them and without situations the bytes of a run
        are the same as before these existed.

    Raises
    ------
    ValueError
        If an argument is invalid; the message says which.

    Examples
    --------
    >>> first = next(iter(Simulation(events=1)))
    >>> first.value.startswith(b'{"event_id":"evt-')
    True
    """

    def __init__(
        self,
        users: int = 14,
        seed: int = 0,
        start_ms: int = START_MS,
        *,
        duration_ms: int | None = None,
        events: int | None = None,
        events_per_day: float = 200.0,
        rate: float | None = None,
        scenarios: Sequence[str] = (),
        window: tuple[float, float] = (0.4, 1.0),
        leaver: bool | None = None,
        situations: Sequence[str] = (),
        takeovers: bool = False,
        activities: Sequence[str] = (),
    ) -> None:
        for name, value in (("events_per_day", events_per_day), ("rate", 1.0 if rate is None else rate)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, not {seed}")
        if not 0 <= window[0] <= window[1] <= 1:
            raise ValueError(f"window must be two rising shares between 0 and 1, not {window}")
        for kind, given, known in (
            ("scenario", scenarios, ALL_SCENARIOS),
            ("situation", situations, SITUATIONS),
            ("activity", activities, ACTIVITIES),
        ):
            for name in given:
                if name not in known:
                    raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")
        self.population = Population(users, seed)
        self.start_ms = start_ms
        self.rate = rate
        self._per_day = events_per_day
        self._events = events
        self._end = None if duration_ms is None else start_ms + duration_ms
        if duration_ms is None and events is not None:
            per_ms = rate / 1000 if rate else events_per_day * users / 86_400_000
            duration_ms = int(events / per_ms)
        self._window = window
        self._leaver = "dormant_account" in scenarios if leaver is None else leaver
        self._names = tuple(scenarios)
        self._steps, self.campaigns = self._stage(duration_ms)
        self._weave: Weave | None = None
        if situations or activities:
            self._weave = Weave(self.population, start_ms, self._end, situations, activities, takeovers)
            self.campaigns += self._weave.campaigns

    def __iter__(self) -> Iterator[SimulatedEvent]:
        return chain.from_iterable(self.blocks())

    def blocks(self) -> Iterator[list[SimulatedEvent]]:
        """Yield the same events in the lists in which they are created."""
        blocks = self._blocks()
        if self._weave is not None:
            blocks = self._weave.into(blocks)
        return blocks if self._events is None else _first(blocks, self._events)

    def _blocks(self) -> Iterator[list[SimulatedEvent]]:
        """Yield the benign stream with the campaigns of `scenarios`."""
        population = self.population
        arrivals = Arrivals(population, events_per_day=self._per_day, rate=self.rate)
        encoder = Encoder(population, self.start_ms)
        ids = EventIds(
            population.seed, population.habits.count, self.start_ms, self.rate, self._per_day, self._names
        )
        steps = iter(self._steps)
        step = next(steps, None)
        benign = arrivals.blocks(self.start_ms, self._end)
        if self._leaver:
            benign = chain([(self.start_ms, arrivals.leaver_history(self.start_ms))], benign)
        for until, block in benign:
            times = block["time"]
            attacks: list[tuple[Step, Campaign]] = []
            while step is not None and step[0].timestamp < until:
                attacks.append(step)
                step = next(steps, None)
            numbers = ids.take(len(block) + len(attacks))
            if not attacks:
                events = self._benign(encoder, block, numbers)
            else:
                when = np.concatenate((times, [attack.timestamp for attack, _ in attacks]))
                order = np.argsort(when, kind="stable")
                given = [""] * len(order)
                for number, row in zip(numbers, order.tolist(), strict=True):
                    given[row] = number
                made = self._benign(encoder, block, given[: len(block)])
                made += map(_attack, attacks, given[len(block) :])
                events = [made[row] for row in order.tolist()]
            if events:
                yield events

    def _benign(self, encoder: Encoder, block: np.ndarray, ids: list[str]) -> list[SimulatedEvent]:
        name = encoder.name
        values = encoder.render(block, ids)
        users = [name(user) for user in block["user"].tolist()]
        nobody = [None] * len(ids)
        return list(
            map(
                SimulatedEvent._make,
                zip(ids, users, block["time"].tolist(), values, nobody, nobody, nobody, strict=True),
            )
        )

    def _stage(self, duration_ms: int | None) -> tuple[list[tuple[Step, Campaign]], tuple[Campaign, ...]]:
        """Return the steps of all campaigns in time order, and the campaigns."""
        length = duration_ms or ENDLESS_WINDOW_MS
        end = None if duration_ms is None else self.start_ms + duration_ms
        steps, campaigns = [], []
        for number, name in enumerate(self._names):
            count = self._names[: number + 1].count(name)
            played = self._play(ALL_SCENARIOS[name], count, length, end)
            if not played:
                raise ValueError(
                    f"{name}-{count} does not fit into a run of {length / 1000:.0f} s: make the run longer"
                )
            campaign = Campaign(
                f"{name}-{count}",
                name,
                ALL_SCENARIOS[name].technique,
                played[0].timestamp,
                played[-1].timestamp,
                len(played),
                frozenset(step.user for step in played),
            )
            campaigns.append(campaign)
            steps += [(step, campaign) for step in played]
        steps.sort(key=lambda pair: pair[0].timestamp)
        return steps, tuple(campaigns)

    def _play(self, scenario: Scenario, count: int, length: int, end: int | None) -> list[Step]:
        """Return the steps of one campaign, which begins early enough to end within the run if the window allows it."""
        about = f"{self.population.seed}:{scenario.name}:{count}:{self.start_ms}"
        first, last = (self.start_ms + int(share * length) for share in self._window)
        start = Random(about).randint(first, last)
        steps: list[Step] = []
        for _ in range(2):
            context = ScenarioContext(self.population, Random(f"{about}:steps"), end)
            steps = sorted(scenario.generate(context, start), key=lambda step: step.timestamp)
            if end is None or start == first or steps[-1].timestamp < end:
                break
            start = max(first, start - (steps[-1].timestamp - end) - 1000)
        return [
            step
            for step in steps
            if self.start_ms <= step.timestamp and (end is None or step.timestamp < end)
        ]


def _first(blocks: Iterator[list[SimulatedEvent]], count: int) -> Iterator[list[SimulatedEvent]]:
    """Yield the first `count` events."""
    for block in blocks:
        yield block[:count]
        count -= len(block)
        if count <= 0:
            return


def _attack(attack: tuple[Step, Campaign], event_id: str) -> SimulatedEvent:
    step, campaign = attack
    value = encode_step(event_id, step)
    return SimulatedEvent(event_id, step.user, step.timestamp, value, campaign.scenario, campaign.id)


__all__ = ["ARRIVAL", "Campaign", "SimulatedEvent", "Simulation"]
