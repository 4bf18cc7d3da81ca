"""What the commands that act on incidents share: their options, one action, several incidents, and what is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from streamguard.errors import DataError
from streamguard.serving.commands import source_options
from streamguard.serving.commands.incident_table import described
from streamguard.serving.commands.source import Desk, Source, ids_named
from streamguard.serving.commands.terminal import fitted, print_json, terminal_width
from streamguard.serving.decisions.record import new_id
from streamguard.serving.query.answers import IncidentRow
from streamguard.serving.query.requests import ActionRequest, ConflictError
from streamguard.text import counted, printable

MAX_IDS = 1000
"""Incidents of one command; the API acts on all incidents of a filter."""

ME = "me"
"""Stands for the name in which the actions of a command are written."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Done(msgspec.Struct, frozen=True):
    """What a command did, as JSON: the id of the action, and the incident after it."""

    action: str
    token: str
    incident: IncidentRow


def acting(function: Command) -> Command:
    """Add the options of a command that acts."""
    json = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON lines.")
    return source_options.of_server_or_kafka(source_options.refused_file(json(function)))


@contextmanager
def desk_of(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None
) -> Iterator[tuple[Source, Desk]]:
    """The source that the options select, and where people act on it."""
    with source_options.opened(config, bootstrap_servers, server, key_file, None) as source:
        assert source.desk is not None  # only a file has none
        yield source, source.desk


def acted(desk: Desk, id: str, wanted: ActionRequest) -> Done:
    """Act on an incident, with a new id of the action.

    Raises
    ------
    ConflictError
        If somebody else has acted before.
    """
    action = new_id()
    answer = desk.act(id, wanted, action)
    return Done(action, answer.token, answer.row)


def each(ids: Sequence[str], act: Callable[[str], Done], as_json: bool, what: str = "") -> None:
    """Act on every incident, and print what was done. One that is refused does not keep the others from being done.

    Parameters
    ----------
    what
        What was done, of an action that the state of an incident does not show.

    Raises
    ------
    DataError
        If an action was refused.
    """
    distinct = tuple(dict.fromkeys(ids))
    if len(distinct) > MAX_IDS:
        raise click.UsageError(f"{counted(len(distinct), 'incident')} are given: give at most {MAX_IDS:,}")
    refused = 0
    for id in distinct:
        try:
            with ids_named():
                done = act(id)
        except DataError as error:
            if len(distinct) == 1:
                raise
            refused += 1
            kind = "conflict" if isinstance(error, ConflictError) else "refused"
            click.echo(f"{kind}: {printable(id[:100])}: {printable(str(error))}", err=True)
            continue
        if as_json:
            print_json(done)
        else:
            row = done.incident
            state = described(msgspec.structs.replace(row, patterns=(), campaign_incidents=1, entered=0))
            text = "; ".join(part for part in (what, state or row.status) if part)
            click.echo(fitted(f"{row.id}  {row.entity.kind} {row.entity.value}: {text}", terminal_width()))
    if refused:
        raise DataError(f"{counted(refused, 'incident')} of {len(distinct):,} not changed, see above")


def bounded(option: str, text: str, limit: int) -> None:
    """Refuse a text of an option that no action can carry.

    Raises
    ------
    UsageError
        If it is too long.
    """
    if len(text) > limit:
        raise click.UsageError(f"{option} has {len(text):,} characters: give at most {limit:,}")
