"""Time for which the oldest record of a partition has been waiting to be folded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class PartitionLag:
    """Age of the oldest waiting record, computed from the chunks fetched, the chunks folded and the end of the log.

    Parameters
    ----------
    clock
        Returns seconds since the Unix epoch.

    Examples
    --------
    >>> from streamguard.testing.clock import ManualClock
    >>> clock = ManualClock(100.0)
    >>> lag = PartitionLag(clock)
    >>> lag.fetched(end=10, oldest_ms=97_000); lag.fetched(end=20, oldest_ms=98_000)
    >>> lag.seconds(); lag.processed(10); lag.seconds(); lag.processed(20); lag.seconds()
    3.0
    2.0
    0.0
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._fetched: deque[tuple[int, int]] = deque()
        self._behind: tuple[int, float] | None = None

    def fetched(self, end: int, oldest_ms: int) -> None:
        """Record a chunk that waits to be folded: it ends before offset `end`, its first record has this timestamp."""
        self._fetched.append((end, oldest_ms))

    def processed(self, end: int) -> None:
        """Record that everything before offset `end` is folded."""
        while self._fetched and self._fetched[0][0] <= end:
            self._fetched.popleft()

    def observed(self, position: int, log_end: int) -> None:
        """Record that the log is fetched up to `position` and ends at `log_end`, its high watermark.

        The timestamps of the records between them are not known yet, so their age counts from the first observation
        at this position.
        """
        if log_end <= position:
            self._behind = None
        elif self._behind is None or self._behind[0] != position:
            self._behind = (position, self._clock())

    def seconds(self) -> float:
        """Age of the oldest waiting record, or 0 if none waits. May be called from any thread."""
        try:
            since = self._fetched[0][1] / 1000
        except IndexError:
            unfetched = self._behind
            if unfetched is None:
                return 0.0
            since = unfetched[1]
        return max(0.0, self._clock() - since)
