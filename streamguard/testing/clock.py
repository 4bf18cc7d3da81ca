"""A clock that tests control, as a replacement for `time.monotonic`."""

from __future__ import annotations


class ManualClock:
    """A clock that moves only when `advance` is called.

    Examples
    --------
    >>> clock = ManualClock(100.0)
    >>> clock.advance(2.5)
    >>> clock()
    102.5
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`."""
        self._now += seconds
