"""Benign situations with a takeover inside: false incidents that they add, and whether the takeover is seen."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice

import msgspec

from bench.figures import Figure
from bench.forgeries import FORGERIES, scenario
from streamguard.events.event import parse
from streamguard.history.files import Batch
from streamguard.history.replay import Replay
from streamguard.risk import HIGH_RISK, bits
from streamguard.simulate import ACTIVITIES, MORE_SCENARIOS, SITUATIONS, SimulatedEvent, Simulation
from streamguard.simulate.population import Population
from streamguard.simulate.weave import Weave

USERS, EVENTS_PER_DAY, SEED = 60, 40.0, 3
"""The company: small enough that all situations take some minutes, large enough that crowds and habits exist."""
DAYS, LONG_DAYS = 28, 70
"""Length of a run, and of a run with a situation that lasts for weeks."""
PARTITIONS = 4
"""As in `bench.detection`: the crowd of a partition is a quarter of the company."""
ROWS = 1000
"""Events in a batch; their number does not matter."""
DAY_MS = 86_400_000

Stream = Iterator[list[SimulatedEvent]]


class Row(msgspec.Struct, frozen=True):
    """What a run contains and what was found in it.

    Attributes
    ----------
    name
        Name of the situation, of the forgery, or of the further attack.
    events
        Number of events of the whole run.
    marked
        Events that the situation adds or changes, or forged events.
    alerts
        Alerted events from the beginning of the situation on.
    incidents
        Incidents since then without an event of the takeover.
    raised
        Those of them whose risk is high or critical.
    added, added_raised
        The same, less those of the run without the situation in the same days.
    takeover_events, takeover_alerts
        Events of the takeover, or of the further attack, and how many of them are alerted.
    seen
        Whether an event of the takeover belongs to an incident whose risk is high or critical.
    """

    name: str
    events: int
    marked: int
    alerts: int
    incidents: int
    raised: int
    added: int
    added_raised: int
    takeover_events: int
    takeover_alerts: int
    seen: bool


@dataclass
class Found:
    """What a replay found since a time."""

    events: int = 0
    marked: int = 0
    alerts: int = 0
    takeover_events: int = 0
    takeover_alerts: int = 0
    incidents: int = 0
    raised: int = 0
    seen: bool = False


class Company:
    """A simulated company without attacks: its stream is drawn once, and replayed for each situation."""

    def __init__(self, days: int, *, users: int = USERS, activities: Sequence[str] = ()) -> None:
        simulation = Simulation(
            users, SEED, duration_ms=days * DAY_MS, events_per_day=EVENTS_PER_DAY, activities=activities
        )
        self.start, self.end = simulation.start_ms, simulation.start_ms + days * DAY_MS
        self.population: Population = simulation.population
        self.blocks = list(simulation.blocks())
        self._before: dict[int, Found] = {}

    def without(self, since: int) -> Found:
        """What is found in the company alone since a time, epoch ms."""
        if since not in self._before:
            self._before[since] = find(iter(self.blocks), since)
        return self._before[since]

    def row(self, name: str, stream: Stream, since: int) -> Row:
        """Replay a stream of this company and compare it with the company alone."""
        before, found = self.without(since), find(stream, since)
        return Row(
            name,
            found.events,
            found.marked,
            found.alerts,
            found.incidents,
            found.raised,
            found.incidents - before.incidents,
            found.raised - before.raised,
            found.takeover_events,
            found.takeover_alerts,
            found.seen,
        )


def find(stream: Stream, since: int) -> Found:
    """Replay a stream in the order of arrival; count what is found in events that are not older than `since`."""
    replay = Replay(partitions=PARTITIONS)
    found = Found()
    attacked: set[int] = set()
    alerted: set[int] = set()
    highest: dict[int, float] = {}
    events = chain.from_iterable(stream)
    while rows := list(islice(events, ROWS)):
        values: list[bytes | None] = [event.value for event in rows]
        scored = replay.feed(Batch(0, [], values, *parse(values), {}))
        found.events += len(rows)
        for event, incident, evidence in zip(
            rows, scored.incident.tolist(), scored.evidence.tolist(), strict=True
        ):
            found.marked += event.situation is not None
            found.takeover_events += event.scenario is not None
            if incident < 0:
                continue
            highest[incident] = max(highest.get(incident, 0.0), evidence)
            if event.scenario is not None:
                found.takeover_alerts += 1
                attacked.add(incident)
            if event.timestamp >= since:
                found.alerts += 1
                alerted.add(incident)
    level = bits(HIGH_RISK)
    false = alerted - attacked
    found.incidents = len(false)
    found.raised = sum(highest[incident] >= level for incident in false)
    found.seen = any(highest[incident] >= level for incident in attacked)
    return found


def rows(names: Sequence[str], *, quick: bool = False) -> Iterator[Row]:
    """Measure situations and forgeries by name, one after the other."""
    users = 20 if quick else USERS

    @cache
    def company(days: int, *activities: str) -> Company:
        return Company(days, users=users, activities=activities)

    for name in names:
        if name in FORGERIES:
            home = company(DAYS)
            since, stream = FORGERIES[name](home.population, home.blocks, home.start)
            yield home.row(name, stream, since)
            continue
        if name in MORE_SCENARIOS:
            home = company(DAYS, *ACTIVITIES)
            since, stream = scenario(home.population, home.blocks, home.start, name)
            yield home.row(name, stream, since)
            continue
        situation = SITUATIONS[name]
        home = company(DAYS if situation.days + 7 <= DAYS else LONG_DAYS)
        since = situation.begin(home.start, home.end) + situation.missing * DAY_MS
        weave = Weave(home.population, home.start, home.end, [name], (), takeovers=True)
        yield home.row(name, weave.into(iter(home.blocks)), since)


def table(found: Sequence[Row]) -> str:
    """The rows as a table of text."""
    head = ("situation", "events", "marked", "alerts", "incidents", "raised", "added", "attack", "seen")
    lines = [head]
    for row in found:
        lines.append(
            (
                row.name,
                f"{row.events:,}",
                f"{row.marked:,}",
                f"{row.alerts:,}",
                f"{row.incidents:,}",
                f"{row.raised:,}",
                f"{row.added:+,} ({row.added_raised:+,})",
                f"{row.takeover_alerts} of {row.takeover_events}",
                "yes" if row.seen else "NO",
            )
        )
    width = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(width[0]), *(cell.rjust(width[k + 1]) for k, cell in enumerate(line[1:]))]
        ).rstrip()
        for line in lines
    )


NAMES = (*SITUATIONS, *FORGERIES, *MORE_SCENARIOS)
"""All rows in their order."""
QUICK = ("new_log_source", "vpn_rollout")


MAX_RAISED = {"service_accounts": 10}
"""High or critical incidents that a situation may add, where people or programs really do what thieves do."""


def wanted(name: str) -> str:
    """Limit of the high or critical incidents that a situation adds."""
    return f"<= {MAX_RAISED.get(name, 2)}"


def measure(*, quick: bool) -> list[Figure]:
    """Figures of each situation for `python -m bench`."""
    found = list(rows(QUICK if quick else NAMES, quick=quick))
    print(table(found), flush=True)
    figures = []
    for row in found:
        figures.append(
            Figure(
                f"{row.name}: false incidents added, high or critical", row.added_raised, "", wanted(row.name)
            )
        )
        figures.append(Figure(f"{row.name}: alerts of the attack", row.takeover_alerts))
    figures.append(Figure(f"attacks seen of {len(found)}", sum(row.seen for row in found)))
    return figures


def main(show: Callable[[str], None] = print) -> int:
    """Print the table of the chosen situations."""
    parser = argparse.ArgumentParser(prog="python -m bench.situations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Rows to measure: {', '.join(NAMES)}.")
    parser.add_argument("--quick", action="store_true", help="Measure a smaller company.")
    parser.add_argument(
        "--json", action="store_true", help="Print the rows as JSON lines instead of a table."
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no situation {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    begun, found = time.monotonic(), []
    for row in rows(options.names or NAMES, quick=options.quick):
        found.append(row)
        if options.json:
            show(msgspec.json.encode(row).decode())
    if not options.json:
        show(table(found))
        show(f"{time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
