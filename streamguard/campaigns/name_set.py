"""Bounded sets of names that count all of them: exactly up to a limit, and with an estimate beyond."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from heapq import heappush, heappushpop

from streamguard.alerts.incident import Names

MAX_NAMES = 1000
"""Names that are kept of each set. The estimate of a larger number has a standard error of 3 %."""
_RANGE = 1 << 64


class NameSet:
    """The names with the smallest hashes, which are a sample of all names; from them follows the number of all.

    The result depends on the set of names alone, not on their order. The estimate is that of Bar-Yossef et al. 2002:
    if the k-th smallest of all hashes is the share x of their range, there are (k - 1) / x names.

    Parameters
    ----------
    limit
        Maximum number of names to keep.

    Examples
    --------
    >>> few = NameSet()
    >>> for name in ("eve", "ann", "eve", ""):
    ...     few.add(name)
    >>> few.names()
    Names(count=2, names=('ann', 'eve'))
    """

    def __init__(self, limit: int = MAX_NAMES) -> None:
        self._limit = limit
        self._kept: set[str] = set()
        self._largest: list[tuple[int, str]] = []  # negative hashes, so that the largest hash comes first
        self._overflowed = False

    def add(self, name: str) -> None:
        """Add a name; an empty one stands for none."""
        if not name or name in self._kept:
            return
        item = (-_hash(name), name)
        self._kept.add(name)
        if len(self._largest) < self._limit:
            heappush(self._largest, item)
        else:
            self._overflowed = True
            self._kept.remove(heappushpop(self._largest, item)[1])

    def merge(self, names: Names) -> None:
        """Add the names of another set; that set keeps as many names as this one, or more."""
        for name in names.names:
            self.add(name)
        self._overflowed = self._overflowed or names.count > len(names.names)

    def names(self) -> Names:
        """The names in alphabetical order, and the number of all."""
        count = len(self._kept)
        if self._overflowed and self._largest:
            count = max(count, round((count - 1) * _RANGE / -self._largest[0][0]))
        return Names(count, tuple(sorted(self._kept)))


def union(sets: Iterable[Names]) -> Names:
    """The union of some sets; its number is exact if they all contain all of their names.

    Examples
    --------
    >>> union([Names(1, ("eve",)), Names(2, ("ann", "eve"))])
    Names(count=2, names=('ann', 'eve'))
    """
    parts = list(sets)
    named = {name for part in parts for name in part.names}
    count = len(named)
    if any(part.count > len(part.names) for part in parts):
        sample = NameSet()
        for part in parts:
            sample.merge(part)
        count = max(count, sample.names().count)
    return Names(count, tuple(sorted(named)[:MAX_NAMES]))


def _hash(name: str) -> int:
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
