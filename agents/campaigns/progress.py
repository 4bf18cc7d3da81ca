"""Whether the campaigns process makes progress: what /readyz reports."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamguard.agents.campaigns.rounds import Rounds
from streamguard.agents.consumer.liveness import Liveness, Problem

STALL_SECONDS = 60.0
"""An update that has waited for this long, and for `STALL_ROUNDS` times the last round, has been forgotten by a round
that hangs: the transaction is not answered, or there is too little CPU."""
STALL_ROUNDS = 8.0
"""A round, the pause after the one before, and as much again."""


class CampaignsProgress(Liveness):
    """Progress of the campaigns process.

    Parameters
    ----------
    rounds
        The rounds.
    clock
        Returns monotonic seconds.
    """

    def __init__(self, rounds: Rounds, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._rounds = rounds
        self._reading: str | None = "the topics are being opened"

    def reading(self, what: str | None) -> None:
        """Record what is read before the first round; None when that round is published."""
        self._reading = what

    def not_ready(self) -> Problem | None:
        if (problem := super().not_ready()) is not None:
            return problem
        if (reading := self._reading) is not None:
            return {"reason": "reading", "detail": reading}
        waiting = self._rounds.waiting_seconds()
        if waiting > max(STALL_SECONDS, STALL_ROUNDS * self._rounds.duration):
            return {
                "reason": "stalled",
                "detail": f"an incident has waited for {waiting:.0f} s to be part of a published round; see the log",
            }
        return None
