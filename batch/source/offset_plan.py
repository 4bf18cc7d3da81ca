"""Computes the offset ranges that a run reads: from the end of the earlier run to the current end of the topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from streamguard.batch.source.offset_range import Counts, OffsetRange, PlanError
from streamguard.batch.source.sources import Source
from streamguard.events.hashing import FILES_KEY
from streamguard.text import counted

Limit = int | Mapping[int, int]
"""A record's time in epoch milliseconds, or offsets by partition."""


class Resumable(Protocol):
    """The history or archive that a run continues."""

    @property
    def name(self) -> str:
        """Name in error messages."""

    @property
    def expiry_remedy(self) -> str:
        """Remedy if records expired before a run read them, and how to prevent that."""

    @property
    def loss_remedy(self) -> str:
        """Remedy if the topic lost records or was created again."""

    @property
    def ends(self) -> Mapping[int, int]:
        """First offset that was not read yet, by partition."""

    def file(self, partition: int) -> str | None:
        """File of a partition, for the attribute `earlier` of its offset range."""


def plan(
    source: Source,
    before: Resumable | None,
    *,
    since: Limit | None = None,
    until: Limit | None = None,
    max_records: int | None = None,
) -> list[OffsetRange]:
    """Offset range of every partition: the available records, within the given limits.

    Parameters
    ----------
    since
        First record to read, if there is no earlier run.
    until
        First record to leave out.
    max_records
        Maximum number of records, shared fairly among the partitions; the next run reads the rest.

    Raises
    ------
    PlanError
        If records to read are missing or have expired.
    """
    bounds = source.bounds()
    begin = _resolve(source, since, bounds) if since is not None else {}
    stop = _resolve(source, until, bounds) if until is not None else {}
    ranges = {}
    for partition, (first, end) in bounds.items():
        start = begin.get(partition, first)
        if before is not None and partition in before.ends:
            start = before.ends[partition]
            _check_continues(source, before, partition, first, end)
        ranges[partition] = start, max(start, min(end, stop.get(partition, end)))
    keys = source.hash_keys()
    shares = _shares({p: end - start for p, (start, end) in ranges.items()}, max_records)
    return [
        OffsetRange(p, start, start + shares[p], before.file(p) if before else None, keys.get(p, FILES_KEY))
        for p, (start, _) in ranges.items()
    ]


def _check_continues(source: Source, before: Resumable, partition: int, first: int, end: int) -> None:
    start = before.ends[partition]
    archive = source.kind == "archive"
    where = "the archive" if archive else "the topic"
    ended = f"partition {partition}: {before.name} ended at offset {start}, but {where}"
    if start < first:
        missing = counted(first - start, "record")
        why = f"it lacks {missing}" if archive else f"{missing} expired unread"
        raise PlanError(f"{ended} begins at {first} now: {why}; {before.expiry_remedy}")
    if start > end and archive:
        raise PlanError(f"{ended} ends at {end}: run `streamguard archive` first, or read the topic")
    if start > end:
        raise PlanError(
            f"{ended} ends at {end}: records were lost, or the topic was created again; {before.loss_remedy}"
        )


def _resolve(source: Source, limit: Limit, bounds: Mapping[int, tuple[int, int]]) -> Mapping[int, int]:
    if isinstance(limit, int):
        return source.at_time(limit)
    for partition, offset in limit.items():
        if partition not in bounds:
            raise PlanError(
                f"partition {partition} does not exist; the partitions are {', '.join(map(str, bounds))}"
            )
        first, end = bounds[partition]
        if not first <= offset <= end:
            raise PlanError(
                f"partition {partition}: offset {offset} does not exist; the limits are {first} to {end}"
            )
    return limit


def _shares(sizes: Mapping[int, int], max_records: int | None) -> dict[int, int]:
    """Number of records to read from each partition: all records of small ones, and equal shares of the others.

    Examples
    --------
    >>> _shares({0: 10, 1: 100, 2: 300}, 200)
    {0: 10, 1: 95, 2: 95}
    """
    if max_records is None:
        return dict(sizes)
    shares, left = {}, max_records
    for k, (partition, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[partition] = min(size, left // (len(sizes) - k))
        left -= shares[partition]
    return shares


def check_read(source: Source, counts: Iterable[Counts]) -> None:
    """Read gaps again: transactions leave offsets without a record, and so does an incomplete read.

    Only the first few gaps of each partition are checked: with transactions, a topic has a gap after each of them.

    Raises
    ------
    PlanError
        If planned records were not read.
    """
    for c in counts:
        if c.records + c.missing != c.end - c.start:
            raise PlanError(
                f"partition {c.partition}: {counted(c.records, 'record')} and {counted(c.missing, 'offset')} without a "
                f"record were read, but {counted(c.end - c.start, 'offset')} were planned"
            )
        for start, end in c.gaps:
            if not source.nothing_between(c.partition, start, end):
                raise PlanError(
                    f"partition {c.partition}: offsets {start} to {end - 1} were planned and have records, but were "
                    "not read: run again"
                )
