"""Reports whether the rows of a file are in the order of time, which the fold needs: the oldest event first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamguard.events.event import Event
from streamguard.text import counted


class RowOrder:
    """Counts how many events are dated before, and how many after the event ahead of them.

    Examples
    --------
    >>> order = RowOrder()
    >>> order.add([Event(3000, "login"), Event(2000, "login"), Event(1000, "login")])
    >>> order.warning("events.csv")[:44]
    '2 of 3 events in events.csv are dated before'
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._events = self._back = self._forward = 0

    def add(self, events: Sequence[Event]) -> None:
        """Add the next events of the file."""
        if not events:
            return
        times = np.fromiter((int(event.timestamp) for event in events), np.int64, len(events))
        steps = np.diff(times, prepend=times[0] if self._last is None else self._last)
        self._events += len(events)
        self._back += int(np.count_nonzero(steps < 0))
        self._forward += int(np.count_nonzero(steps > 0))
        self._last = int(times[-1])

    def warning(self, name: str) -> str | None:
        """What is wrong and the remedy, if most events go back in time; None if they do not."""
        if self._back <= self._forward:
            return None
        return (
            f"{self._back:,} of {counted(self._events, 'event')} in {name} are dated before the event ahead of them: "
            "the newest row seems to be the first one. Habits and incidents are wrong in this order. Sort the rows by "
            "time, the oldest first (`tac` reverses the lines of a file without a line of column names), and run again"
        )
