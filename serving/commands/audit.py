"""`streamguard audit`: verifies the audit log of `streamguard serve`, and shows it."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from streamguard.cli import options
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.errors import ExitCode
from streamguard.events.event_time import epoch_ms
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.serving.audit.reading import records_of, state_of
from streamguard.serving.audit.record import NotARecordError, decode
from streamguard.serving.audit.verification import Chain, Verification, verify
from streamguard.text import counted, printable


@click.group(cls=SuggestingGroup)
def command() -> None:
    """Verify and show who has seen the names of people in `streamguard serve`.

    The audit log is a topic (kafka.audit_topic). Each run of a server writes a chain of records, of which each has the
    hash of the one before.

    \b
    Examples:
      streamguard audit verify
      streamguard audit show --by ann --since 2026-11-30

    Exit codes: 1 if `verify` finds that something is wrong, 69 if Kafka is unavailable or refuses this user, 75 if it
    stops to answer, 78 if the settings cannot be used or the topic is missing.
    """


@command.command("verify")
@options.config
@options.bootstrap_servers
@options.as_json
def verify_(config: Path | None, bootstrap_servers: str | None, as_json: bool) -> None:
    """Check every chain, and name each gap, each changed record and each missing end.

    A changed latest record of a chain cannot be found by the chain itself: note the digests that this command prints,
    and compare them later.

    \b
    Examples:
      streamguard audit verify
      streamguard audit verify --json | jq .chains[].head
    """
    brokers, topic = _place(config, bootstrap_servers)
    bounds = state_of(brokers, topic).bounds
    positions = {partition: one.start for partition, one in bounds.items()}
    records = ((one.offset, one.value) for one in records_of(brokers, topic, positions))
    found = verify(records, min(positions.values(), default=0), int(time.time() * 1000))
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        _print(found, topic)
    if not found.sound:
        raise SystemExit(ExitCode.FOUND)


def _print(found: Verification, topic: str) -> None:
    for one in found.chains:
        click.echo(_line(one))
        for text in one.breaks:
            click.echo(f"  {printable(text)}")
    for text in found.breaks:
        click.echo(printable(text))
    wrong = len(found.breaks) + sum(len(one.breaks) for one in found.chains)
    result = f"{counted(wrong, 'break')} found" if wrong else "nothing is wrong"
    records = sum(one.records for one in found.chains)
    read = f"{counted(records, 'record')} of {topic} in {counted(len(found.chains), 'chain')}"
    click.echo(f"{printable(read)}: {result}")


def _line(chain: Chain) -> str:
    expired = ", its beginning has expired" if chain.expired else ""
    return (
        f"chain {chain.chain}: {chain.state}, {counted(chain.records, 'record')} from {printable(chain.first_at[:19])} "
        f"to {printable(chain.last_at[:19])} UTC{expired}, digest {chain.head}"
    )


@command.command()
@options.config
@options.bootstrap_servers
@click.option("--by", default="", help="Records about this person alone.")
@click.option("--subject", default="", help="Records about this incident, request or pseudonym alone.")
@click.option("--since", type=options.Time(), help="Earliest time, such as 2026-11-30.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON lines.")
def show(
    config: Path | None,
    bootstrap_servers: str | None,
    by: str,
    subject: str,
    since: int | None,
    as_json: bool,
) -> None:
    """Print the records in the order of the topic.

    \b
    Examples:
      streamguard audit show
      streamguard audit show --subject user-xsqafs31gkjddh1d --json
    """
    brokers, topic = _place(config, bootstrap_servers)
    bounds = state_of(brokers, topic).bounds
    for one in records_of(brokers, topic, {partition: place.start for partition, place in bounds.items()}):
        try:
            record = decode(one.value)
        except NotARecordError as error:
            click.echo(
                f"offset {one.offset:,} is not a record of the audit log: {printable(str(error))}", err=True
            )
            continue
        too_early = since is not None and (epoch_ms(record.at) or 0) < since
        if too_early or (by and record.by != by) or (subject and record.subject != subject):
            continue
        if as_json:
            click.echo(msgspec.json.encode(record).decode())
            continue
        who = f"{record.by} ({record.role})" if record.by else f"server, {record.kind}"
        parts = [record.at[:19].replace("T", " "), who, record.what, record.subject, record.detail]
        click.echo(printable("  ".join(part for part in parts if part)))


def _place(config: Path | None, bootstrap_servers: str | None) -> tuple[Brokers, str]:
    settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
    return Brokers.of(settings), topics.names(settings)["audit"]
