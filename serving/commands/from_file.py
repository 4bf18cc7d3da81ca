"""Incidents of a file, as `streamguard replay --json` writes them, in a temporary store."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from streamguard.alerts.incident import Incident
from streamguard.alerts.published import REFUSALS, published
from streamguard.campaigns.budget import decide
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.record import decode, encode
from streamguard.errors import DataError
from streamguard.files.disk import cannot_read
from streamguard.limits import MAX_INCIDENT_BYTES
from streamguard.serving.commands.source import Source
from streamguard.serving.commands.temporary_store import temporary
from streamguard.serving.projection.store import Store
from streamguard.serving.projection.update import Update
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.text import counted

MAX_LINE_BYTES = 4 * MAX_INCIDENT_BYTES
"""Longest line that is read into memory; a longer one is refused, and passed over in parts."""
BATCH = 1000
"""Incidents of one transaction of the store."""
NAMED = 5
"""Refused lines that are named one by one; all of them are counted."""
STANDARD_INPUT = "-"


@contextmanager
def opened(file: str, floor: float) -> Iterator[Source]:
    """The incidents of a file, and their campaigns.

    Parameters
    ----------
    file
        Path of JSON lines; `-`: standard input.
    floor
        Setting `detection.floor_bits`.

    Raises
    ------
    DataError
        If the file cannot be read, or none of its lines is an incident.
    CannotWriteError
        If there is no room for the temporary store.
    """
    name = "standard input" if file == STANDARD_INPUT else file
    with temporary(floor) as store:
        _fill(store, file, name, floor)
        yield Source(name, IncidentQueries(store, lambda: ()), lambda: iter(()))


def _fill(store: Store, file: str, name: str, floor: float) -> None:
    refused: Counter[str] = Counter()
    found: list[Incident] = []
    batch: list[Update] = []
    for number, line in _lines(file, name):
        incident = "too_large" if line is None else published(line)
        if isinstance(incident, str):
            if refused.total() < NAMED or incident not in refused:
                click.echo(f"refused line {number:,} of {name}: {REFUSALS[incident]}", err=True)
            refused[incident] += 1
            continue
        found.append(incident)
        batch.append(Update(0, number, incident, line or b""))
        if len(batch) == BATCH:
            store.add_updates(name, batch, {})
            batch = []
    store.add_updates(name, batch, {})
    if refused:
        click.echo(f"{counted(refused.total(), 'line')} refused", err=True)
        if not found:
            raise DataError(
                f"{name} has no incidents: give a file that `streamguard replay --json FILE` has written, or `-` for "
                "standard input"
            )
    made = campaigns(found)
    decisions = decide(made, floor)
    values = {one.id: encode(one, decisions[one.id]) for one in made}
    store.put_campaigns(name, {id: decode(value) for id, value in values.items()}, {}, values)


def _lines(file: str, name: str) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line that is not blank; None for one that is too long."""
    try:
        if file == STANDARD_INPUT:
            yield from _bounded(sys.stdin.buffer)
        else:
            with Path(file).open("rb") as stream:
                yield from _bounded(stream)
    except OSError as error:
        raise cannot_read(name, error) from None


def _bounded(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        long = not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES
        while long and (rest := stream.readline(MAX_LINE_BYTES)):
            if rest.endswith(b"\n"):
                break
        if long:
            yield number, None
        elif line.strip():
            yield number, line.strip()
