"""A clock that tests move by hand, in the place of `time.monotonic`."""

from __future__ import annotations


class ManualClock:
    """Seconds that pass only when told to.

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
        """Let `seconds` pass."""
        self._now += seconds
