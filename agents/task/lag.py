"""How long the oldest record of a partition waits to be folded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class PartitionLag:
    """What a partition's records say of their age, told by those who hand them out, fold them and watch the log.

    Parameters
    ----------
    clock
        Epoch seconds.

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
        """A chunk that ends before offset `end` waits to be folded; its first record is of this time."""
        self._fetched.append((end, oldest_ms))

    def processed(self, end: int) -> None:
        """All before this offset is folded."""
        while self._fetched and self._fetched[0][0] <= end:
            self._fetched.popleft()

    def observed(self, position: int, log_end: int) -> None:
        """The log goes on to `log_end`, and is fetched up to `position`: of what lies between no time is known yet."""
        if log_end <= position:
            self._behind = None
        elif self._behind is None or self._behind[0] != position:
            self._behind = (position, self._clock())

    def seconds(self) -> float:
        """Age of the oldest record that waits; 0 if none does. May be asked from any thread."""
        try:
            since = self._fetched[0][1] / 1000
        except IndexError:
            unfetched = self._behind
            if unfetched is None:
                return 0.0
            since = unfetched[1]
        return max(0.0, self._clock() - since)
