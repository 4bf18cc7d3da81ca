"""`streamguard incidents`: lists, shows and watches incidents; their events and actions are in modules of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec

from streamguard.cli import options
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.errors import TemporaryError, UnavailableError
from streamguard.risk import SEVERITIES
from streamguard.serving.commands import (
    incident_acts,
    incident_table,
    incident_words,
    source_options,
    unknown_names,
)
from streamguard.serving.commands.connection import RefusedError
from streamguard.serving.commands.incident_events import events
from streamguard.serving.commands.source import Questions, ids_named, rows
from streamguard.serving.commands.terminal import fitted, print_json, terminal_width
from streamguard.serving.commands.watching import WATCHED_ROWS, Watch
from streamguard.serving.query.answers import IncidentRow
from streamguard.serving.query.filters import MAX_VALUES, IncidentFilter, Sort, Status
from streamguard.serving.query.views import View, viewed
from streamguard.text import printable

ROWS = 20
"""Rows of the table; JSON has all unless --top says otherwise."""
PAUSE_SECONDS = 1.0
"""Least time between two questions of `watch`, so that it stays below the rate that a server allows."""
RETRY_SECONDS = 2.0
"""Pause before `watch` asks a source again that did not answer."""

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(cls=SuggestingGroup)
def command() -> None:
    """List, show and watch incidents, and act on them.

    The commands read the topics of Kafka to their ends, or ask a running `streamguard serve` (--server), which is
    faster with many incidents. `list`, `show` and `events` also read a file that `streamguard replay --json` has
    written (--file). All of them give the same answers. A server is asked with an access key, which is read from the
    variable STREAMGUARD_SERVE_KEY or from a file. An action is written by the server in the name of the key, or to the
    topic of decisions in the name of the user of this machine.

    \b
    Examples:
      streamguard incidents list --min high
      streamguard incidents show 3-48120-18c2f0a1b40
      streamguard incidents ack 3-48120-18c2f0a1b40 --assign me
      streamguard incidents watch --server https://guard.example.com --key-file key

    Exit codes: 1 if an action is not confirmed, 65 if a file or an id is not valid, or if somebody else has acted
    before, 69 if Kafka or the server is unavailable or refuses this user, 73 if there is no room for a temporary store,
    75 if the server is overloaded, 78 if the settings cannot be used, or if a topic or an access key is missing.
    """


command.add_command(events)
for verb in incident_acts.VERBS:
    command.add_command(verb)


def _filters(function: Command) -> Command:
    """Add the options that filter a list; values of one option are alternatives."""
    for decorate in reversed(
        (
            click.option(
                "--user",
                "users",
                multiple=True,
                metavar="NAME",
                help="Name of the user, or the address of a source; repeat it for alternatives.",
            ),
            click.option(
                "--min",
                "least",
                type=click.Choice(SEVERITIES),
                help="This severity and higher ones.",
            ),
            click.option(
                "--severity",
                "severities",
                multiple=True,
                type=click.Choice(SEVERITIES),
                help="This severity; repeat it for alternatives.",
            ),
            click.option(
                "--pattern",
                "patterns",
                multiple=True,
                help="Name of a pattern, such as brute_force.",
            ),
            click.option(
                "--technique",
                "techniques",
                multiple=True,
                help="ATT&CK technique, such as T1110.001.",
            ),
            click.option("--status", "statuses", multiple=True, type=click.Choice(get_args(Status))),
            click.option("--text", default="", help="Words that the incident contains."),
            click.option(
                "--all",
                "everything",
                is_flag=True,
                help="Every incident, instead of one row for each campaign or lone incident that is raised and open.",
            ),
        )
    ):
        function = decorate(function)
    return function


def _wanted(
    users: tuple[str, ...], least: str | None, severities: tuple[str, ...], patterns: tuple[str, ...],
    techniques: tuple[str, ...], statuses: tuple[str, ...], text: str, everything: bool, **times: int | None,
) -> tuple[IncidentFilter, View]:  # fmt: skip
    """The filter that the options describe, and the view that it is part of."""
    if least and severities:
        raise click.UsageError("--min and --severity both select severities: give one of them")
    several = {"--user": users, "--pattern": patterns, "--technique": techniques}
    for name, values in several.items():
        if len(values) > MAX_VALUES:
            raise click.UsageError(f"{name} is given {len(values)} times: give it at most {MAX_VALUES} times")
    unknown_names.check_patterns(patterns, techniques)
    given = {
        "entity": users,
        "severity": SEVERITIES[SEVERITIES.index(least) :] if least else severities,
        "pattern": patterns,
        "technique": techniques,
        "status": statuses,
        "text": text,
        **times,
    }
    try:
        wanted = msgspec.convert(given, IncidentFilter)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"a filter is not valid: {error}") from None
    view: View = "all" if everything else "raised"
    return viewed(wanted, view), view


@command.command("list")
@source_options.of_server_or_kafka
@source_options.of_file
@_filters
@click.option(
    "--since", type=options.Time(), help="Earliest event time of the latest alert, such as 2026-11-30."
)
@click.option("--until", type=options.Time(), help="Event time before which the latest alert was.")
@click.option(
    "--sort",
    type=click.Choice(get_args(Sort)),
    default="evidence",
    show_default=True,
    help="Order: the strongest or the latest first.",
)
@click.option(
    "--top",
    type=click.IntRange(0),
    help=f"Maximum number of rows; 0 prints all.  [default: {ROWS} in the table, all in JSON]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON lines.")
def list_(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, file: str | None,
    since: int | None, until: int | None, sort: Sort, top: int | None, as_json: bool, **filters: Any,
) -> None:  # fmt: skip
    """List incidents, the strongest first: those that are raised to a person and open.

    A campaign of several incidents has one row, that of its strongest incident; --all lists every incident. The line
    below the table says how many rows match, and how old the answer is. If the list is empty, the command
    also says which users of --user have no incident.

    \b
    Examples:
      streamguard incidents list
      streamguard incidents list --min high --since 2026-11-29 --sort time
      streamguard incidents list --all --user ann --json
      streamguard replay events.jsonl --json | streamguard incidents list --file -
    """
    limit = (None if as_json else ROWS) if top is None else top or None
    wanted, view = _wanted(**filters, since=since, until=until)
    with source_options.opened(config, bootstrap_servers, server, key_file, file) as source:
        found = rows(source.questions, wanted, sort, limit)
        if as_json:
            count = 0
            for count, row in enumerate(found, 1):  # noqa: B007 - the last one counts
                print_json(row)
            if not count:
                unknown_names.name_unknown(source, filters["users"])
            return
        listed = list(found)
        counts = source.questions.facets(wanted)
        width = terminal_width()
        lines = incident_table.table(listed, width) if listed else []
        below = incident_table.summary(len(listed), counts.total, view, counts.as_of, source.name)
        click.echo("\n".join([*lines, fitted(below, width)]))
        if not listed:
            unknown_names.name_unknown(source, filters["users"])


@command.command()
@source_options.of_server_or_kafka
@source_options.of_file
@options.as_json
@click.argument("id")
def show(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, file: str | None,
    id: str, as_json: bool,
) -> None:  # fmt: skip
    """Show the incident ID in words: why, its campaign, its course, and the event of its latest publication.

    \b
    Examples:
      streamguard incidents show 3-48120-18c2f0a1b40
      streamguard incidents show 3-48120-18c2f0a1b40 --json
      streamguard incidents show 3-48120-18c2f0a1b40 --file incidents.jsonl
    """
    with source_options.opened(config, bootstrap_servers, server, key_file, file) as source:
        with ids_named():
            found = source.questions.incident(id)
        if as_json:
            print_json(found)
        else:
            click.echo(incident_words.words(found, terminal_width()))


@command.command()
@source_options.of_server_or_kafka
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON lines.")
def watch(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    **filters: Any,
) -> None:  # fmt: skip
    """Print a line for each incident that is new or has risen, until Ctrl-C.

    Incidents that exist when the command starts are printed when they rise: when their evidence becomes larger, or a
    stranger enters another account. The command looks at the latest 1,000 rows of the list, by event time. While the
    source does not answer, it waits and tries again. It ends with 0 after Ctrl-C.

    \b
    Examples:
      streamguard incidents watch --min high
      streamguard incidents watch --all --json
    """
    wanted, view = _wanted(**filters)
    try:
        with source_options.opened(config, bootstrap_servers, server, key_file, None) as source:
            watched = Watch()
            grouped = view == "raised"
            for first, _ in enumerate(source.changes()):
                asked = time.monotonic()
                found = _latest(source.questions, wanted, patient=first > 0)
                changed = list(watched.compare(reversed(found), grouped))
                if first == 0:
                    click.echo(f"watching {printable(source.name)}; Ctrl-C ends", err=True)
                    continue
                for sign, row in changed:
                    if as_json:
                        print_json(row)
                    else:
                        click.echo(incident_table.change_line(row, sign, terminal_width()))
                time.sleep(max(asked + PAUSE_SECONDS - time.monotonic(), 0.0))
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _latest(questions: Questions, wanted: IncidentFilter, *, patient: bool) -> list[IncidentRow]:
    """The latest rows; a patient caller waits for a source that does not answer now."""
    silent = ""
    while True:
        try:
            return list(rows(questions, wanted, "time", WATCHED_ROWS))
        except (TemporaryError, UnavailableError) as error:
            if not patient or isinstance(error, RefusedError):
                raise
            if str(error) != silent:
                silent = str(error)
                click.echo(f"waiting: {printable(silent)}", err=True)
            time.sleep(RETRY_SECONDS)
