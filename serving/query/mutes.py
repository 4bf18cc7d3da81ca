"""What a mute would hide: the incidents of the same entity that are like the one that it is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from streamguard.alerts.incident import decode
from streamguard.events.event_time import DAY_MS, epoch_ms
from streamguard.serving.decisions.mute import difference
from streamguard.serving.decisions.update import Update
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.projection.store import Store
from streamguard.serving.query.incidents import MAX_PUBLICATIONS, IncidentQueries
from streamguard.serving.query.reading import Reading
from streamguard.serving.query.requests import scope_of_mute
from streamguard.text import counted

PREVIEW_DAYS = 30
"""Event time before the incident that a preview looks at."""
NAMED = 20
"""Hidden incidents that a preview names, the latest; it counts all."""


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class MutePreview(msgspec.Struct, frozen=True):
    """What a mute of an incident would hide, of the entity's incidents of the last 30 days before it and since."""

    incident: str
    until: Annotated[str, _described("Event time at which the mute ends")]
    hidden: Annotated[int, _described("Incidents of the entity that it hides, this one included")]
    total: Annotated[int, _described("Incidents of the entity in the same days")]
    open: Annotated[int, _described("Hidden ones that are not closed")]
    confirmed: Annotated[int, _described("Hidden ones that were closed as a true positive")]
    incidents: Annotated[tuple[str, ...], _described(f"Ids of the hidden ones, the latest {NAMED}")]
    message: str
    as_of: tuple[AsOf, ...]


class MuteQueries(Reading):
    """Previews of mutes; every method may be called from any thread.

    Parameters
    ----------
    store, as_of
        See `Reading`.
    incidents
        Answers about incidents.
    """

    def __init__(
        self, store: Store, as_of: Callable[[], tuple[AsOf, ...]], incidents: IncidentQueries
    ) -> None:
        super().__init__(store, as_of)
        self._incidents = incidents

    def preview(self, id: str, until: str = "", seen: int | None = None) -> MutePreview:
        """What a mute of an incident would hide.

        Parameters
        ----------
        until
            Event time at which it ends, or a duration; empty: 30 days after the incident.
        seen
            Number of alerts of the last update that its author has seen; None: the latest one.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        ConflictError
            If `until` is not an end after the incident.
        RecordError
            If nothing of the incident can be muted.
        """
        found = self._incidents.incident(id)
        scope = scope_of_mute(found, found.row.alerts if seen is None else seen, until)
        since = (epoch_ms(found.incident.last_seen) or 0) - PREVIEW_DAYS * DAY_MS
        rows = self._rows(
            "SELECT i.id, i.status, i.classification, u.value FROM incidents i JOIN updates u ON u.incident = i.id "
            "WHERE i.entity = ? AND i.entity_kind = ? AND i.last_ms >= ? ORDER BY i.last_ms DESC, i.id LIMIT ?",
            scope.entity,
            scope.entity_kind,
            since,
            MAX_PUBLICATIONS,
        )
        states = {id: (status, classification) for id, status, classification, _ in rows}
        visible = {id for id, _, _, value in rows if difference(Update.of(decode(value)), scope)}
        hidden = [id for id in states if id not in visible]
        opened = sum(states[id][0] != "closed" for id in hidden)
        confirmed = sum(states[id][1] == "true_positive" for id in hidden)
        return MutePreview(
            incident=id,
            until=scope.until,
            hidden=len(hidden),
            total=len(states),
            open=opened,
            confirmed=confirmed,
            incidents=tuple(hidden[:NAMED]),
            message=(
                f"hides {len(hidden):,} of {counted(len(states), 'incident')} in {PREVIEW_DAYS} days, {opened:,} of "
                f"them open, {confirmed or 'none'} of them closed as a true positive"
            ),
            as_of=found.as_of,
        )
