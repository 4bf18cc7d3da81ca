"""Reads incidents from a file of JSON lines, as `streamguard replay --json` writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from streamguard.agents.analyses.analyst import History
from streamguard.alerts.published import REFUSALS, published
from streamguard.errors import DataError
from streamguard.files.disk import cannot_read
from streamguard.limits import MAX_INCIDENT_BYTES
from streamguard.text import counted

NAMED = 5
"""Refused lines that are named one by one; all of them are counted."""


def read(file: Path, wanted: str | None = None) -> History:
    """The incidents of a file; lines that are none are named and counted on standard error.

    Parameters
    ----------
    wanted
        Id of an incident that the file must have; None: any.

    Raises
    ------
    DataError
        If the file cannot be read, or has no such incident.
    """
    history, refused = History(), Counter[str]()
    try:
        for number, line in _lines(file):
            found = published(line)
            if isinstance(found, str):
                refused[found] += 1
                if refused.total() <= NAMED:
                    click.echo(
                        f"{file}, line {number:,}: the line is passed over, because {REFUSALS[found]}",
                        err=True,
                    )
            else:
                history.add(found)
    except OSError as error:
        raise cannot_read(file, error) from None
    if refused:
        click.echo(f"{file}: {counted(refused.total(), 'line')} passed over", err=True)
    if not (len(history) if wanted is None else wanted in history):
        which = "no incident" if wanted is None else f"no incident {wanted[:200]!r}"
        raise DataError(f"{file} has {which}: give the output of `streamguard replay --json`")
    return history


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; of a line that is too long the beginning, which is refused for its size."""
    most = MAX_INCIDENT_BYTES + 2
    with file.open("rb") as source:
        number = 0
        while line := source.readline(most):
            number += 1
            rest = line
            while len(rest) == most and not rest.endswith(b"\n"):
                rest = source.readline(most)
            if stripped := line.rstrip(b"\r\n"):
                yield number, stripped
