"""A bounded cache of a partition's profiles: read from the state store on a miss, and saved when they have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from streamguard.events.subject import profile_key, subject_of, subject_of_key
from streamguard.fold import profile as layout
from streamguard.state import migration
from streamguard.state.codec import StateError, pack
from streamguard.text import counted

Read = Callable[[list[bytes]], list[bytes | None]]
"""Reads stored values: keys -> value or None, in the same order."""

_BLANK = layout.blank()


class ProfileCache:
    """A fixed number of profiles; those that were not used for longest are evicted, unless they are unsaved.

    Parameters
    ----------
    partition
        Number of the partition, for errors.
    read
        Reads profiles of the last checkpoint.
    size
        Maximum number of profiles in memory.

    Attributes
    ----------
    profiles
        `PROFILE` (size,): the profiles.
    lookups, disk_hits, created
        Number of profiles that were requested; of these, the number that were read from the state store, and the
        number that were new.
    """

    def __init__(self, partition: int, read: Read, size: int) -> None:
        self.profiles = np.zeros(size, layout.PROFILE)
        self._bytes = self.profiles.view(np.uint8).reshape(size, -1)
        self._named = f"a profile in partition {partition}"
        self._partition = partition
        self._read = read
        self._row: dict[str, int] = {}
        self._subject = [""] * size
        self._free = list(range(size - 1, -1, -1))
        self._dirty = np.zeros(size, np.bool_)
        self._used = np.zeros(size, np.int64)
        self._chunk = 0
        self.lookups = self.disk_hits = self.created = 0

    def __len__(self) -> int:
        return len(self._row)

    def rows(self, subjects: list[str]) -> NDArray[np.int64]:
        """Return the position of each subject's profile, for a chunk that will change them.

        Raises
        ------
        StateError
            If there is no room next to unsaved profiles, or if a stored profile has another layout.
        """
        self._chunk += 1
        self.lookups += len(subjects)
        known = self._row
        try:
            rows = np.array([known[subject] for subject in subjects], np.int64)
        except KeyError:
            self._used[[known[subject] for subject in subjects if subject in known]] = self._chunk
            self._admit(list(dict.fromkeys(subject for subject in subjects if subject not in known)))
            rows = np.array([known[subject] for subject in subjects], np.int64)
        self._used[rows] = self._chunk
        self._dirty[rows] = True
        return rows

    def has(self, subjects: list[str]) -> list[bool]:
        """Whether each subject has a profile, in memory or in the state store."""
        stored = self._read([profile_key(subject) for subject in subjects])
        return [
            subject in self._row or value is not None for subject, value in zip(subjects, stored, strict=True)
        ]

    def _admit(self, subjects: list[str]) -> None:
        if len(self._free) < len(subjects):
            self._evict(len(subjects) - len(self._free))
        values = self._read([profile_key(subject) for subject in subjects])
        new = values.count(None)
        self.created += new
        self.disk_hits += len(subjects) - new
        for subject, value in zip(subjects, values, strict=True):
            row = self._free.pop()
            self.profiles[row] = _BLANK if value is None else migration.profile(value, self._named)
            self._row[subject] = row
            self._subject[row] = subject

    def _evict(self, needed: int) -> None:
        taken = np.zeros(len(self._subject), np.bool_)
        taken[self._free] = True
        candidates = np.flatnonzero(~self._dirty & ~taken & (self._used < self._chunk))
        if len(candidates) < needed:
            raise StateError(
                f"partition {self._partition}: no room for {counted(needed, 'more profile')} next to "
                f"{int(self._dirty.sum())} unsaved ones of {len(self._subject)}: raise `worker.resident_profiles`, or "
                "lower `worker.checkpoint_events`"
            )
        many = min(len(candidates), max(needed, len(self._subject) // 16))
        oldest = candidates[np.argsort(self._used[candidates], kind="stable")[:many]]
        for row in oldest.tolist():
            del self._row[self._subject[row]]
            self._free.append(row)

    @property
    def full(self) -> bool:
        """Whether half of the profiles are unsaved: then a checkpoint is needed, so that the next chunk finds room."""
        return int(np.count_nonzero(self._dirty)) * 2 >= len(self._subject)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Remove the saved profiles with these keys from memory."""
        for key in keys:
            row = self._row.get(subject_of_key(key))
            if row is not None and not self._dirty[row]:
                del self._row[self._subject[row]]
                self._free.append(row)

    def changes(self) -> list[tuple[bytes, bytes]]:
        """Return (key, value) of each unsaved profile."""
        return [
            (profile_key(self._subject[row]), pack(self.profiles[row]))
            for row in np.flatnonzero(self._dirty).tolist()
        ]

    def clean(self) -> None:
        """Mark all profiles as saved."""
        self._dirty[:] = False


def user_key(user: str) -> bytes:
    """Return the key under which a user's profile is stored."""
    return profile_key(subject_of(user, ""))
