"""`streamguard simulate`: security events to Kafka or to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.errors import CannotWriteError
from streamguard.kafka.connection import Brokers
from streamguard.simulate import SCENARIOS, SimulatedEvent, Simulation
from streamguard.simulate.output import Labels, open_file
from streamguard.simulate.pace import paced
from streamguard.simulate.simulation import START_MS

DAY_MS = 86_400_000
LIVE_RATE = 100.0
LOW_LATENCY_RATE = 5000.0
"""Events a second up to which each event is sent at once; above it, batches save CPU."""
LEAD_MS = 500
"""A live run begins this much from now: by then its people are drawn, and no first event is late."""

Sink = Callable[[Sequence[SimulatedEvent]], object]


@click.command()
@click.option(
    "--users", type=click.IntRange(1), default=14, show_default=True, help="Accounts; the first 14 are named."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same people, same bytes."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help=f"Events a second of all accounts together; to Kafka in real time. [Kafka without --days, --start "
    f"or --events: {LIVE_RATE:g}]",
)
@click.option(
    "--events-per-day",
    type=click.FloatRange(0, min_open=True),
    default=200.0,
    show_default=True,
    help="Of an average account, when there is no --rate.",
)
@click.option("--events", type=click.IntRange(1), help="Stop after so many events.")
@click.option(
    "--duration", type=options.Duration(), help="Stop after this much time of the events' clock: 90s, 5m, 2h."
)
@click.option(
    "--days", type=click.FloatRange(0, min_open=True), help="The same in days: 30 is a month of habits."
)
@click.option(
    "--start",
    type=options.Time(),
    help="Time of the first event; dormant_account has a past before it. [Kafka: now with --rate, else so that "
    "the last is now; file: 2025-01-06]",
)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="NAME",
    help="Weave in a campaign (see --list); repeat for more, `all` for one of each.",
)
@click.option(
    "--window",
    type=(float, float),
    default=(0.4, 1.0),
    show_default=True,
    metavar="FROM TO",
    help="Share of the run in which attacks begin.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .jsonl, .parquet or .csv file instead of Kafka.",
)
@click.option(
    "--with-labels", is_flag=True, help="Columns is_attack and attack_id in --output (.parquet, .csv)."
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file for the labels: id, campaign, technique.",
)
@options.bootstrap_servers
@click.option("--topic", help="Instead of the one in the settings.")
@options.config
@click.option("--list", "listing", is_flag=True, help="Name the attacks and end.")
def command(
    users: int, seed: int, rate: float | None, events_per_day: float, events: int | None,
    duration: float | None, days: float | None, start: int | None, attacks: tuple[str, ...],
    output: Path | None, with_labels: bool, labels: Path | None, bootstrap_servers: str | None,
    topic: str | None, config: Path | None, listing: bool, window: tuple[float, float],
) -> None:  # fmt: skip
    """Make security events: habits, drift and named attacks, to Kafka or to a file.

    Without --rate the accounts keep their hours and the events come as fast as they can be made.
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
        raise click.UsageError("the amount is missing: give --events, --duration or --days")
    if with_labels and output is None:
        raise click.UsageError(
            "--with-labels needs --output; for events in Kafka write the labels with --labels FILE"
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
            scenarios=[name for given in attacks for name in (SCENARIOS if given == "all" else (given,))],
        )  # fmt: skip
        with ExitStack() as stack:
            sinks: list[Sink] = [stack.enter_context(Labels(labels)).write] if labels else []
            if output is not None:
                sinks.append(stack.enter_context(open_file(output, with_labels=with_labels)).write)
            else:
                target = topic or settings.kafka.events_topic
                sinks.append(stack.enter_context(_to_kafka(Brokers.of(settings), target, rate)))
            _announce(simulation)
            blocks = simulation.blocks()
            _run(paced(blocks, shift_seconds=(begin - start) / 1000) if live else blocks, sinks)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise CannotWriteError(f"cannot write {error.filename or output}: {error.strerror}") from None


def _list() -> None:
    for scenario in SCENARIOS.values():
        slow = " (slow)" if scenario.slow else ""
        click.echo(f"{scenario.name:20} {scenario.technique:10} {scenario.description}{slow}")


def _announce(simulation: Simulation) -> None:
    for campaign in simulation.campaigns:
        begins = datetime.fromtimestamp(campaign.start / 1000, UTC).isoformat(" ", "seconds")
        click.echo(f"{campaign.id} ({campaign.technique}): {campaign.events} events from {begins}", err=True)


@contextmanager
def _to_kafka(brokers: Brokers, topic: str, rate: float | None) -> Iterator[Sink]:
    from streamguard.kafka.producer import EventProducer

    linger_ms = 0.0 if rate is not None and rate <= LOW_LATENCY_RATE else 5.0
    with EventProducer(brokers, topic, linger_ms=linger_ms) as producer:
        producer.check()
        yield lambda events: producer.send((event.user, event.value) for event in events)


def _run(blocks: Iterator[Sequence[SimulatedEvent]], sinks: Sequence[Sink]) -> None:
    """Hand every block to every sink; say at the end how many and, from the first on, how fast."""
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
    click.echo(f"{count:,} events in {seconds:.1f} s ({count / max(seconds, 1e-9):,.0f} a second)", err=True)
