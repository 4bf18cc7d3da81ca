"""Which updates of incidents count: those of the last weeks, in bounded memory, whatever the order of their arrival."""

from __future__ import annotations

from operator import attrgetter

import msgspec

from streamguard.campaigns.sighting import DAY

RETIRED_MS = 30 * DAY
"""A campaign whose last alert is older than this, compared with the latest update, leaves the campaigns topic."""
HORIZON_MS = 37 * DAY
"""Updates older than this are dropped. A campaign that lasts less than a week leaves the topic, by `RETIRED_MS`, before
its first incident is dropped, so it never loses its beginning and its id."""
MAX_BYTES = 128 << 20
"""Memory for updates as they are stored. Computing campaigns needs about five times as much for a moment."""
UPDATE_COST = 400
"""Memory of an update besides its JSON, in bytes."""
_place = attrgetter("at", "partition", "offset")
_NOWHERE = (-1, -1, -1)
_SLACK = 1.25
"""The memory may be exceeded by so much before the oldest updates are dropped, so that few sorts are needed."""


class Update(msgspec.Struct, frozen=True, gc=False):
    """One record of the alerts topic.

    Attributes
    ----------
    at
        Time of the incident's latest alert, milliseconds; at most a tolerance later than the record's own time.
    partition, offset
        Where the record is.
    value
        The incident as JSON.
    """

    at: int
    partition: int
    offset: int
    value: bytes

    @property
    def cost(self) -> int:
        """Approximate memory, in bytes."""
        return len(self.value) + UPDATE_COST


class Window:
    """The updates that count, a pure function of the set of updates that were added.

    Sorted by time, then by place, the newest come first. Of these the window keeps those within the horizon of the
    newest, up to the first one that does not fit into the memory. In any larger set that one and all older ones do not
    fit either, so it marks a floor, and dropping early gives the same window.

    Parameters
    ----------
    horizon_ms, max_bytes
        As `HORIZON_MS` and `MAX_BYTES`.

    Examples
    --------
    >>> window = Window(horizon_ms=10, max_bytes=10_000)
    >>> for at in (100, 89, 95, 111):
    ...     window.add(Update(at, 0, at, b"{}"))
    >>> [update.at for update in window.updates()]
    [111]
    """

    def __init__(self, horizon_ms: int = HORIZON_MS, max_bytes: int = MAX_BYTES) -> None:
        self._horizon_ms = horizon_ms
        self._max_bytes = max_bytes
        self._updates: list[Update] = []
        self._bytes = 0
        self._latest = 0
        self._floor = _NOWHERE
        """Time and place of the newest update that did not fit."""

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, update: Update) -> None:
        """Add a record; it is dropped at once if it is beyond the horizon, or older than what did not fit."""
        self._latest = max(self._latest, update.at)
        if update.at < self._latest - self._horizon_ms or _place(update) <= self._floor:
            return
        self._updates.append(update)
        self._bytes += update.cost
        if self._bytes > _SLACK * self._max_bytes:
            self._trim()

    def clear(self) -> None:
        """Drop everything, before the topic is read again."""
        self._updates, self._bytes, self._latest, self._floor = [], 0, 0, _NOWHERE

    def updates(self) -> tuple[Update, ...]:
        """The updates that count, the newest first."""
        self._trim()
        return tuple(self._updates)

    def _trim(self) -> None:
        kept: list[Update] = []
        self._bytes = 0
        for update in sorted(self._updates, key=_place, reverse=True):
            if update.at < self._latest - self._horizon_ms:
                break
            if self._bytes + update.cost > self._max_bytes:
                self._floor = _place(update)
                break
            kept.append(update)
            self._bytes += update.cost
        self._updates = kept
