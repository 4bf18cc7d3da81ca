"""Deletes profiles that have aged out from the changelog and the local copy, a few keys with each checkpoint.

Whether a profile has aged out follows from the log alone, and the fold ignores one that has
(`streamguard.state.expiry`). So the moment of the deletion changes no result, and the place that the sweep has reached
need not be durable: a worker that starts again begins a new lap. The deletions are part of the checkpoint's
transaction, like every other change.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from streamguard.metrics import EXPIRED_PROFILES
from streamguard.state.codec import StateError
from streamguard.state.expiry import last_active
from streamguard.state.partition import PartitionState
from streamguard.state.store import StateStore

KEYS = 250
"""Number of stored profiles that a checkpoint looks at: they take some milliseconds, and with a checkpoint in each
second a lap over a million profiles takes little more than an hour."""

LAP_MS = 86_400_000
"""Active time, ms, between the beginnings of two laps: a profile leaves at most a day and a lap late."""


class Sweep:
    """Walks the profiles of one partition in the order of their keys, lap after lap.

    The next lap waits until the profile with the oldest last event has aged out. So in its first `forget_after_days`, a
    partition is walked once for each start of its worker.

    Parameters
    ----------
    store
        The local copy, as of the last checkpoint.
    state
        The state; knows which profiles have aged out.
    """

    def __init__(self, store: StateStore, state: PartitionState) -> None:
        self._store = store
        self._state = state
        self._cursor = b""
        self._due = 0
        """`expired_before` that has to be exceeded for the next lap; 0 while a lap goes on."""
        self._began = self._oldest = 0

    def step(self, changed: Collection[bytes]) -> list[bytes]:
        """Look at the next profiles, and return the keys of those that this checkpoint deletes.

        Parameters
        ----------
        changed
            Keys that the checkpoint writes: their users have had events since the stored values.
        """
        limit = self._state.expired_before
        if limit <= self._due:
            return []
        if not self._cursor:
            self._began, self._oldest, self._due = limit, self._state.active_ms, 0
        deleted, seen = [], 0
        for key, value in islice(self._store.profiles(self._cursor), KEYS):
            self._cursor = key + b"\0"
            seen += 1
            try:
                last = last_active(value)
            except StateError:  # it stays, and the user's next event reports what is wrong with it
                continue
            if last < limit and key not in changed:
                deleted.append(key)
            else:
                self._oldest = min(self._oldest, last)
        if seen < KEYS:
            self._cursor, self._due = b"", max(self._oldest, self._began + LAP_MS)
        self._state.drop(deleted)
        EXPIRED_PROFILES.inc(len(deleted))
        return deleted
