"""Which offsets of which partitions a run reads: from where the earlier run ended, to where the topic ends now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from streamguard.batch.source.offset_range import Counts, OffsetRange, PlanError
from streamguard.batch.source.sources import Source

Limit = int | Mapping[int, int]
"""Epoch milliseconds of a record's time, or offsets by partition."""


class Before(Protocol):
    """What a run goes on from."""

    @property
    def name(self) -> str:
        """For sentences."""

    @property
    def sooner(self) -> str:
        """How not to come too late for expiring records."""

    @property
    def anew(self) -> str:
        """How to begin without it."""

    @property
    def ends(self) -> Mapping[int, int]:
        """First offset not read yet, by partition."""

    def file(self, partition: int) -> str | None:
        """What there is of a partition, for a offset_range's `earlier`."""


def plan(
    source: Source,
    before: Before | None,
    *,
    since: Limit | None = None,
    until: Limit | None = None,
    most: int | None = None,
) -> list[OffsetRange]:
    """Numbers for every partition: what is there now, cut to what was asked for.

    Parameters
    ----------
    since
        Where to begin, without an earlier run.
    until
        What to leave out: records from this time or offset on.
    most
        Records at the most, shared fairly among the partitions; the rest is the next run's.

    Raises
    ------
    PlanError
        If what should be read is not there (any more).
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
    shares = _shares({p: end - start for p, (start, end) in ranges.items()}, most)
    return [
        OffsetRange(p, start, start + shares[p], before.file(p) if before else None)
        for p, (start, _) in ranges.items()
    ]


def _check_continues(source: Source, before: Before, partition: int, first: int, end: int) -> None:
    start = before.ends[partition]
    archive = source.kind == "archive"
    where = "the archive" if archive else "the topic"
    ended = f"partition {partition}: {before.name} ended at offset {start}, but {where}"
    if start < first:
        why = "are not in it" if archive else "expired unread"
        raise PlanError(
            f"{ended} begins at {first} now: {first - start:,} records {why}; {before.sooner}, or {before.anew}"
        )
    if start > end and archive:
        raise PlanError(f"{ended} ends at {end}: run `streamguard archive` first, or read the topic")
    if start > end:
        raise PlanError(
            f"{ended} ends at {end}: records were lost, or the topic was made again; {before.anew}"
        )


def _resolve(source: Source, limit: Limit, bounds: Mapping[int, tuple[int, int]]) -> Mapping[int, int]:
    if isinstance(limit, int):
        return source.at_time(limit)
    for partition, offset in limit.items():
        if partition not in bounds:
            raise PlanError(f"partition {partition}: not there; there are {', '.join(map(str, bounds))}")
        first, end = bounds[partition]
        if not first <= offset <= end:
            raise PlanError(f"partition {partition}: offset {offset} is not there; it has {first} to {end}")
    return limit


def _shares(sizes: Mapping[int, int], most: int | None) -> dict[int, int]:
    """How many records of each partition are read: small partitions whole, the others alike.

    Examples
    --------
    >>> _shares({0: 10, 1: 100, 2: 300}, 200)
    {0: 10, 1: 95, 2: 95}
    """
    if most is None:
        return dict(sizes)
    shares, left = {}, most
    for k, (partition, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[partition] = min(size, left // (len(sizes) - k))
        left -= shares[partition]
    return shares


def check_read(source: Source, counts: Iterable[Counts]) -> None:
    """Look again for what was not read: transactions leave offsets without a record, a broken read does too.

    Only the first few gaps of each partition are looked at: a topic of transactions has one after each.

    Raises
    ------
    PlanError
        If something planned was not read.
    """
    for c in counts:
        if c.records + c.missing != c.end - c.start:
            raise PlanError(
                f"partition {c.partition}: {c.records} records and {c.missing} offsets without one, but "
                f"{c.end - c.start} offsets were planned"
            )
        for start, end in c.gaps:
            if not source.nothing_between(c.partition, start, end):
                raise PlanError(
                    f"partition {c.partition}: offsets {start} to {end - 1} were planned and are there, but were "
                    "not read"
                )
