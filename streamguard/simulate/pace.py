"""Paces simulated events in real time: each event is released when its own timestamp is due."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from streamguard.simulate.labelled import SimulatedEvent

SLICE_SECONDS = 0.001
"""Shortest wait; events that become due within it are released together."""
_ROOM_SECONDS = 0.004


def paced(
    blocks: Iterator[list[SimulatedEvent]],
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    shift_seconds: float = 0.0,
) -> Iterator[list[SimulatedEvent]]:
    """Yield slices of events, each at the time of its events or immediately after.

    The next block is drawn while no event is due, so that drawing does not delay events.

    Parameters
    ----------
    blocks
        Blocks of events from `Simulation.blocks()`.
    now
        Returns the seconds since the epoch.
    sleep
        Waits for a number of seconds.
    shift_seconds
        Wall time minus event time; 0 for live events.
    """
    waiting: deque[SimulatedEvent] = deque()
    more = True
    while True:
        at = now() - shift_seconds
        if more and (not waiting or waiting[0].timestamp / 1000 - at > _ROOM_SECONDS or len(waiting) < 8):
            ahead = waiting[-1].timestamp / 1000 - at if waiting else 0.0
            if ahead < 1.0:
                block = next(blocks, None)
                more = block is not None
                waiting.extend(block or ())
                continue
        due = []
        while waiting and waiting[0].timestamp <= at * 1000:
            due.append(waiting.popleft())
        if due:
            yield due
        elif not waiting and not more:
            return
        else:
            sleep(
                max(SLICE_SECONDS, min(waiting[0].timestamp / 1000 - at, 1.0)) if waiting else SLICE_SECONDS
            )
