"""Collects the records of a partition of the changelog until the state that they lead to is exact at a source offset.

A checkpoint is one transaction of a worker. Its records have consecutive offsets, and the control record that commits
it takes the next one. Behind `m`, which states the source offset, only deletions of profiles follow that no longer
count. So from a known end of a transaction on, records without a gap up to `m` are a whole checkpoint.

A gap means that compaction has removed records, or that a transaction was aborted. Compaction removes a record when a
later one has its key, so a state that lacks it may mix two checkpoints until the later record was read. It is exact
again at the end of the log: for each key the last record was read, and no transaction is open before that end.
"""

from __future__ import annotations

from streamguard.serving.log.record import LogRecord
from streamguard.state.store import Change

META_KEY = b"m"
"""Key of the record that states the source offset of a checkpoint."""
_OVERHEAD = 200
"""Bytes that an entry of a dictionary with its two byte strings takes in memory besides their contents."""


class CheckpointBuffer:
    """Changes of one partition that are read, but not applied yet.

    Attributes
    ----------
    changes
        The last value of each key; None deletes it.
    size
        Bytes of memory that they take, about.

    Examples
    --------
    >>> buffer = CheckpointBuffer()
    >>> buffer.reach_end(7)
    >>> [buffer.add(LogRecord(0, offset, 0, key, b"1")) for offset, key in [(7, b"uann"), (8, b"m")]]
    [False, True]
    """

    def __init__(self) -> None:
        self.changes: dict[bytes, bytes | None] = {}
        self.size = 0
        self._next = -1
        """Offset of the record that continues the transaction, or begins the first one."""
        self._stated = False
        """Whether the present transaction contains `m`."""
        self._whole = False
        """Whether every record since the last exact state was read."""

    def add(self, record: LogRecord) -> bool:
        """Add a record that has a key, and return whether the state after it is exact."""
        assert record.key is not None
        continues = record.offset == self._next
        follows = self._stated and record.offset == self._next + 1
        self._whole &= continues or follows
        self._stated &= continues
        self._next = record.offset + 1
        self.changes[record.key] = record.value
        self.size += len(record.key) + len(record.value or b"") + _OVERHEAD
        if record.key == META_KEY:
            self._stated = True
        return self._whole and record.key == META_KEY

    def reach_end(self, position: int) -> None:
        """State that the log ends at this position, so that the state after all changes is exact."""
        self._next, self._stated, self._whole = position, False, True

    def take(self) -> list[Change]:
        """Return the changes, and forget them."""
        taken = list(self.changes.items())
        self.changes.clear()
        self.size = 0
        return taken
