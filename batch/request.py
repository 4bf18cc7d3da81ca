"""What a retrain is asked for, and what follows: the source, the run it goes on from, and the offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from batch import manifest
from batch.plan import Earlier, Limit, newest, plan
from batch.runs import Runs
from batch.sources import ArchiveSource, FileSource, KafkaSource, Source
from batch.spool import spool
from batch.stretch import PlanError, Stretch
from streamguard.brokers import Brokers
from streamguard.settings import Models, Settings

Algorithm = Literal["isolation_forest", "kmeans", "both"]


@dataclass(frozen=True, slots=True)
class Request:
    """What one retrain is asked for, beside the settings.

    Attributes
    ----------
    input
        A file, a directory of files, or an archive instead of Kafka.
    since, until, most
        See `batch.plan.plan`.
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


def models(settings: Settings) -> Models:
    """The registry that is named, or one beside the runs."""
    named = settings.models
    if named.registry:
        return named
    return msgspec.structs.replace(named, registry=str(Path(settings.batch.output) / "registry"))


def opened_source(settings: Settings, request: Request, scratch: Path) -> Source:
    """The topic, its archive, or files, which are laid out as a topic in the directory given.

    Raises
    ------
    PlanError
        If the files cannot be read, or were asked for by offsets.
    """
    if request.input is None:
        return KafkaSource(Brokers.of(settings), settings.kafka.events_topic)
    archive = manifest.read(Path(request.input))
    if archive is not None:
        return ArchiveSource(str(Path(request.input).resolve()), archive)
    since, until = request.since, request.until
    if isinstance(since, Mapping) or isinstance(until, Mapping):
        raise PlanError("files have no offsets: give --since and --until as times")
    return spool(
        request.input,
        scratch / "input",
        partitions=settings.kafka.partitions,
        since_ms=since,
        until_ms=until,
        most=request.most,
    )


def going_on_from(runs: Runs, source: Source, settings: Settings, request: Request) -> Earlier | str:
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


def planned(source: Source, before: Earlier | None, request: Request) -> list[Stretch]:
    """What is read of every partition.

    Raises
    ------
    PlanError
        If what should be read is not there, or limits leave nothing of it: the next run would go on from there.
    """
    if isinstance(source, FileSource):
        stretches = plan(source, None)
    else:
        stretches = plan(source, before, since=request.since, until=request.until, most=request.most)
    limited = request.since is not None or request.until is not None
    if request.fresh and limited and all(s.start == s.end for s in stretches):
        raise PlanError("nothing to read: no record lies within --since and --until")
    return stretches
