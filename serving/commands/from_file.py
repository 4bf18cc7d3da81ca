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
from streamguard.serving.query.answers import IncidentAnswer, RankedUsers
from streamguard.serving.query.events import IncidentEvent, IncidentEvents
from streamguard.serving.query.filters import EntityKind, IncidentFilter
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.users import INCIDENTS_SHOWN, Timeline, UserAnswer, timeline_of
from streamguard.text import counted

MAX_LINE_BYTES = 4 * MAX_INCIDENT_BYTES
"""Longest line that is read into memory; a longer one is refused, and passed over in parts."""
BATCH = 1000
"""Incidents of one transaction of the store."""
NAMED = 5
"""Refused lines that are named one by one; all of them are counted."""
STANDARD_INPUT = "-"
_NO_PROFILES = "a file of incidents does not have it: ask a server (--server), or Kafka without --file"


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
        service = QueryService(store)
        yield Source(
            name,
            service.incidents,
            _Users(service),
            lambda id: _events(service.incidents.incident(id)),
            lambda: iter(()),
            None,
        )


class _Users:
    """Users as their incidents show them; a file of incidents has neither profiles nor batch results."""

    def __init__(self, service: QueryService) -> None:
        self._service = service

    def ranked(self, kind: EntityKind, limit: int, wanted: IncidentFilter) -> RankedUsers:
        """Entities by the risk of their incidents."""
        return self._service.totals.ranked(kind, limit, wanted)

    def user(self, name: str) -> UserAnswer:
        """The latest incidents of a user.

        Raises
        ------
        NotFoundError
            If the file has no incident of the user.
        """
        wanted = IncidentFilter(entity=(name,), kind=("user",))
        found = self._service.incidents.page(wanted, "time", INCIDENTS_SHOWN)
        if not found.incidents:
            raise NotFoundError(
                f"the file has no incident of a user {name[:100]!r}: names are compared letter by letter"
            )
        return UserAnswer(
            user=name,
            profiles=(),
            profiles_missing=_NO_PROFILES,
            batch=None,
            batch_missing=_NO_PROFILES,
            comparisons=(),
            incidents=found.incidents,
            as_of=(),
        )

    def timeline(self, name: str) -> Timeline:
        """What happened with the incidents of a user, the latest first."""
        return timeline_of(self._service.incidents, name)


def _events(found: IncidentAnswer) -> IncidentEvents:
    """The events that the publications of an incident hold, the latest first."""
    places = ((one.incident.origin, one.incident.event) for one in reversed(found.updates))
    return IncidentEvents(
        found.row.id,
        tuple(
            IncidentEvent(origin.topic or "", origin.partition, origin.offset, "file", event, "")
            for origin, event in places
        ),
    )


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
