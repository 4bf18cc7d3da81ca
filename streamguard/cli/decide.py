"""`streamguard decide`: writes a person's decision about a value of a user into the events topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from streamguard.cli import options
from streamguard.cli.decision_desk import Desk, person
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.decisions.choice import EXPECTED_DAYS, revocation
from streamguard.events.decision import FIELDS, partition_of
from streamguard.events.ending import EndError, end_ms


@click.group(cls=SuggestingGroup)
def command() -> None:
    """Decide about a value of a user: that it is expected, or that it is part of an attack.

    The decision is a signed record in the partition of the user's events. Every worker and every retrain folds it at
    its offset, so that all have the same results.

    Exit codes: 0 if the decision is written, 1 if it is not confirmed, 65 if the incident or the decision is not valid,
    69 if Kafka is unavailable, 78 if there is no key, or if settings and topics contradict each other.
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
    options.config,
    options.bootstrap_servers,
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
    until: str | None, reason: str, yes: bool, config: Path | None, bootstrap_servers: str | None,
) -> None:  # fmt: skip
    """Accept a value: it adds no more bits than is typical of the user, and becomes a habit through use.

    Give the id of an INCIDENT, or --user, --field and --value. Without --field, the strongest reason of the incident
    that is a value counts.
    """
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
    reason: str, yes: bool, config: Path | None, bootstrap_servers: str | None,
) -> None:  # fmt: skip
    """Deny a value: its events are alerted as confirmed before, and the profile learns nothing from them.

    Give the id of an INCIDENT, or --user, --field and --value. Without --field, the strongest reason of the incident
    that is a value counts.
    """
    desk = Desk(config, bootstrap_servers)
    desk.decide(desk.chosen(incident, user, field, value, partition), "attack", 0, reason, yes)


@command.command()
@click.argument("decision")
@click.option("--reason", default="", help="Why, for other people.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@options.config
@options.bootstrap_servers
def revoke(decision: str, reason: str, yes: bool, config: Path | None, bootstrap_servers: str | None) -> None:
    """Remove the DECISION with this id; what was learned meanwhile remains."""
    desk = Desk(config, bootstrap_servers)
    partition = partition_of(decision)
    desk.confirm(f"the decision {decision} ends", yes)
    desk.write(revocation(decision, partition, reason, person()))
