"""Appends the records of a topic to an archive: decoded Parquet by day and partition, each record exactly once.

    ARCHIVE/_manifest.json                                  see `streamguard.runs.archive_manifest`
    ARCHIVE/date=YYYY-MM-DD/partition=N/START-END.parquet   see `streamguard.batch.archive_writer`

An archive keeps records longer than Kafka does. New files are written to a temporary directory and moved to their
places when all of them are synced to the disk. After that, the manifest is replaced atomically. A file that the
manifest does not list was left by a killed run, and the next run removes it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from streamguard.batch.archive_writer import name_aside, read_part, write_archive_files
from streamguard.batch.engines import local
from streamguard.batch.engines.attempts import Work
from streamguard.batch.runs import BusyError
from streamguard.batch.source.offset_plan import Limit, check_read, plan
from streamguard.batch.source.offset_range import OffsetRange, PlanError
from streamguard.batch.source.sources import KafkaSource, Source
from streamguard.files import lock
from streamguard.files.disk import cannot_write, sync
from streamguard.runs import archive_manifest
from streamguard.runs.archive_manifest import ArchiveFile, ArchiveManifest
from streamguard.settings.schema import Settings
from streamguard.text import counted

_ASIDE = ".partial"
_LOCK = ".lock"

Say = Callable[[str], None]


class ArchiveOutcome(msgspec.Struct, frozen=True):
    """Result of an archiving run; `--json` prints it."""

    directory: str
    records: int
    refused: int
    unreadable: int
    """Those of them whose batch cannot be read; of the batch, its first bytes are kept."""
    kept_whole: int
    """Records whose bytes are kept, including refused ones that could be read."""
    files: int
    bytes: int
    ends: dict[int, int]
    """First offset that is not archived yet, by partition."""
    seconds: float

    @property
    def message(self) -> str:
        """The result, in one sentence."""
        if not self.records:
            return f"{self.directory}: no new records"
        unreadable = (
            f", {self.unreadable:,} of these in batches that cannot be read" if self.unreadable else ""
        )
        return (
            f"{self.directory}: {counted(self.records, 'record')} in {counted(self.files, 'file')}, "
            f"{self.bytes / self.records:.0f} bytes each, {self.refused:,} of them refused as events{unreadable} "
            f"({self.seconds:.1f} s)"
        )


@dataclass(frozen=True, slots=True)
class _ArchiveEnds:
    """The ends of an archive, at which the next run continues."""

    ends: Mapping[int, int]
    name: str = "the archive"
    expiry_remedy: str = (
        "start another archive with the remaining records: --output with a new directory; to prevent this, archive "
        "more often than the topic's retention"
    )
    loss_remedy: str = "start another archive with the remaining records: --output with a new directory"

    def file(self, partition: int) -> None:
        """No file: an archive does not continue a folded partition."""


def archive(
    settings: Settings,
    directory: Path,
    say: Say,
    *,
    until: Limit | None = None,
    max_records: int | None = None,
) -> ArchiveOutcome:
    """Append the topic's records from the archive's ends on.

    Parameters
    ----------
    settings
        Settings of the topic and of the engine.
    directory
        The archive; it is created if missing. Every executor needs access to it.
    say
        Called with progress messages.
    until, max_records
        See `streamguard.batch.source.offset_plan.plan`.

    Raises
    ------
    PlanError
        If the archive belongs to another topic, if records expired unread, or if planned records were not read.
    ArchiveError
        If the manifest of the archive is damaged.
    TopicsMismatchError
        If the topic does not exist.
    UnavailableError, SparkError
        If Kafka or Spark is unavailable.
    BusyError
        If another process is writing to the archive.
    CannotWriteError
        If the archive cannot be written.
    """
    began = time.perf_counter()
    source = KafkaSource.of(settings)
    with _locked(directory):
        before = _open_archive(directory, source)
        ranges = plan(source, _ArchiveEnds(before.ends), until=until, max_records=max_records)
        new = [s for s in ranges if s.end > s.start]
        count = sum(s.end - s.start for s in new)
        say(f"{counted(count, 'new offset')} in {counted(len(new), 'partition')}")
        aside = directory / _ASIDE
        aside.mkdir()
        today = int(time.time()) // 86_400
        try:
            _run(source, new, settings, aside, partial(write_archive_files, _days(before), today), say)
            parts = [read_part(aside, s.partition) for s in new]
            check_read(source, [part.counts for part in parts])
            files = [file for part in parts for file in part.files]
            _publish(directory, files)
            after = msgspec.structs.replace(
                before,
                starts={s.partition: s.start for s in ranges} | before.starts,
                ends=before.ends | {s.partition: s.end for s in ranges},
                hash_keys=before.hash_keys | {p: key.hex() for p, key in source.hash_keys().items()},
                files=sorted([*before.files, *files], key=lambda f: (f.partition, f.start)),
            )
            after.save(directory)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return ArchiveOutcome(
        directory=str(directory),
        records=sum(part.counts.records for part in parts),
        refused=sum(part.refused for part in parts),
        unreadable=sum(part.unreadable for part in parts),
        kept_whole=sum(part.kept_whole for part in parts),
        files=len(files),
        bytes=sum(file.bytes for file in files),
        ends=dict(after.ends),
        seconds=round(time.perf_counter() - began, 3),
    )


def _run(
    source: Source, ranges: list[OffsetRange], settings: Settings, aside: Path, work: Work, say: Say
) -> None:
    def on_decoded(offset_range: OffsetRange) -> None:
        say(
            f"partition {offset_range.partition}: offsets {offset_range.start:,} to {offset_range.end:,} decoded"
        )

    if settings.batch.engine == "local" or not ranges:
        local.fold(source, ranges, settings, aside, on_decoded, work)
        return
    from streamguard.batch.engines import spark as engine
    from streamguard.batch.engines.session import opened

    scratch = aside / "spark"
    scratch.mkdir()
    with opened(settings.spark, scratch) as spark:
        engine.fold(source, ranges, settings, aside, on_decoded, spark, work=work)


def _open_archive(directory: Path, source: KafkaSource) -> ArchiveManifest:
    """Read the manifest, or create that of a new archive, and remove the files that killed runs left behind."""
    found, identity = archive_manifest.read(directory), source.identity()
    if found is None:
        ours = {_LOCK, archive_manifest.ASIDE}
        strangers = sorted(path.name for path in directory.iterdir() if path.name not in ours)
        if strangers:
            raise PlanError(
                f"{directory} is not empty and not an archive (it has {', '.join(strangers[:3])}): specify a new "
                "directory"
            )
        found = ArchiveManifest(archive_manifest.FORMAT, identity)
        found.save(directory)
    if found.source != identity:
        raise PlanError(
            f"{directory} is an archive of another topic ({found.source}, now {identity}): specify a new directory"
        )
    shutil.rmtree(directory / _ASIDE, ignore_errors=True)
    named = {directory / file.path for file in found.files}
    for path in directory.glob("date=*/partition=*/*.parquet"):
        if path not in named:
            path.unlink()
    return found


def _publish(directory: Path, files: list[ArchiveFile]) -> None:
    """Move files to their places, and sync the directories to the disk."""
    places = {directory}
    for file in files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        (directory / _ASIDE / name_aside(file.partition, file.start)).rename(path)
        places |= {path.parent, path.parent.parent}
    for place in places:
        sync(place)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the archive's lock, which the system releases when the process ends in any way."""
    try:
        held = lock.acquire(directory / _LOCK)
    except BlockingIOError:
        raise BusyError(
            f"another process is writing to the archive {directory}: wait until it ends, or specify another directory"
        ) from None
    except OSError as error:
        raise cannot_write(f"an archive to {directory}", error, "choose another --output") from None
    try:
        yield
    finally:
        os.close(held)


def _days(before: ArchiveManifest) -> dict[int, int]:
    """The day that each partition has reached; files are sorted by offset, so the last one counts."""
    return {file.partition: int(np.datetime64(file.date, "D").astype(int)) for file in before.files}
