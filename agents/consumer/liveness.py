"""Whether the main thread runs and brokers answer: what the health of every process of this layer begins with."""

from __future__ import annotations

import time
from collections.abc import Callable

BEAT_SECONDS = 10.0
"""The main thread reports twice a second. Without a report for this long, it hangs, and /readyz answers 503."""
DEAD_SECONDS = 60.0
"""Without a report for this long, it is considered dead: /healthz answers 503, so that a supervisor restarts the
process."""
SILENT_SECONDS = 15.0
"""The process contacts its brokers every few seconds. Without an answer for this long, /readyz answers 503."""
GONE_SECONDS = 30.0
"""Without an answer from a broker for this long, the process ends."""

Problem = dict[str, object]
"""`reason` and `detail` of what /readyz or /healthz reports."""


class Liveness:
    """When the main thread last reported, and when a broker last answered.

    Parameters
    ----------
    clock
        Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = self._answered = clock()

    def beat(self) -> None:
        """Record that the main thread runs."""
        self._beat = self._clock()

    def broker_answered(self) -> None:
        """Record that a broker has answered."""
        self._answered = self._clock()

    @property
    def brokers_gone(self) -> bool:
        """Whether no broker has answered for more than `GONE_SECONDS`."""
        return self._clock() - self._answered > GONE_SECONDS

    def hangs(self, limit: float = BEAT_SECONDS) -> Problem | None:
        """Return reason and detail if the main thread has not reported for more than `limit` seconds, else None."""
        silent = self._clock() - self._beat
        if silent <= limit:
            return None
        return {"reason": "hangs", "detail": f"the main thread has not reported for {silent:.0f} s"}

    def no_broker(self) -> Problem | None:
        """Return reason and detail if no broker has answered for more than `SILENT_SECONDS`, else None."""
        silent = self._clock() - self._answered
        if silent <= SILENT_SECONDS:
            return None
        return {"reason": "no_broker", "detail": f"no broker has answered for {silent:.0f} s"}

    def not_ready(self) -> Problem | None:
        """Return reason and detail if the process makes no progress, else None."""
        return self.hangs() or self.no_broker()
