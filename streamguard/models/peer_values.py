"""What is usual among peers: the group of each known user, and the values usual in each group, as salted hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.dimensions import SLOTS, TEXT_CHARACTERS, WITH_TEXT
from streamguard.models import arrays
from streamguard.text import counted

FIELDS = WITH_TEXT
"""Fields whose values are compared with those of peers."""

MIN_USERS = 3
"""Least number of users of a group for whom a value is usual. One account, or an account and a helper, must not make a
value usual for others; three users are many in the fold, too (`streamguard.fold.crowd.MANY_USERS`)."""

MIN_SHARE = 0.05
"""Least share of a group for which a value is usual: what fewer have is a habit of a few, not of the group."""

MAX_VALUES = round(SLOTS / MIN_SHARE) * len(FIELDS)
"""Usual values of a group. A profile holds 16 values of a field, so at most 16 / 0.05 = 320 of them reach the share."""

MAX_USERS = 200_000
"""Users whose group is stored, about 10 bytes each; others have no peers."""

MAX_GROUPS = 1000
"""As many groups as `clusters.groups` allows."""

SALT_BYTES = 16

_KINDS: dict[str, np.dtype[Any]] = {
    "salt": np.dtype("|u1"),
    "users": np.dtype("<u8"),
    "group": np.dtype("<u2"),
    "sizes": np.dtype("<i4"),
    "starts": np.dtype("<i4"),
    "values": np.dtype("<u8"),
    "counts": np.dtype("<i4"),
}


def hashed(text: str, kind: str, salt: bytes) -> int:
    """Hash of a user or of a value: 64 bits of BLAKE2b with a salt; the same text has another hash in each field.

    Parameters
    ----------
    kind
        `user` or one of `FIELDS`.

    Examples
    --------
    >>> hashed("ann", "user", bytes(16)) == hashed("ann", "host", bytes(16))
    False
    """
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(
        hashlib.blake2b(data, digest_size=8, salt=salt, person=kind.encode()).digest(), "little"
    )


@dataclass(frozen=True, slots=True, eq=False)
class PeerValues:
    """Peer groups of users, and what is usual in them.

    Attributes
    ----------
    salt
        uint8 (16,): salt of all hashes.
    users, group
        uint64, uint16 (n,): hashes of users, ascending, and the number of the group of each.
    sizes
        int32 (groups,): number of users of each group, including those without a stored hash; 0 for a small group.
    starts
        int32 (groups + 1,): the usual values of group g are `values[starts[g]:starts[g + 1]]`.
    values, counts
        uint64, int32 (m,): hashes of values, ascending in each group, and the number of its users who have the value.

    Raises
    ------
    ValueError
        If the arrays do not fit each other, are not sorted, or are larger than allowed; the message says which.
    """

    salt: NDArray[np.uint8]
    users: NDArray[np.uint64]
    group: NDArray[np.uint16]
    sizes: NDArray[np.int32]
    starts: NDArray[np.int32]
    values: NDArray[np.uint64]
    counts: NDArray[np.int32]

    def __post_init__(self) -> None:
        groups, users = len(self.sizes), counted(len(self.users), "user")
        if len(self.salt) != SALT_BYTES:
            raise ValueError(f"salt has {len(self.salt)} bytes, expected {SALT_BYTES}")
        if groups > MAX_GROUPS or len(self.users) > MAX_USERS:
            raise ValueError(
                f"{users} in {groups:,} groups: at most {MAX_USERS:,} in {MAX_GROUPS:,} are read"
            )
        if len(self.group) != len(self.users) or (self.group >= groups).any():
            raise ValueError(f"group does not name one of {groups} groups for each of {users}")
        if not _rising(self.users).all():
            raise ValueError("users are not in ascending order")
        if (np.bincount(self.group, minlength=groups) > self.sizes).any():
            raise ValueError("sizes are smaller than the number of users in a group")
        lengths = np.diff(self.starts)
        if (
            len(self.starts) != groups + 1
            or self.starts[0] != 0
            or self.starts[-1] != len(self.values)
            or not ((lengths >= 0) & (lengths <= MAX_VALUES)).all()
        ):
            raise ValueError(
                f"starts do not divide {len(self.values)} values among {groups} groups, at most {MAX_VALUES} each"
            )
        begins = np.zeros(len(self.values) + 1, bool)
        begins[self.starts] = True
        if not (_rising(self.values) | begins[1:-1]).all():
            raise ValueError("values of a group are not in ascending order")
        size = np.repeat(self.sizes, lengths)
        if len(self.counts) != len(self.values) or not usual(self.counts, size).all():
            raise ValueError("counts are not those of usual values")

    def group_of(self, user: str) -> int | None:
        """Number of the group of a user, by the name of the subject; None if it is not known."""
        wanted = np.uint64(hashed(user, "user", self.salt.tobytes()))
        k = int(np.searchsorted(self.users, wanted))
        return int(self.group[k]) if k < len(self.users) and self.users[k] == wanted else None

    def size(self, group: int) -> int:
        """Number of users of a group."""
        return int(self.sizes[group])

    def having(self, group: int, field: str, text: str) -> int:
        """Number of users of a group who have a value; 0 if it is not usual in the group.

        A text that the dictionary cuts off stands for no value.
        """
        if len(text) >= TEXT_CHARACTERS:
            return 0
        wanted = np.uint64(hashed(text, field, self.salt.tobytes()))
        first, end = int(self.starts[group]), int(self.starts[group + 1])
        k = first + int(np.searchsorted(self.values[first:end], wanted))
        return int(self.counts[k]) if k < end and self.values[k] == wanted else 0

    def digest(self) -> bytes:
        """SHA-256 of all arrays."""
        out = hashlib.sha256()
        for part in fields(self):
            array = getattr(self, part.name)
            out.update(f"{part.name}{array.dtype.str}{array.shape}".encode() + array.tobytes())
        return out.digest()

    def pack(self) -> bytes:
        """Return a safetensors file; the same values give the same bytes."""
        return arrays.pack({name: np.asarray(getattr(self, name), kind) for name, kind in _KINDS.items()})


def unpack(data: bytes) -> PeerValues:
    """Read what `PeerValues.pack` has returned.

    Raises
    ------
    ValueError
        If the file is damaged, holds other arrays, or its arrays do not fit each other.
    """
    return PeerValues(**arrays.unpack(data, _KINDS, {}))


def usual(counts: NDArray[Any], size: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a value that so many users of a group of this size have is usual in it.

    Examples
    --------
    >>> usual(np.array([2, 3, 3, 5]), np.array([2, 3, 100, 100])).tolist()
    [False, True, False, True]
    """
    enough: NDArray[np.bool_] = (counts >= MIN_USERS) & (counts >= MIN_SHARE * size) & (counts <= size)
    return enough


def _rising(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    rising: NDArray[np.bool_] = hashes[1:] > hashes[:-1]
    return rising
