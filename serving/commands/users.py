"""`streamguard users`: users by risk, one user in human terms, and a timeline; from a server, Kafka or a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec

from streamguard.cli import options
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.events.event_time import epoch_ms
from streamguard.risk import SEVERITIES
from streamguard.serving.commands import source_options, unknown_names, user_table
from streamguard.serving.commands.terminal import print_json, terminal_width
from streamguard.serving.commands.user_words import words
from streamguard.serving.query.filters import MAX_VALUES, EntityKind, IncidentFilter, Status
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.totals import MAX_RANKED
from streamguard.serving.query.users import TimelineEntry

ROWS = 20
"""Rows of a table; JSON has all unless --top says otherwise."""

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(cls=SuggestingGroup)
def command() -> None:
    """List users by risk, show what is usual for one, and how it went.

    The commands ask a running `streamguard serve` (--server), or read the topics of Kafka to their ends: with --server,
    `show` does not have to read the state of all users. `--file` reads incidents that `streamguard replay --json` has
    written, and knows no more of users than these. A server is asked with an access key, which is read from the
    variable STREAMGUARD_SERVE_KEY or from a file.

    \b
    Examples:
      streamguard users list --since 2026-11-29
      streamguard users show ann
      streamguard users timeline ann --server https://guard.example.com --key-file key

    Exit codes: 65 if a file is not valid or a user is not known, 69 if Kafka or the server is unavailable or refuses
    this user, 73 if there is no room for a temporary store, 75 if the server is overloaded, 78 if the settings cannot
    be used, or if a topic or an access key is missing.
    """


def _times(function: Command) -> Command:
    """Add the options that select a time."""
    for decorate in (
        click.option("--until", type=options.Time(), help="Event time before which the latest alert was."),
        click.option(
            "--since",
            type=options.Time(),
            help="Earliest event time of the latest alert, such as 2026-11-30.",
        ),
    ):
        function = decorate(function)
    return function


def _of_source(function: Command) -> Command:
    """Add the options that select a source, and JSON."""
    json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
    return source_options.of_server_or_kafka(source_options.of_file(json(function)))


@command.command("list")
@_of_source
@_times
@click.option(
    "--kind",
    type=click.Choice(get_args(EntityKind)),
    default="user",
    show_default=True,
    help="What is ranked: users, source addresses, or crowds.",
)
@click.option("--user", "users", multiple=True, metavar="NAME", help="This name; repeat it for alternatives.")
@click.option(
    "--min", "least", type=click.Choice(SEVERITIES), help="Incidents of this severity and higher ones."
)
@click.option("--status", "statuses", multiple=True, type=click.Choice(get_args(Status)))
@click.option(
    "--top",
    type=click.IntRange(0, MAX_RANKED),
    help=f"Maximum number of rows; 0 prints {MAX_RANKED}.  [default: {ROWS}, {MAX_RANKED} in JSON]",
)
def list_(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, file: str | None,
    since: int | None, until: int | None, kind: EntityKind, users: tuple[str, ...], least: str | None,
    statuses: tuple[Status, ...], top: int | None, as_json: bool,
) -> None:  # fmt: skip
    """List users by the risk of their incidents, the riskiest first.

    The score is the sum of risk / i^1.5 over the incidents that the options select, the riskiest first: the second
    incident counts a third. JSON has a line for each user.

    \b
    Examples:
      streamguard users list
      streamguard users list --since 2026-11-29 --min high --status new
      streamguard users list --kind source --json
    """
    if len(users) > MAX_VALUES:
        raise click.UsageError(f"--user is given {len(users)} times: give it at most {MAX_VALUES} times")
    given = {
        "since": since,
        "until": until,
        "entity": users,
        "severity": SEVERITIES[SEVERITIES.index(least) :] if least else (),
        "status": statuses,
    }
    try:
        wanted = msgspec.convert(given, IncidentFilter)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"a filter is not valid: {error}") from None
    limit = (MAX_RANKED if as_json else ROWS) if top is None else top or MAX_RANKED
    with source_options.opened(config, bootstrap_servers, server, key_file, file) as source:
        found = source.users.ranked(kind, limit, wanted)
        if not found.users:
            unknown_names.name_unknown(source, users)
        if as_json:
            for row in found.users:
                print_json(row)
            return
        lines = user_table.ranking(found, terminal_width(), source.name, kind)
        click.echo("\n".join(lines))


@command.command()
@_of_source
@click.argument("name")
def show(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, file: str | None,
    name: str, as_json: bool,
) -> None:  # fmt: skip
    """Show the user NAME in words: what is usual, what is unusual now, live beside batch, and the incidents.

    Usual values have their shares; the picture shows the hours of the week (UTC). JSON is one document.

    \b
    Examples:
      streamguard users show ann
      streamguard users show ann --json | jq '.profiles[].usual'
    """
    with source_options.opened(config, bootstrap_servers, server, key_file, file) as source:
        try:
            found = source.users.user(name)
        except NotFoundError as error:
            raise NotFoundError(f"{error}; `streamguard users list` has users with incidents") from None
        if as_json:
            print_json(found)
        else:
            click.echo(words(found, terminal_width()))


@command.command()
@_of_source
@_times
@click.option(
    "--min", "least", type=click.Choice(SEVERITIES), help="Incidents of this severity and higher ones."
)
@click.option(
    "--top",
    type=click.IntRange(0),
    help=f"Maximum number of entries; 0 prints all.  [default: {ROWS}, all in JSON]",
)
@click.argument("name")
def timeline(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, file: str | None,
    since: int | None, until: int | None, least: str | None, top: int | None, name: str, as_json: bool,
) -> None:  # fmt: skip
    """Print what happened with the incidents of the user NAME and what people did, the latest first.

    The timeline has the latest 50 incidents. JSON has a line for each entry.

    \b
    Examples:
      streamguard users timeline ann
      streamguard users timeline ann --since 2026-11-29 --min high --json
    """
    with source_options.opened(config, bootstrap_servers, server, key_file, file) as source:
        answer = source.users.timeline(name)
        found = [one for one in answer.entries if _selected(one, since, until, least)]
        limit = (None if as_json else ROWS) if top is None else top or None
        if as_json:
            for entry in found[:limit]:
                print_json(entry)
            return
        lines = user_table.timeline(found, limit, answer.as_of, terminal_width(), source.name)
        click.echo("\n".join(lines))


def _selected(one: TimelineEntry, since: int | None, until: int | None, least: str | None) -> bool:
    at = epoch_ms(one.at) or 0
    return (
        (since is None or at >= since)
        and (until is None or at < until)
        and (least is None or one.severity in SEVERITIES[SEVERITIES.index(least) :])
    )
