"""An offset range of one partition, its records in chunks, and the check that they were read as planned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.errors import DataError
from streamguard.events.event import Value, Withheld
from streamguard.events.hashing import FILES_KEY
from streamguard.events.refusals import Refusals
from streamguard.history.understood import Understood

CHUNK = 4096
NAMED = 5
"""Maximum number of refused records, and of gaps, that are listed individually."""


class RecordChunk(NamedTuple):
    """Consecutive records of one partition.

    Attributes
    ----------
    offsets
        int64 (n,).
    values
        n values; a `Withheld` value stands for several offsets, of which `offsets` has the last.
    append_ms
        int64 (n,): when a broker appended each record, epoch milliseconds; 0 where it is unknown. None if it is unknown
        for all of them.
    """

    offsets: NDArray[np.int64]
    values: list[Value]
    append_ms: NDArray[np.int64] | None = None

    def firsts(self) -> NDArray[np.int64]:
        """int64 (n,): the first offset that each value stands for; that of a record, if it is one."""
        withheld = [k for k, value in enumerate(self.values) if isinstance(value, Withheld)]
        if not withheld:
            return self.offsets
        firsts = self.offsets.copy()
        firsts[withheld] = [self.values[k].first for k in withheld]  # type: ignore[union-attr]
        return firsts

    def cut(self, start: int, end: int) -> RecordChunk:
        """The records at these positions, end exclusive."""
        times = None if self.append_ms is None else self.append_ms[start:end]
        return RecordChunk(self.offsets[start:end], self.values[start:end], times)


Records = Iterable[RecordChunk]
"""Chunks of any size, in offset order."""


class PlanError(DataError):
    """The planned records are unavailable, or others were read; the message states partition and offset where known."""


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets that one task folds.

    Attributes
    ----------
    partition
        Number of the partition.
    start, end
        First offset, and first offset after the range.
    earlier
        File of an earlier run that ended at `start`; None for a new history.
    hash_key
        Key of the hashes of a new history, as in the worker's changelog.
    """

    partition: int
    start: int
    end: int
    earlier: str | None = None
    hash_key: bytes = FILES_KEY


class Counts(msgspec.Struct, forbid_unknown_fields=True):
    """Counts of the records read from one partition in this run."""

    partition: int
    start: int
    """First planned offset."""
    end: int
    """First offset after the plan."""
    records: int = 0
    """Records, and the offsets of batches that cannot be read."""
    events: int = 0
    alerted: int = 0
    opened: int = 0
    """Incidents whose first alert is among the events."""
    refusals: dict[str, Refusals] = {}
    """Records that are not events, by reason, with the users and sources that they name."""
    refused_first: list[tuple[int, str, str]] = []
    """The first few refused records: offset, reason, detail; of a batch that cannot be read, its first offset."""
    repaired: int = 0
    """Events that were repaired before they were scored."""
    repairs: dict[str, int] = {}
    """Number of events by field and repair."""
    understood: Understood = msgspec.field(default_factory=Understood)
    """How the values of the events were understood."""
    gaps: list[tuple[int, int]] = []
    """The first few ranges of offsets without a record, end exclusive."""
    missing: int = 0
    """Offsets without a record: transaction markers and aborted records, or planned records that were not read."""
    first_ms: int | None = None
    last_ms: int | None = None
    users: int = 0
    """Users of the partition, including those of earlier runs."""
    events_ever: int = 0
    """Events of the partition, including those of earlier runs."""
    clamped: int = 0
    """Events that were dated later than their records were appended, and got the time of their ceiling."""

    @property
    def refused(self) -> int:
        """Number of records that are not events."""
        return sum(entry.number for entry in self.refusals.values())


def partition_file(directory: str | Path, partition: int) -> Path:
    """Path of a partition's file, folded or laid out by `streamguard.batch.source.partition_files`."""
    return Path(directory) / f"partition-{partition:04d}.parquet"


def checked(offset_range: OffsetRange, records: Records, counts: Counts) -> Iterator[RecordChunk]:
    """Records in chunks of a bounded size; counts the records, and the offsets without a record.

    Raises
    ------
    PlanError
        If a record is outside the offset range, or its offset does not follow that of the previous record.
    """
    at = offset_range.start
    for chunk in _chunks(records):
        firsts = chunk.firsts()
        _check(offset_range, at, firsts, chunk.offsets)
        _count_gaps(counts, at, firsts, chunk.offsets)
        at = int(chunk.offsets[-1]) + 1
        counts.records += len(firsts) + int((chunk.offsets - firsts).sum())
        yield chunk
    end = np.array([offset_range.end])
    _count_gaps(counts, at, end, end)


def _chunks(records: Records) -> Iterator[RecordChunk]:
    for read in records:
        for a in range(0, len(read.values), CHUNK):
            yield read.cut(a, a + CHUNK)


def _check(offset_range: OffsetRange, at: int, firsts: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
    before = np.concatenate([[at - 1], offsets[:-1]])
    wrong = np.flatnonzero((firsts <= before) | (offsets >= offset_range.end))
    if len(wrong):
        k = wrong[0]
        raise PlanError(
            f"partition {offset_range.partition}: offset {offsets[k]} came after {before[k]}, but the plan is to read "
            f"the offsets from {offset_range.start} to {offset_range.end - 1} in order, each once"
        )


def _count_gaps(counts: Counts, at: int, firsts: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
    before = np.concatenate([[at], offsets[:-1] + 1])
    for k in np.flatnonzero(firsts > before).tolist():
        counts.missing += int(firsts[k] - before[k])
        if len(counts.gaps) < NAMED:
            counts.gaps.append((int(before[k]), int(firsts[k])))
