"""Finds what is usual in each peer group from the stored profiles of a folded history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from streamguard.batch.detection.clusters import PeerGroups
from streamguard.batch.folding.fold_result import FoldResult, Stored, UserTable
from streamguard.events.subject import profile_key
from streamguard.fold.crowd import is_stranger
from streamguard.fold.dimensions import SKETCHES, SLOTS, TEXT_CHARACTERS
from streamguard.fold.profile import PROFILE
from streamguard.models.peer_values import FIELDS, MAX_USERS, SALT_BYTES, PeerValues, hashed, usual
from streamguard.state.codec import unpack
from streamguard.state.dictionary import Dictionary

MIN_WEIGHT = 1.0
"""Least learned weight of a value that a user has: that of one ordinary event. An alerted event is learned with a
fiftieth, so whoever wants a value to count has to bring it so often, and with success, that it becomes ordinary."""

PROFILES = 4096
"""Profiles that are looked at together."""

_SKETCHES = [SKETCHES.index(name) for name in FIELDS]


def peer_values(result: FoldResult, groups: PeerGroups, version: str) -> PeerValues | None:
    """Count how many known users of each group have a value, and keep what is usual; None if nothing is.

    The result depends on the history alone: it is the same for both engines, and for any number of runs. Memory grows
    with the texts of the partitions, which are bounded, and by 10 bytes for each user.

    Parameters
    ----------
    result
        The folded history.
    groups
        Its peer groups; users of small groups have no peers.
    version
        Version of the forest that the peers accompany. It determines the salt, so each model has another one.
    """
    salt = hashlib.blake2b(version.encode(), digest_size=SALT_BYTES).digest()
    counts = [_Counts() for _ in groups.groups]
    users, group = [np.empty(0, np.uint64)], [np.empty(0, np.uint16)]
    for partition in sorted(result.users):
        stored = result.states[partition]
        texts = _Texts(stored, salt)
        for names, of, profiles in _known(_members(result.users[partition], groups), stored):
            users.append(np.array([hashed(name, "user", salt) for name in names], np.uint64))
            group.append(of.astype(np.uint16))
            who, values = texts.values(profiles)
            for k in np.unique(of).tolist():
                counts[k].add(int((of == k).sum()), values[of[who] == k])
    found = [one.usual() for one in counts]
    if not sum(len(values) for values, _ in found):
        return None
    hashes, first = np.unique(np.concatenate(users), return_index=True)
    return PeerValues(
        salt=np.frombuffer(salt, np.uint8),
        users=hashes[:MAX_USERS],
        group=np.concatenate(group)[first[:MAX_USERS]],
        sizes=np.array([one.users for one in counts], np.int32),
        starts=np.cumsum([0, *(len(values) for values, _ in found)], dtype=np.int32),
        values=np.concatenate([values for values, _ in found]),
        counts=np.concatenate([number for _, number in found]),
    )


def _members(users: Iterable[UserTable], groups: PeerGroups) -> Iterator[tuple[bytes, str, int]]:
    """Key of the profile, name and group of each user in a group that is not small, by key; sources are no users."""
    for table in users:
        peers = groups.assign(table.usual)
        for name, group, small in zip(table.user, peers.group.tolist(), peers.small.tolist(), strict=True):
            key = profile_key(name)
            if not small and key.startswith(b"u"):
                yield key, name, group


def _known(
    members: Iterator[tuple[bytes, str, int]], stored: Stored
) -> Iterator[tuple[list[str], NDArray[np.int64], NDArray[np.void]]]:
    """Names, groups and profiles of the members who are known, in parts; both inputs are sorted by key."""
    names: list[str] = []
    groups: list[int] = []
    profiles = np.empty(PROFILES, PROFILE)
    member = next(members, None)
    for key, value in stored:
        while member is not None and member[0] < key:
            member = next(members, None)
        if member is None or member[0] != key:
            continue
        profile = unpack(value, PROFILE, "a profile of the history")[0]
        if is_stranger.py_func(profile["learned"], profile["events"]):
            continue
        profiles[len(names)] = profile
        names.append(member[1])
        groups.append(member[2])
        if len(names) == PROFILES:
            yield names, np.array(groups), profiles
            names, groups = [], []
    if names:
        yield names, np.array(groups), profiles[: len(names)]


class _Texts:
    """Salted hashes of the values in profiles of a partition, by way of their texts: its own hashes have its own key.

    A text of `TEXT_CHARACTERS` may be cut off, so it stands for no value: another text may begin in the same way.
    """

    def __init__(self, stored: Stored, salt: bytes) -> None:
        pages: Mapping[bytes, bytes] = {key: value for key, value in stored if key[:1] == b"w"}
        self._dictionary = Dictionary(lambda keys: [pages.get(key) for key in keys])
        self._salt = salt
        self._known: dict[tuple[int, int], int] = {}

    def values(self, profiles: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The values that users have: the place of the user among the profiles, and the salted hash of the value."""
        users, values = [], []
        for field, sketch in enumerate(_SKETCHES):
            proven = profiles["sketch_proven"][:, sketch, None] >> np.arange(SLOTS, dtype=np.uint32) & 1
            hashes = profiles["sketch_hash"][:, sketch]
            has = (hashes != 0) & (proven == 1) & (profiles["sketch_weight"][:, sketch] >= MIN_WEIGHT)
            who, slot = np.nonzero(has)
            unique, inverse = np.unique(hashes[who, slot], return_inverse=True)
            salted = np.array([self._salted(field, value) for value in unique.tolist()], np.uint64)[inverse]
            users.append(who[salted != 0])
            values.append(salted[salted != 0])
        return np.concatenate(users), np.concatenate(values)

    def _salted(self, field: int, value: int) -> int:
        """The salted hash of a value; 0 without a whole text."""
        if (field, value) not in self._known:
            text = self._dictionary.texts(value)
            whole = text is not None and len(text) < TEXT_CHARACTERS
            self._known[field, value] = hashed(text, FIELDS[field], self._salt) if text and whole else 0
        return self._known[field, value]


class _Counts:
    """How many users of a group have each value."""

    def __init__(self) -> None:
        self.users = 0
        self._values, self._counts = np.empty(0, np.uint64), np.empty(0, np.int32)

    def add(self, users: int, values: NDArray[np.uint64]) -> None:
        """Add users, each of whose values occurs once."""
        self.users += users
        new, counts = np.unique(values, return_counts=True)
        merged, place = np.unique(np.concatenate([self._values, new]), return_inverse=True)
        total = np.bincount(place, np.concatenate([self._counts, counts]), len(merged))
        self._values, self._counts = merged, total.astype(np.int32)

    def usual(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        """The usual values, ascending, and the number of users who have each."""
        kept = usual(self._counts, np.full(len(self._counts), self.users))
        return self._values[kept], self._counts[kept]
