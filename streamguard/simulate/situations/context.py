"""What a situation is: its name and sentence, when it happens, and what it does to the stream of a company."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import msgspec

from streamguard.simulate.labelled import SimulatedEvent
from streamguard.simulate.places import Place, browser
from streamguard.simulate.population import Population, Spot
from streamguard.simulate.scenarios.context import DAY, Actor, ScenarioContext, Step

Change = Callable[[SimulatedEvent], SimulatedEvent | None]
"""Returns an event as the situation leaves it, or None if the situation removes it."""

BEGINS = 0.6
"""Part of a run after which a situation begins, a share: what comes before is there to be learned."""
WEEK = 7 * DAY
_MONDAY = 4 * DAY
"""A Monday in ms: 1970-01-05."""
NOTICED = 0.03
"""Share of benign events with a somewhat higher upstream threat score, as in the rest of the stream."""
_BENCHMARK_HOSTS = 2 * 256 * 254
"""Hosts of the /24 networks of 198.18.0.0/15, which RFC 2544 reserves for measurements, so that nobody has them."""
_STRIDE = 7919
"""A prime: consecutive numbers have addresses in different /24 networks, as unrelated homes do."""


class Intrusion(NamedTuple):
    """Where a takeover fits into a situation.

    Attributes
    ----------
    user
        Number or name of the account that is taken over.
    time
        When the thief signs in, epoch ms.
    """

    user: int | str
    time: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What a situation does to the stream.

    Attributes
    ----------
    intrusion
        Account and time of a takeover inside the situation.
    steps
        Benign events that the situation adds, in any order; they have its label.
    habits
        Benign events of its accounts before or beside it, in any order; they have no label.
    change
        Applied to every other event.
    late
        Returns when an event arrives, epoch ms, or None if it arrives on time.
    """

    intrusion: Intrusion
    steps: Sequence[Step] = ()
    habits: Sequence[Step] = ()
    change: Change | None = None
    late: Callable[[SimulatedEvent], int | None] | None = None


class SituationContext(ScenarioContext):
    """The company, the clock and the random numbers of one situation.

    Parameters
    ----------
    population
        The accounts.
    draw
        The situation's own random numbers.
    start, end
        Beginning and end of the run, epoch ms.
    begin
        Midnight of the Monday (UTC) on which the situation begins, epoch ms.
    name
        Name of the situation, which is the label of its events.
    """

    def __init__(
        self, population: Population, draw: Random, start: int, end: int, begin: int, name: str
    ) -> None:
        super().__init__(population, draw, end)
        self.start = start
        self.finish = end
        self.begin = begin
        self.label = name
        self._about = f"{population.seed}:{name}"

    def at(self, day: int, hour: float = 0.0) -> int:
        """Time of an hour (UTC) of a day, counted from the beginning of the situation, epoch ms."""
        return self.begin + day * DAY + int(hour * 3_600_000)

    def people(self) -> list[int]:
        """The accounts of persons."""
        habits = self.population.habits
        return [user for user in range(habits.count) if habits.person[user]]

    def names(self, users: Sequence[int]) -> frozenset[str]:
        """The names of accounts."""
        return frozenset(map(self.name, users))

    def stable(self, *about: object) -> Random:
        """Random numbers that depend on the situation and on `about` alone, and not on what was drawn before."""
        return Random(f"{self._about}:{about}")

    def desk(self, user: int, time: int) -> Place:
        """The place of the account's desk."""
        return self.population.place(user, Spot.DESK, time)

    def marked(self, event: SimulatedEvent) -> SimulatedEvent:
        """The same event with the label of this situation; an event of an attack keeps its labels."""
        return event if event.scenario is not None else event._replace(situation=self.label)

    def edited(self, event: SimulatedEvent, **fields: Any) -> SimulatedEvent:
        """The event with other fields and the label of this situation; those of `metadata` are replaced one by one."""
        body: dict[str, Any] = msgspec.json.decode(event.value)
        body["metadata"] |= fields.pop("metadata", {})
        return self.marked(event._replace(value=msgspec.json.encode(body | fields)))

    def worker(self, user: int | str, place: Place) -> Actor:
        """A benign actor."""
        return Actor(self, user, place, noticed=NOTICED)

    def moment(self, begin: int, end: int) -> int:
        """A random time between two."""
        return self.draw.randrange(begin, max(begin + 1, end))

    def weekdays(self, first: int, count: int) -> Iterator[int]:
        """Beginnings of the next `count` days from `first` on, without Saturdays and Sundays, epoch ms."""
        while count > 0:
            if (first - _MONDAY) % WEEK < 5 * DAY:
                yield first
                count -= 1
            first += DAY


@dataclass(frozen=True, slots=True)
class Situation:
    """Something benign that happens to a company."""

    name: str
    description: str
    """What happens, in a sentence."""
    days: int
    """Days from its beginning until its end can be judged."""
    make: Callable[[SituationContext], Effect]
    missing: int = 0
    """Days at its beginning on which events are missing: what it adds is counted after them."""

    def begin(self, start: int, end: int) -> int:
        """Midnight of the Monday (UTC) on which the situation begins in a run, epoch ms.

        Parameters
        ----------
        start, end
            Beginning and end of the run, epoch ms.

        Raises
        ------
        ValueError
            If the situation does not fit into the run.

        Examples
        --------
        >>> Situation("x", "", 7, lambda context: Effect(Intrusion(0, 0))).begin(0, 28 * DAY) // DAY
        18
        """
        latest = min(end - self.days * DAY, start + int(BEGINS * (end - start)) + 6 * DAY)
        monday = (latest - _MONDAY) // WEEK * WEEK + _MONDAY
        if monday < start:
            raise ValueError(
                f"the situation {self.name} does not fit into the run: it needs {self.days + 7} days"
            )
        return monday


def benchmark_address(number: int) -> str:
    """The address of an invented connection to the internet, from the network that RFC 2544 reserves.

    Examples
    --------
    >>> benchmark_address(0), benchmark_address(1)
    ('198.18.0.1', '198.18.31.46')
    """
    number = number * _STRIDE % _BENCHMARK_HOSTS
    return f"198.{18 + number // 65_024}.{number // 254 % 256}.{number % 254 + 1}"


def home(draw: Random, number: int, city: str) -> Place:
    """A home with its own address, machine and browser."""
    return Place(benchmark_address(number), city, f"laptop-{draw.getrandbits(24):06x}", browser(draw))
