"""What the main thread reports of its progress, and whether that makes the worker alive and ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from streamguard.metrics import PARTITION_OWNED, PARTITIONS

BEAT_SECONDS = 10.0
"""The main thread reports twice a second; silent for this long it hangs."""
DEAD_SECONDS = 60.0
"""Silent for this long it will not come back: /healthz asks whoever watches to start the worker again."""
SILENT_SECONDS = 15.0
"""Brokers are asked every few seconds; silent for this long they are missed."""
GONE_SECONDS = 30.0
"""Silent for this long they are gone, and the worker ends."""


class Progress:
    """What the main thread reports and the health thread judges.

    Parameters
    ----------
    stall_seconds
        A partition whose saved offset stands still for this long while records wait is stalled.
    clock
        Monotonic seconds.

    Examples
    --------
    >>> from streamguard.testing.clock import ManualClock
    >>> clock = ManualClock()
    >>> progress = Progress(stall_seconds=30, clock=clock)
    >>> progress.not_ready()
    {'reason': 'no_partition', 'detail': 'the group has assigned no partition to this worker'}
    >>> progress.assigned([0]); progress.ready(0); progress.not_ready() is None
    True
    """

    def __init__(self, stall_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._beat = self._heard = clock()
        self._recovering: set[int] = set()
        self._moved: dict[int, tuple[int | None, float]] = {}

    def assigned(self, partitions: list[int]) -> None:
        """These partitions are ours now, none of them ready yet."""
        with self._lock:
            given_up = (self._recovering | self._moved.keys()) - set(partitions)
            self._recovering = set(partitions)
            self._moved = {}
        for partition in given_up:
            PARTITION_OWNED.remove_by_labels({"partition": str(partition)})
        for partition in partitions:
            PARTITION_OWNED.labels(partition).set(1)
        self._gauge()

    def ready(self, partition: int) -> None:
        """A partition's state is recovered."""
        with self._lock:
            self._recovering.discard(partition)
            self._moved[partition] = (None, self._clock())
        self._gauge()

    def _gauge(self) -> None:
        PARTITIONS.labels("recovering").set(len(self._recovering))
        PARTITIONS.labels("ready").set(len(self._moved))

    def observe(self, partition: int, saved: int | None, *, waiting: bool) -> None:
        """How far a partition's checkpoints are, and whether there is anything to do."""
        with self._lock:
            before = self._moved.get(partition)
            if before is not None and (before[0] != saved or not waiting):
                self._moved[partition] = (saved, self._clock())

    def beat(self) -> None:
        """The main thread runs."""
        self._beat = self._clock()

    def heard(self) -> None:
        """A broker has answered."""
        self._heard = self._clock()

    @property
    def brokers_gone(self) -> bool:
        """Whether no broker has answered for too long."""
        return self._clock() - self._heard > GONE_SECONDS

    def hangs(self, limit: float = BEAT_SECONDS) -> dict[str, object] | None:
        """What is wrong if the main thread was not seen for more than `limit` seconds; None if it was."""
        silent = self._clock() - self._beat
        if silent <= limit:
            return None
        return {"reason": "hangs", "detail": f"the main thread has not been seen for {silent:.0f} s"}

    def not_ready(self) -> dict[str, object] | None:
        """Why the worker makes no progress; None if it does."""
        with self._lock:
            recovering, moved = sorted(self._recovering), dict(self._moved)
        hangs = self.hangs()
        if hangs is not None and moved:
            return hangs
        silent = self._clock() - self._heard
        if silent > SILENT_SECONDS:
            return {"reason": "no_broker", "detail": f"no broker has answered for {silent:.0f} s"}
        if recovering:
            return {"reason": "recovering", "detail": f"reading the state of partitions {recovering}"}
        if not moved:
            return {"reason": "no_partition", "detail": "the group has assigned no partition to this worker"}
        now = self._clock()
        stalled = {p: now - at for p, (_, at) in moved.items() if now - at > self._stall_seconds}
        if stalled:
            return {
                "reason": "stalled",
                "detail": f"records wait, but no checkpoint of partitions {sorted(stalled)} for "
                f"{max(stalled.values()):.0f} s",
            }
        return None
