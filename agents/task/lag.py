"""How long the oldest record of a partition has been waiting to be folded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Waiting:
    """What a partition's records say of their age, told by those who hand them out, fold them and watch the log.

    Parameters
    ----------
    clock
        Epoch seconds.

    Examples
    --------
    >>> from streamguard.testing.clock import ManualClock
    >>> clock = ManualClock(100.0)
    >>> waiting = Waiting(clock)
    >>> waiting.handed(end=10, oldest_ms=97_000); waiting.handed(end=20, oldest_ms=98_000)
    >>> waiting.seconds(); waiting.folded(10); waiting.seconds(); waiting.folded(20); waiting.seconds()
    3.0
    2.0
    0.0
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._handed: deque[tuple[int, int]] = deque()
        self._unfetched: tuple[int, float] | None = None

    def handed(self, end: int, oldest_ms: int) -> None:
        """A chunk that ends before offset `end` waits to be folded; its first record is of this time."""
        self._handed.append((end, oldest_ms))

    def folded(self, end: int) -> None:
        """All before this offset is folded."""
        while self._handed and self._handed[0][0] <= end:
            self._handed.popleft()

    def noticed(self, position: int, log_end: int) -> None:
        """The log goes on to `log_end`, and is fetched up to `position`: of what lies between no time is known yet."""
        if log_end <= position:
            self._unfetched = None
        elif self._unfetched is None or self._unfetched[0] != position:
            self._unfetched = (position, self._clock())

    def seconds(self) -> float:
        """Age of the oldest record that waits; 0 if none does. May be asked from any thread."""
        try:
            since = self._handed[0][1] / 1000
        except IndexError:
            unfetched = self._unfetched
            if unfetched is None:
                return 0.0
            since = unfetched[1]
        return max(0.0, self._clock() - since)
