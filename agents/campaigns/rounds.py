"""When a round begins: soon after new updates, and so rarely that rounds take a bounded share of one core."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_PER_ROUND = 3.0
"""A pause is at least so many times as long as the round before it: rounds take at most a quarter of one core."""


class Rounds:
    """Counts what waits for a round, and decides when the next round begins.

    Parameters
    ----------
    least_pause
        Least time between two rounds, in seconds.
    clock
        Returns monotonic seconds.

    Examples
    --------
    >>> from streamguard.testing.clock import ManualClock
    >>> clock = ManualClock()
    >>> rounds = Rounds(least_pause=1.0, clock=clock)
    >>> rounds.due()
    False
    >>> rounds.changed(); rounds.due()
    True
    >>> rounds.begin(); clock.advance(4.0); rounds.end()
    4.0
    >>> rounds.changed(); clock.advance(11.0); rounds.due(), rounds.waiting_seconds()
    (False, 11.0)
    >>> clock.advance(1.0); rounds.due()
    True
    """

    def __init__(self, least_pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least_pause = least_pause
        self._clock = clock
        self._next = clock()
        self._begun = 0.0
        self._waits_since: float | None = None
        self._in_round_since: float | None = None
        self.duration = 0.0
        """Duration of the last round, in seconds."""

    def changed(self) -> None:
        """Record that something waits for a round."""
        if self._waits_since is None:
            self._waits_since = self._clock()

    def due(self) -> bool:
        """Whether a round has to begin now."""
        return self._waits_since is not None and self._clock() >= self._next

    def begin(self) -> None:
        """Record that a round begins with everything that waits."""
        self._begun = self._clock()
        self._in_round_since, self._waits_since = self._waits_since, None

    def end(self) -> float:
        """Record that the round is published, and return its duration in seconds."""
        now = self._clock()
        self.duration = now - self._begun
        self._next = now + max(self._least_pause, PAUSE_PER_ROUND * self.duration)
        self._in_round_since = None
        return self.duration

    def waiting_seconds(self) -> float:
        """Time for which the oldest change has waited to be published; 0 if nothing waits. Any thread may call it."""
        since = self._in_round_since if self._in_round_since is not None else self._waits_since
        return 0.0 if since is None else self._clock() - since
