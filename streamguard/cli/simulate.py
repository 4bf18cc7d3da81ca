"""`streamguard simulate`: writes simulated security events to Kafka or to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.files.disk import cannot_write
from streamguard.kafka.connection import Brokers
from streamguard.simulate import ACTIVITIES, MORE_SCENARIOS, SCENARIOS, SITUATIONS, SimulatedEvent, Simulation
from streamguard.simulate.output import Labels, SituationLabels, open_file
from streamguard.simulate.pace import paced
from streamguard.simulate.simulation import START_MS
from streamguard.text import counted

DAY_MS = 86_400_000
LIVE_RATE = 100.0
LOW_LATENCY_RATE = 5000.0
"""Events a second. Up to this rate each event is sent at once; above it, batches save CPU."""
LEAD_MS = 500
"""Time between the start of the command and the first event of a live run.

Drawing the accounts takes less time than this, so the first events are not late.
"""

_GROUPS = {"all": tuple(SCENARIOS), "more": tuple(MORE_SCENARIOS)}
"""Names that stand for several attacks."""

Sink = Callable[[Sequence[SimulatedEvent]], object]


@click.command()
@click.option(
    "--users",
    type=click.IntRange(1),
    default=14,
    show_default=True,
    help="Number of accounts. The first 14 have fixed names.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the random generator. The same seed gives the same accounts and the same bytes.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Events a second of all accounts together; Kafka receives them in real time.  [default: "
    f"{LIVE_RATE:g} for Kafka without --events, --duration, --days and --start]",
)
@click.option(
    "--events-per-day",
    type=click.FloatRange(0, min_open=True),
    default=200.0,
    show_default=True,
    help="Events a day of an average account, if --rate is not given.",
)
@click.option("--events", type=click.IntRange(1), help="Maximum number of events.")
@click.option(
    "--duration",
    type=options.Duration(),
    help="Length of the run by the events' timestamps, such as 90s, 5m or 2h.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    help="Length of the run in days, instead of --duration; 30 gives a month of habits.",
)
@click.option(
    "--start",
    type=options.Time(),
    help="Time of the first event; only dormant_account has earlier events.  [default: for Kafka now with "
    "--rate, otherwise a time for which the last event is now; for a file 2025-01-06]",
)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="NAME",
    help="Attack to add as a campaign (see --list). Repeat the option for several attacks; `all` adds one of "
    "each, `more` one of each further attack: on a cloud, on Windows and on a cluster.",
)
@click.option(
    "--situation",
    "situations",
    multiple=True,
    metavar="NAME",
    help="Benign situation that happens after three fifths of the run (see --list). Repeat the option for several.",
)
@click.option(
    "--takeovers",
    is_flag=True,
    help="Add an attack to each situation: an account is taken over while the situation lasts.",
)
@click.option(
    "--activity",
    "activities",
    default="",
    metavar="NAME,...",
    help=f"Further ordinary events, separated by commas: {', '.join(ACTIVITIES)}.",
)
@click.option(
    "--window",
    type=(float, float),
    default=(0.4, 1.0),
    show_default=True,
    metavar="FROM TO",
    help="Part of the run in which attacks begin, as shares from 0 to 1.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File (.jsonl, .parquet or .csv) to write instead of Kafka.",
)
@click.option(
    "--with-labels",
    is_flag=True,
    help="Add the columns is_attack and attack_id, with --situation also situation, to --output (.parquet or .csv).",
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the labels: a JSON line with event id, campaign and technique for each attack event.",
)
@click.option(
    "--situation-labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the labels of situations: a JSON line with event id and situation for each of their events.",
)
@options.bootstrap_servers
@click.option("--topic", help="Kafka topic to write to.  [default: kafka.events_topic of the settings]")
@options.config
@click.option(
    "--list", "listing", is_flag=True, help="List the attacks, situations and activities, and exit."
)
def command(
    users: int, seed: int, rate: float | None, events_per_day: float, events: int | None,
    duration: float | None, days: float | None, start: int | None, attacks: tuple[str, ...],
    output: Path | None, with_labels: bool, labels: Path | None, bootstrap_servers: str | None,
    topic: str | None, config: Path | None, listing: bool, window: tuple[float, float],
    situations: tuple[str, ...], takeovers: bool, activities: str, situation_labels: Path | None,
) -> None:  # fmt: skip
    """Generate security events with habits, drift and named attacks, and write them to Kafka or to a file.

    Without --rate the timestamps follow the accounts' working hours, and the events are written as fast as they
    can be generated.
    """
    if listing:
        _list()
        return
    if days is not None and duration is not None:
        raise click.UsageError("--days and --duration contradict each other: give one of them")
    duration_ms = int(days * DAY_MS) if days is not None else round(duration * 1000) if duration else None
    if output is None and rate is None and (events, duration_ms, start) == (None, None, None):
        rate = LIVE_RATE
    if (output is not None or rate is None) and events is None and duration_ms is None:
        what = "a run without --rate" if output is None else "a file"
        raise click.UsageError(f"{what} needs a size: give --events, --duration or --days")
    if takeovers and not situations:
        raise click.UsageError("--takeovers needs a --situation in which they happen")
    if with_labels and output is None:
        raise click.UsageError(
            "--with-labels needs --output; for events in Kafka write the labels to a file with --labels"
        )
    live = output is None and rate is not None
    now = int(time.time() * 1000)
    begin = now + LEAD_MS
    if start is None:
        if live:
            start = begin
        elif output is None:
            start = now - (duration_ms or int((events or 0) / (events_per_day * users) * DAY_MS))
        else:
            start = START_MS
    settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
    try:
        simulation = Simulation(
            users, seed, start, duration_ms=duration_ms, events=events, events_per_day=events_per_day, rate=rate,
            window=window,
            scenarios=[name for given in attacks for name in _GROUPS.get(given, (given,))],
            situations=situations, takeovers=takeovers, activities=_separated(activities),
        )  # fmt: skip
        with ExitStack() as stack:
            sinks: list[Sink] = [stack.enter_context(Labels(labels)).write] if labels else []
            if situation_labels:
                sinks.append(stack.enter_context(SituationLabels(situation_labels)).write)
            if output is not None:
                file = open_file(output, with_labels=with_labels, with_situations=bool(situations))
                sinks.append(stack.enter_context(file).write)
            else:
                target = topic or settings.kafka.events_topic
                sinks.append(stack.enter_context(_to_kafka(Brokers.of(settings), target, rate)))
            _announce(simulation)
            blocks = simulation.blocks()
            _run(paced(blocks, shift_seconds=(begin - start) / 1000) if live else blocks, sinks)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise cannot_write(error.filename or output, error, "choose another --output or --labels") from None


def _separated(names: str) -> list[str]:
    return [name for part in names.split(",") if (name := part.strip())]


def _list() -> None:
    for title, scenarios in (("Attacks", SCENARIOS), ("Further attacks", MORE_SCENARIOS)):
        click.echo(f"{title} (--attack)")
        for scenario in scenarios.values():
            slow = " (slow)" if scenario.slow else ""
            click.echo(f"  {scenario.name:20} {scenario.technique:10} {scenario.description}{slow}")
    click.echo("Benign situations (--situation)")
    for situation in SITUATIONS.values():
        click.echo(f"  {situation.name:20} {situation.description}")
    click.echo("Further ordinary events (--activity)")
    for activity in ACTIVITIES.values():
        click.echo(f"  {activity.name:20} {activity.description}")


def _announce(simulation: Simulation) -> None:
    for campaign in simulation.campaigns:
        begins = datetime.fromtimestamp(campaign.start / 1000, UTC).isoformat(" ", "seconds")
        events = counted(campaign.events, "event")
        click.echo(f"{campaign.id} ({campaign.technique}): {events} from {begins}", err=True)


@contextmanager
def _to_kafka(brokers: Brokers, topic: str, rate: float | None) -> Iterator[Sink]:
    from streamguard.kafka.producer import EventProducer

    linger_ms = 0.0 if rate is not None and rate <= LOW_LATENCY_RATE else 5.0
    with EventProducer(brokers, topic, linger_ms=linger_ms) as producer:
        producer.check()
        yield lambda events: producer.send((event.user, event.value) for event in events)


def _run(blocks: Iterator[Sequence[SimulatedEvent]], sinks: Sequence[Sink]) -> None:
    """Pass every block to every sink; print the number of events and the rate since the first block."""
    count, begun = 0, time.perf_counter()
    try:
        for block in blocks:
            begun = begun if count else time.perf_counter()
            for sink in sinks:
                sink(block)
            count += len(block)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    seconds = time.perf_counter() - begun
    rate = count / max(seconds, 1e-9)
    click.echo(f"{counted(count, 'event')} in {seconds:.1f} s ({rate:,.0f} a second)", err=True)
