"""`streamguard decide`: a decision about a value of a user, written by a server or straight into the events topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.cli import options
from streamguard.cli.decision_desk import Desk, person
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.decisions.choice import EXPECTED_DAYS, revocation
from streamguard.events.decision import FIELDS, partition_of
from streamguard.events.ending import EndError, end_ms
from streamguard.serving.commands import source_options
from streamguard.serving.commands.server_decisions import ServerDecisions
from streamguard.serving.query.detection import DetectionRequest, Verdict


@click.group(cls=SuggestingGroup)
def command() -> None:
    """Decide about a value of a user: that it is expected, or that it is part of an attack.

    A running `streamguard serve` (--server) writes the decision in the name of an access key, which is read from the
    variable STREAMGUARD_SERVE_KEY or from a file; it has to have the signing key. Without --server the command signs
    the decision itself (models.key_file), and writes it to Kafka in the name of the user of this machine.

    The decision is a signed record in the partition of the user's events. Every worker and every retrain folds it at
    its offset, so that all have the same results.

    \b
    Examples:
      streamguard decide expected 3-48120-18c2f0a1b40 --until 7d --reason "new office"
      streamguard decide attack 3-48120-18c2f0a1b40 --server https://guard.example.com --key-file key
      streamguard decide revoke 3-9f2c1a77d0b14e5f80c3a6d2

    Exit codes: 0 if the decision is written, 1 if it is not confirmed, 65 if the incident or the decision is not valid,
    69 if Kafka or the server is unavailable or refuses this user, 75 if the server is overloaded, 78 if there is no
    key, or if settings and topics contradict each other.
    """


def _about_a_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the options of a decision about a value."""
    for decorate in reversed(
        (
            click.argument("incident", required=False),
            click.option("--user", help="The user, instead of an incident."),
            click.option("--field", type=click.Choice(list(FIELDS)), help="What the value is."),
            click.option("--value", help="The value as incidents show it."),
            click.option(
                "--partition",
                type=click.IntRange(0),
                help="Partition of the user's events.  [default: that of the incident, or Kafka's for the user's name]",
            ),
            *_common,
        )
    ):
        function = decorate(function)
    return function


_common = (
    click.option("--reason", default="", help="Why, for other people."),
    click.option("--yes", is_flag=True, help="Write without asking."),
    source_options.of_server_or_kafka,
)


@command.command()
@_about_a_value
@click.option(
    "--until",
    help="Event time at which the expectation ends, such as 2026-12-31 (00:00 UTC), or how long it lasts, such as 7d.  "
    "[default: 30 days after the incident, or after now]",
)
def expected(
    incident: str | None, user: str | None, field: str | None, value: str | None, partition: int | None,
    until: str | None, reason: str, yes: bool, config: Path | None, bootstrap_servers: str | None, server: str | None,
    key_file: Path | None,
) -> None:  # fmt: skip
    """Accept a value: it adds no more bits than is typical of the user, and becomes a habit through use.

    Give the id of an INCIDENT, or --user, --field and --value. Without --field, the strongest reason of the incident
    that is a value counts. A server decides about incidents only.

    \b
    Examples:
      streamguard decide expected 3-48120-18c2f0a1b40 --until 2026-12-31 --reason "new office"
      streamguard decide expected --user ann --field source --value 203.0.113.9 --yes
    """
    served = _served(config, bootstrap_servers, server, key_file)
    if served is not None:
        id = _of_incident(incident, user, partition)
        wanted = _request("expected", field, value, until or "", reason)
        served.decide(id, wanted, yes)
        return
    desk = Desk(config, bootstrap_servers)
    found = desk.chosen(incident, user, field, value, partition)
    try:
        latest = found.at if incident else 0  # event time may be behind the clock
        now = round(time.time() * 1000)
        end = end_ms(until, latest, now) if until else found.at + EXPECTED_DAYS * 86_400_000
    except EndError as error:
        raise click.BadParameter(str(error), param_hint="--until") from None
    desk.decide(found, "expected", end, reason, yes)


@command.command()
@_about_a_value
def attack(
    incident: str | None, user: str | None, field: str | None, value: str | None, partition: int | None,
    reason: str, yes: bool, config: Path | None, bootstrap_servers: str | None, server: str | None,
    key_file: Path | None,
) -> None:  # fmt: skip
    """Deny a value: its events are alerted as confirmed before, and the profile learns nothing from them.

    Give the id of an INCIDENT, or --user, --field and --value. Without --field, the strongest reason of the incident
    that is a value counts. A server decides about incidents only.

    \b
    Examples:
      streamguard decide attack 3-48120-18c2f0a1b40
      streamguard decide attack --user ann --field source --value 203.0.113.9 --reason "ticket 812"
    """
    served = _served(config, bootstrap_servers, server, key_file)
    if served is not None:
        id = _of_incident(incident, user, partition)
        served.decide(id, _request("attack", field, value, "", reason), yes)
        return
    desk = Desk(config, bootstrap_servers)
    desk.decide(desk.chosen(incident, user, field, value, partition), "attack", 0, reason, yes)


@command.command()
@click.argument("decision")
@click.option("--reason", default="", help="Why, for other people.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@source_options.of_server_or_kafka
def revoke(
    decision: str, reason: str, yes: bool, config: Path | None, bootstrap_servers: str | None, server: str | None,
    key_file: Path | None,
) -> None:  # fmt: skip
    """Remove the DECISION with this id; what was learned meanwhile remains.

    \b
    Examples:
      streamguard decide revoke 3-9f2c1a77d0b14e5f80c3a6d2
      streamguard decide revoke 3-9f2c1a77d0b14e5f80c3a6d2 --server https://guard.example.com --key-file key
    """
    served = _served(config, bootstrap_servers, server, key_file)
    if served is not None:
        served.revoke(decision, reason, yes)
        return
    desk = Desk(config, bootstrap_servers)
    partition = partition_of(decision)
    desk.confirm(f"the decision {decision} ends", yes)
    desk.write(revocation(decision, partition, reason, person()))


def _served(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None
) -> ServerDecisions | None:
    """The server that decides; None: this command does."""
    if server is None:
        if key_file is not None:
            raise click.UsageError("--key-file is the key of a server: give --server, too")
        return None
    if bootstrap_servers is not None:
        raise click.UsageError("--server and --bootstrap-servers select different places: give one of them")
    options.read_settings(config)
    return ServerDecisions(server, source_options.access_key(key_file))


def _of_incident(incident: str | None, user: str | None, partition: int | None) -> str:
    """The incident that a server decides about."""
    if incident is None or user is not None or partition is not None:
        raise click.UsageError(
            "a server decides about an incident: give its id, without --user and --partition; --field and --value "
            "select one of its values"
        )
    return incident


def _request(
    decision: Verdict, field: str | None, value: str | None, until: str, reason: str
) -> DetectionRequest:
    """What a server is asked to decide."""
    given = {"decision": decision, "field": field, "value": value or "", "until": until, "reason": reason}
    try:
        return msgspec.convert(given, DetectionRequest)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"the decision is not valid: {error}") from None
