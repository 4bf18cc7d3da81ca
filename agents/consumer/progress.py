"""Records the progress of the main thread, and decides whether the worker is alive and ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from streamguard.agents.consumer.liveness import Liveness, Problem
from streamguard.metrics import PARTITION_OWNED, PARTITIONS
from streamguard.text import counted

UNANSWERED_SECONDS = 30.0
"""The leader of a partition answers a fetch at once. Without an answer for this long, /readyz answers 503."""
MAX_NAMED = 8
"""Maximum number of blocked partitions that /readyz names."""
BLOCKED_SECONDS = 30.0
"""The same transaction may be open for this long: then it hangs, and /readyz answers 503."""


class Progress(Liveness):
    """Progress of the worker: the main thread reports it, the health thread evaluates it.

    Parameters
    ----------
    stall_seconds
        A partition is stalled if records wait and its checkpointed offset has not moved for this long.
    clock
        Returns monotonic seconds.

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
        super().__init__(clock)
        self._stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self._restoring: set[int] = set()
        self._moved: dict[int, tuple[int | None, float]] = {}
        self._fetch_answers: dict[int, tuple[int, float]] = {}
        self._transactions: dict[int, tuple[int, int, float]] = {}

    def assigned(self, partitions: list[int]) -> None:
        """Record the partitions that this worker now owns; none of them is ready yet."""
        with self._lock:
            revoked = (self._restoring | self._moved.keys()) - set(partitions)
            self._restoring = set(partitions)
            self._moved, self._fetch_answers, self._transactions = {}, {}, {}
        for partition in revoked:
            PARTITION_OWNED.remove_by_labels({"partition": str(partition)})
        for partition in partitions:
            PARTITION_OWNED.labels(partition).set(1)
        self._gauge()

    def ready(self, partition: int) -> None:
        """Record that the state of a partition is restored."""
        with self._lock:
            self._restoring.discard(partition)
            self._moved[partition] = (None, self._clock())
            self._fetch_answers[partition] = (0, self._clock())
        self._gauge()

    def _gauge(self) -> None:
        PARTITIONS.labels("restoring").set(len(self._restoring))
        PARTITIONS.labels("ready").set(len(self._moved))

    def observe(self, partition: int, checkpointed: int | None, *, waiting: bool) -> None:
        """Record the checkpointed offset of a partition, and whether records wait or folded ones are not saved."""
        with self._lock:
            before = self._moved.get(partition)
            if before is not None and (before[0] != checkpointed or not waiting):
                self._moved[partition] = (checkpointed, self._clock())
            if before is not None and waiting:  # nothing is fetched while fetched records wait to be folded
                self._fetch_answers[partition] = (self._fetch_answers[partition][0], self._clock())

    def answered(self, partition: int, stamp: int) -> None:
        """Record the time stamp of the last answer to a fetch of a partition."""
        with self._lock:
            before = self._fetch_answers.get(partition)
            if before is not None and before[0] != stamp:
                self._fetch_answers[partition] = (stamp, self._clock())

    def blocked(self, partition: int, last_stable_offset: int, high_watermark: int) -> float:
        """Record the end of a partition's log, and return for how many seconds a transaction has blocked it.

        The last stable offset is the first offset of the oldest open transaction. While this transaction is open, no
        later record can be read, committed or not.
        """
        with self._lock:
            if high_watermark <= last_stable_offset:
                self._transactions.pop(partition, None)
                return 0.0
            before = self._transactions.get(partition)
            since = before[2] if before is not None and before[0] == last_stable_offset else self._clock()
            self._transactions[partition] = (last_stable_offset, high_watermark, since)
            return self._clock() - since

    def not_ready(self) -> Problem | None:
        """Return reason and detail if the worker makes no progress, else None."""
        with self._lock:
            restoring, moved = sorted(self._restoring), dict(self._moved)
            answers, transactions = dict(self._fetch_answers), dict(self._transactions)
        hangs = self.hangs()
        if hangs is not None and moved:
            return hangs
        if (silent := self.no_broker()) is not None:
            return silent
        if restoring:
            return {
                "reason": "restoring",
                "detail": f"the worker is restoring the state of {_named(restoring)}",
            }
        if not moved:
            return {"reason": "no_partition", "detail": "the group has assigned no partition to this worker"}
        now = self._clock()
        stalled = {p: now - at for p, (_, at) in moved.items() if now - at > self._stall_seconds}
        if stalled:
            return {
                "reason": "stalled",
                "detail": f"records wait in {_named(sorted(stalled))}, but no checkpoint has been made there for "
                f"{max(stalled.values()):.0f} s; see the worker's log",
            }
        unanswered = {p: now - at for p, (_, at) in answers.items() if now - at > UNANSWERED_SECONDS}
        if unanswered:
            return {
                "reason": "unanswered",
                "detail": f"no fetch of {_named(sorted(unanswered))} has been answered for "
                f"{max(unanswered.values()):.0f} s: check that each partition has a leader, and that this worker may "
                "read the topic",
            }
        blocked = {p: found for p, found in transactions.items() if now - found[2] > BLOCKED_SECONDS}
        if blocked:
            return {"reason": "blocked", "detail": _blocked(blocked, now)}
        return None


def _blocked(transactions: dict[int, tuple[int, int, float]], now: float) -> str:
    """A sentence about partitions that a transaction blocks, with (first offset, end of the log, since) of each."""
    opened = [
        f"partition {p} at offset {offset}" for p, (offset, _, _) in sorted(transactions.items())[:MAX_NAMED]
    ]
    more = f" and {len(transactions) - MAX_NAMED} more" if len(transactions) > MAX_NAMED else ""
    records = sum(end - offset for offset, end, _ in transactions.values())
    longest = now - min(since for _, _, since in transactions.values())
    return (
        f"an open transaction of another program has blocked {', '.join(opened)}{more} for {longest:.0f} s; "
        f"{counted(records, 'offset')} after it cannot be read: let the program end its transaction, or abort it "
        "(see the runbook of StreamGuardBlocked)"
    )


def _named(partitions: list[int]) -> str:
    """Names of partitions in a sentence, such as `partition 3` or `partitions 3, 5`."""
    return f"{'partition' if len(partitions) == 1 else 'partitions'} {', '.join(map(str, partitions))}"
