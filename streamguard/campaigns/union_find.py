"""Sets that are joined: the smallest member names each, so the order of joining does not matter."""

from __future__ import annotations


class UnionFind:
    """A partition of 0 ... n-1 into sets (Galler and Fischer 1964).

    Examples
    --------
    >>> sets = UnionFind(4)
    >>> sets.join(3, 1)
    >>> [sets.find(i) for i in range(4)]
    [0, 1, 2, 1]
    """

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, i: int) -> int:
        """The smallest member of the set of i."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one set of the sets of i and j."""
        i, j = sorted((self.find(i), self.find(j)))
        self._parent[j] = i
