"""Questions about archived events: those of a user, each with the incidents that were published for it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamguard.serving.log.freshness import AsOf
from streamguard.serving.projection.entry import event_id
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.archive import ArchivedEvents, ArchivedPlace
from streamguard.serving.results.archived_event import ArchivedEvent

PLACE = r"^[0-9]{1,15}\.[0-9]{1,9}\.[0-9]{1,18}$"
"""Characters of a cursor: event time, partition and offset of the last event of a page."""
_EVER_MS = 253_402_300_800_000
"""Year 10000."""


class ListedEvent(msgspec.Struct, frozen=True):
    """An archived event of a user."""

    event: ArchivedEvent
    incidents: Annotated[
        tuple[str, ...],
        msgspec.Meta(description="Ids of the incidents that were published for it; most alerts only count"),
    ]


class UserEvents(msgspec.Struct, frozen=True):
    """Archived events of a user, the latest first."""

    user: str
    events: tuple[ListedEvent, ...]
    next: Annotated[str | None, msgspec.Meta(description="`cursor` of the next page; null at the end")]
    incomplete: Annotated[
        str, msgspec.Meta(description="What was not looked at, and what to do; empty if nothing was left out")
    ]
    as_of: tuple[AsOf, ...]


class ArchivedQueries:
    """Answers from the archive; every method may be called from any thread.

    Parameters
    ----------
    incidents
        Answers about incidents.
    archive
        The archive of events.
    """

    def __init__(self, incidents: IncidentQueries, archive: ArchivedEvents) -> None:
        self._incidents = incidents
        self._archive = archive

    def of_user(
        self, name: str, since: int | None, until: int | None, limit: int, after: str | None
    ) -> UserEvents | Unavailable:
        """A page of the archived events of a user.

        Parameters
        ----------
        since, until
            Event times, epoch milliseconds; the first is included, the last is not. None: no limit.
        after
            `next` of the page before; None: the first page.
        """
        place = None if after is None else ArchivedPlace(*map(int, after.split(".")))
        found = self._archive.of_user(
            name, since or 0, _EVER_MS if until is None else until, limit, after=place
        )
        if isinstance(found, Unavailable):
            return found
        as_of = self._archive.as_of()
        if isinstance(as_of, Unavailable):
            return as_of
        places = [(one.partition, one.offset, event_id(one.document)) for one in found.events]
        published = self._incidents.published_for(found.topic, places)
        following = None
        if found.more and found.events:
            last = found.events[-1]
            following = f"{last.timestamp_ms or 0}.{last.partition}.{last.offset}"
        return UserEvents(
            name,
            tuple(ListedEvent(one, published.get((one.partition, one.offset), ())) for one in found.events),
            following,
            found.incomplete,
            (as_of,),
        )
