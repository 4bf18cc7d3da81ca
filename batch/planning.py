"""What a retrain is asked for, and what follows: the source, the run it goes on from, and the offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from streamguard.batch.folding.resume import ResumePoint, newest
from streamguard.batch.runs import Runs
from streamguard.batch.source import archive_manifest
from streamguard.batch.source.archive_source import ArchiveSource
from streamguard.batch.source.offset_range import OffsetRange, PlanError
from streamguard.batch.source.partition_files import FileSource, check_files, spool
from streamguard.batch.source.plan import Limit, plan
from streamguard.batch.source.sources import KafkaSource, Source
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Models, Settings

Algorithm = Literal["isolation_forest", "kmeans", "both"]


@dataclass(frozen=True, slots=True)
class Request:
    """What one retrain is asked for, beside the settings.

    Attributes
    ----------
    input
        A file, a directory of files, or an archive instead of Kafka.
    since, until, most
        See `streamguard.batch.source.plan.plan`.
    fresh
        Whether to begin anew instead of going on from the newest run of the source.
    algorithm
        What looks for anomalies; a forest is trained and promoted in any case but `kmeans`.
    """

    input: str | None = None
    since: Limit | None = None
    until: Limit | None = None
    most: int | None = None
    fresh: bool = False
    algorithm: Algorithm = "both"


@dataclass(frozen=True, slots=True)
class RetrainPlan:
    """What a retrain reads.

    Attributes
    ----------
    source
        Where from.
    ranges
        A partition each.
    before
        The history it goes on from, or why it begins anew.
    """

    source: Source
    ranges: list[OffsetRange]
    before: ResumePoint | str

    @property
    def earlier(self) -> ResumePoint | None:
        """The history it goes on from, if there is one."""
        return None if isinstance(self.before, str) else self.before


def registry_settings(settings: Settings) -> Models:
    """Of the registry that is named, or of one beside the runs."""
    named = settings.models
    if named.registry:
        return named
    return msgspec.structs.replace(named, registry=str(Path(settings.batch.output) / "registry"))


def check_input(request: Request) -> None:
    """Look whether there is what the request names, before anything is made for it.

    Raises
    ------
    PlanError
        If there is not, it cannot be opened, or files are asked for by offsets.
    """
    if request.input is not None and archive_manifest.read(Path(request.input)) is None:
        _times(request)
        check_files(request.input)


def planned(settings: Settings, request: Request, runs: Runs, scratch: Path) -> RetrainPlan:
    """Open the source, and say what is read of every partition.

    Parameters
    ----------
    runs
        Among them the one to go on from.
    scratch
        Files are laid out as a topic there.

    Raises
    ------
    PlanError
        If what should be read is not there or cannot be read, or limits leave nothing of it.
    """
    source = _opened(settings, request, scratch)
    before = _going_on_from(runs, source, settings, request)
    earlier = before if isinstance(before, ResumePoint) else None
    return RetrainPlan(source, _stretches(source, earlier, request), before)


def _opened(settings: Settings, request: Request, scratch: Path) -> Source:
    if request.input is None:
        return KafkaSource(Brokers.of(settings), settings.kafka.events_topic)
    archive = archive_manifest.read(Path(request.input))
    if archive is not None:
        return ArchiveSource(str(Path(request.input).resolve()), archive)
    since, until = _times(request)
    return spool(
        request.input,
        scratch / "input",
        partitions=settings.kafka.partitions,
        since_ms=since,
        until_ms=until,
        most=request.most,
    )


def _times(request: Request) -> tuple[int | None, int | None]:
    since, until = request.since, request.until
    if isinstance(since, Mapping) or isinstance(until, Mapping):
        raise PlanError("files have no offsets: give --since and --until as times")
    return since, until


def _going_on_from(runs: Runs, source: Source, settings: Settings, request: Request) -> ResumePoint | str:
    """The history to go on from, or why this run begins anew: the latest run's, or the newest that fits.

    Runs over files, over another topic or with other settings come in between without harm.
    """
    if isinstance(source, FileSource):
        return "files are folded anew"
    if request.fresh:
        return "as asked"
    latest = runs.latest()
    ids = [] if latest is None else [latest.name, *reversed(runs.published())]
    return newest((runs.directory / id / "history" for id in dict.fromkeys(ids)), source, settings)


def _stretches(source: Source, before: ResumePoint | None, request: Request) -> list[OffsetRange]:
    if isinstance(source, FileSource):
        ranges = plan(source, None)
    else:
        ranges = plan(source, before, since=request.since, until=request.until, most=request.most)
    limited = request.since is not None or request.until is not None
    nothing = all(s.start == s.end for s in ranges)
    if isinstance(source, FileSource) and nothing and not limited:
        raise PlanError(f"nothing to read: there are no rows in {request.input}")
    if request.fresh and limited and nothing:
        # The next run would go on from there.
        raise PlanError("nothing to read: no record lies within --since and --until")
    return ranges
