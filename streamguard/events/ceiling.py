"""The time of an event has a ceiling: the time at which a broker appended its record, plus a tolerance.

In a topic with `message.timestamp.type=LogAppendTime` the append time is in the log. The ceiling is therefore
deterministic, and a sender with a wrong clock, or with bad intentions, cannot date an event into the future.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.events.columns import Columns
from streamguard.events.event import Event

TOLERANCE_MS = 600_000
"""How far the clock of a sender may be ahead of the broker's."""

UNKNOWN = 0
"""Append time of a record whose time was set by its sender, and of a row of a file: its event has no ceiling."""

LOG_APPEND_TIME = 1
"""Kafka's type of a record's timestamp if a broker has set it; another type means that the sender has set it."""


def clamp(events: Sequence[Event], columns: Columns, append_ms: NDArray[np.int64]) -> tuple[list[Event], int]:
    """Lower the event times above their ceilings, in the events and in the columns.

    Parameters
    ----------
    events
        The n events.
    columns
        The same events as arrays; their timestamps are changed.
    append_ms
        int64 (n,): append time of each event's record, epoch milliseconds; 0 where it is unknown.

    Returns
    -------
    events, clamped
        The events with their new times, and the number of those that changed.

    Examples
    --------
    >>> from streamguard.events.columns import columns
    >>> events = [Event(4_000_000_000_000, "login"), Event(1_699_999_999_000, "login")]
    >>> clamp(events, columns(events), np.full(2, 1_700_000_000_000))[0][0].timestamp
    1700000600000
    """
    ceiling = append_ms + TOLERANCE_MS
    above = np.flatnonzero((columns.timestamp > ceiling) & (append_ms != UNKNOWN))
    if not len(above):
        return list(events), 0
    columns.timestamp[above] = ceiling[above]
    bounded = list(events)
    for i in above.tolist():
        bounded[i] = msgspec.structs.replace(bounded[i], timestamp=int(ceiling[i]))
    return bounded, len(above)
