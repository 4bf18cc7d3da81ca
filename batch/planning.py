"""Turns the request for a retrain into a plan: the source, the run to continue, and the offset ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamguard.batch.folding.resume import ResumePoint, newest
from streamguard.batch.runs import Runs
from streamguard.batch.source.archive_source import ArchiveSource
from streamguard.batch.source.offset_plan import Limit, plan
from streamguard.batch.source.offset_range import OffsetRange, PlanError
from streamguard.batch.source.partition_files import FileSource, check_files, lay_out
from streamguard.batch.source.sources import KafkaSource, Source
from streamguard.runs import archive_manifest
from streamguard.settings.schema import Settings

Algorithm = Literal["isolation_forest", "kmeans", "both"]


@dataclass(frozen=True, slots=True)
class Request:
    """Options of one retrain, in addition to the settings.

    Attributes
    ----------
    input
        A file, a directory of files, or an archive, to be read instead of Kafka.
    since, until, max_records
        See `streamguard.batch.source.offset_plan.plan`.
    fresh
        Whether to start a new history instead of continuing the newest run over the source.
    algorithm
        The detectors to use. All of them except `kmeans` train a forest and promote it.
    """

    input: str | None = None
    since: Limit | None = None
    until: Limit | None = None
    max_records: int | None = None
    fresh: bool = False
    algorithm: Algorithm = "both"


@dataclass(frozen=True, slots=True)
class RetrainPlan:
    """The records that a retrain reads.

    Attributes
    ----------
    source
        Source of the records.
    ranges
        One offset range for each partition.
    before
        The history that the run continues, or the reason for starting a new one.
    """

    source: Source
    ranges: list[OffsetRange]
    before: ResumePoint | str

    @property
    def earlier(self) -> ResumePoint | None:
        """The history that the run continues, if there is one."""
        return None if isinstance(self.before, str) else self.before


def check_input(request: Request) -> None:
    """Check that the requested input exists, before anything is written.

    Raises
    ------
    PlanError
        If the input is missing or cannot be opened, or if limits for files are given as offsets.
    ArchiveError
        If the input is an archive with a damaged manifest.
    """
    if request.input is not None and archive_manifest.read(Path(request.input)) is None:
        _times(request)
        check_files(request.input)


def make_plan(settings: Settings, request: Request, runs: Runs, scratch: Path) -> RetrainPlan:
    """Open the source, and compute the offset range of every partition.

    Parameters
    ----------
    runs
        The published runs, one of which may be continued.
    scratch
        Directory in which input files are laid out like a topic.

    Raises
    ------
    PlanError
        If records to read are missing or unreadable, or if the limits leave no record.
    """
    source = _open_source(settings, request, scratch)
    before = _resume_point(runs, source, settings, request)
    earlier = before if isinstance(before, ResumePoint) else None
    return RetrainPlan(source, _offset_ranges(source, earlier, request), before)


def _open_source(settings: Settings, request: Request, scratch: Path) -> Source:
    if request.input is None:
        return KafkaSource.of(settings)
    archive = archive_manifest.read(Path(request.input))
    if archive is not None:
        return ArchiveSource(str(Path(request.input).resolve()), archive)
    since, until = _times(request)
    return lay_out(
        request.input,
        scratch / "input",
        partitions=settings.kafka.partitions,
        since_ms=since,
        until_ms=until,
        max_records=request.max_records,
    )


def _times(request: Request) -> tuple[int | None, int | None]:
    since, until = request.since, request.until
    if isinstance(since, Mapping) or isinstance(until, Mapping):
        raise PlanError("files have no offsets: give --since and --until as times")
    return since, until


def _resume_point(runs: Runs, source: Source, settings: Settings, request: Request) -> ResumePoint | str:
    """The history to continue, or the reason for starting a new one.

    The latest run is continued, or else the newest run that fits. Runs over files, over another topic or with
    other settings may lie in between.
    """
    if isinstance(source, FileSource):
        return "files are always folded from the beginning"
    if request.fresh:
        return "requested by --fresh or --since"
    latest = runs.latest()
    ids = [] if latest is None else [latest.name, *reversed(runs.published())]
    return newest((runs.directory / id / "history" for id in dict.fromkeys(ids)), source, settings)


def _offset_ranges(source: Source, before: ResumePoint | None, request: Request) -> list[OffsetRange]:
    if isinstance(source, FileSource):
        ranges = plan(source, None)
    else:
        ranges = plan(
            source, before, since=request.since, until=request.until, max_records=request.max_records
        )
    limited = request.since is not None or request.until is not None
    nothing = all(s.start == s.end for s in ranges)
    if isinstance(source, FileSource) and nothing and not limited:
        raise PlanError(f"nothing to read: {request.input} has no rows")
    if request.fresh and limited and nothing:
        # The next run would continue this empty history.
        raise PlanError("nothing to read: no record lies between --since and --until")
    return ranges
