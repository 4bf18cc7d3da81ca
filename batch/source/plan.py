"""Which offsets of which partitions a run reads: from where the earlier run ended, to where the topic ends now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from batch.folding.file import file_of
from batch.folding.kept import KEPT
from batch.folding.staged import Counts
from batch.folding.stretch import PlanError, Stretch
from batch.folding.summaries import SUMMARY
from batch.source.sources import Source
from streamguard.fold import features, profile
from streamguard.settings import Detection, Settings

Limit = int | Mapping[int, int]
"""Epoch milliseconds of a record's time, or offsets by partition."""

_ABOUT = "history.json"


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a folded history is of, stored beside its files."""

    source: dict[str, Any]
    layout: str
    """Changes with profiles, features, and everything else that files hold."""
    detection: Detection
    rows: int
    """Of the sample."""
    starts: dict[int, int]
    """First offset ever folded, by partition."""
    ends: dict[int, int]
    """First offset not folded yet, by partition."""


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
        """What there is of a partition, for a stretch's `earlier`."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A folded history to go on from: its directory, and what it is of."""

    directory: Path
    about: About
    name: str = "the earlier run"
    sooner: str = "retrain more often than the topic's retention, read an archive with --input"
    anew: str = "begin anew with what is there: --fresh"

    @property
    def run(self) -> str:
        """The id of the run that left it."""
        return self.directory.parent.name

    @property
    def ends(self) -> Mapping[int, int]:
        """First offset not folded yet, by partition."""
        return self.about.ends

    def file(self, partition: int) -> str | None:
        """Of a partition; None if the history has none."""
        return str(file_of(self.directory, partition)) if partition in self.about.ends else None


def layout() -> str:
    """Names everything that a folded history's files depend on."""
    return f"{profile.VERSION}.{features.DIGEST[:12]}.{SUMMARY.itemsize}.{KEPT.itemsize}"


def earlier(directory: Path, source: Source, settings: Settings) -> Earlier | str:
    """The folded history in a directory, or why this run cannot go on from it."""
    return _fitting(directory, source.identity(), settings)


def newest(directories: Iterable[Path], source: Source, settings: Settings) -> Earlier | str:
    """The first of some folded histories that this run can go on from, or why not even from the very first."""
    identity, why = source.identity(), "there is no earlier run"
    for k, directory in enumerate(directories):
        found = _fitting(directory, identity, settings)
        if isinstance(found, Earlier):
            return found
        why = why if k else found
    return why


def _fitting(directory: Path, identity: dict[str, Any], settings: Settings) -> Earlier | str:
    try:
        about = msgspec.json.decode((directory / _ABOUT).read_bytes(), type=About)
    except FileNotFoundError:
        return "there is no earlier run"
    except (OSError, msgspec.DecodeError) as error:
        return f"{directory / _ABOUT} cannot be read ({error})"
    if about.source != identity:
        return f"the earlier run is of another source ({_named(about.source)}, now {_named(identity)})"
    for what, theirs, ours in (
        ("was written by another version", about.layout, layout()),
        ("was folded with other settings of [detection]", about.detection, settings.detection),
        ("was sampled with another sampling.rows", about.rows, settings.sampling.rows),
    ):
        if theirs != ours:
            return f"the earlier run {what} ({theirs}, now {ours})"
    return Earlier(directory, about)


def _named(identity: dict[str, Any]) -> str:
    if "topic" not in identity:
        return "files"
    return f"the topic {identity['topic']} with the id {identity.get('topic_id')}"


def of_topic(directory: Path) -> bool:
    """Whether a folded history is a topic's, which a later run can go on from."""
    try:
        return "topic" in msgspec.json.decode((directory / _ABOUT).read_bytes(), type=About).source
    except (OSError, msgspec.DecodeError):
        return False


def write_about(
    directory: Path, source: Source, settings: Settings, stretches: list[Stretch], before: Earlier | None
) -> About:
    """Say beside the files what they are of."""
    starts = {s.partition: s.start for s in stretches}
    about = About(
        source.identity(),
        layout(),
        settings.detection,
        settings.sampling.rows,
        starts | (before.about.starts if before else {}),
        {s.partition: s.end for s in stretches},
    )
    (directory / _ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about)))
    return about


def plan(
    source: Source,
    before: Before | None,
    *,
    since: Limit | None = None,
    until: Limit | None = None,
    most: int | None = None,
) -> list[Stretch]:
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
        Stretch(p, start, start + shares[p], before.file(p) if before else None)
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
