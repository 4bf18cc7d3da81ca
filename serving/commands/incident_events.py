"""`streamguard incidents events`: the raw events of an incident, from Kafka, the archive, a server or a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from streamguard.serving.commands import source_options
from streamguard.serving.commands.progress import slow
from streamguard.serving.commands.source import ids_named
from streamguard.serving.commands.terminal import INDENT, fitted, print_json, terminal_width, wrapped
from streamguard.serving.query.events import IncidentEvent
from streamguard.text import counted, printable, shortened

ROWS = 20
"""Events that are printed; JSON has all unless --top says otherwise."""
MAX_CHARACTERS = 4_000
"""Characters of a line of an event that are printed."""
MAX_LINES = 200
"""Lines of an event that are printed; JSON has the whole event."""


@click.command()
@source_options.of_server_or_kafka
@source_options.of_file
@click.option(
    "--top",
    type=click.IntRange(0),
    help=f"Maximum number of events, the latest; 0 prints all.  [default: {ROWS}, all in JSON]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON lines.")
@click.argument("id")
def events(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, file: str | None,
    id: str, top: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the raw events of the incident ID, the latest first.

    There is one event for each publication: an incident is published when it rises or when its alerts double, and the
    alerts in between are only counted. Events that Kafka has deleted come from the archive (serve.archive_dir).

    \b
    Examples:
      streamguard incidents events 3-48120-18c2f0a1b40
      streamguard incidents events 3-48120-18c2f0a1b40 --json | jq .event.command
    """
    with source_options.opened(config, bootstrap_servers, server, key_file, file) as source:
        with ids_named(), slow("the events, which are read one by one"):
            found = source.events(id).events
        limit = (None if as_json else ROWS) if top is None else top or None
        if as_json:
            for event in found[:limit]:
                print_json(event)
            return
        click.echo("\n".join(text(found, limit, terminal_width())))


def text(found: Sequence[IncidentEvent], limit: int | None, width: int) -> list[str]:
    """Events in lines: the place of each, and its JSON or why it cannot be shown.

    Parameters
    ----------
    width
        Columns of the terminal. Only lines of an event, which somebody may want to copy, are longer.
    """
    lines = [line for event in found[:limit] for line in _event(event, width)]
    shown = min(len(found), len(found) if limit is None else limit)
    return [*lines, fitted(f"{shown:,} of {counted(len(found), 'event')}", width)]


def _event(one: IncidentEvent, width: int) -> Iterator[str]:
    yield fitted(f"{one.topic} {one.partition}:{one.offset}  from {one.source}", width)
    if one.missing:
        yield from wrapped(one.missing, width)
        return
    lines = msgspec.json.format(msgspec.json.encode(one.event), indent=2).decode().split("\n")
    for line in lines[:MAX_LINES]:
        yield INDENT + printable(shortened(line, MAX_CHARACTERS))
    if len(lines) > MAX_LINES:
        yield f"{INDENT}... {len(lines) - MAX_LINES:,} more lines: --json shows all"
