"""Appends a topic to an archive: decoded Parquet by day and partition, each record once, so that it outlives Kafka.

    ARCHIVE/_manifest.json                                  see `batch.manifest`
    ARCHIVE/date=YYYY-MM-DD/partition=N/START-END.parquet   rows of `batch.decoded.SCHEMA`

A file is a range of offsets of one partition. It is filed under the day that the partition had reached: the latest
day of an event so far, which is never behind and never after the day of the run. Late events, and records that are
no events, are in the file of the day that was current; a range of times is asked of the column `timestamp`.

Files are written aside and moved to their places when all of them are on the disk; the manifest that names them is
replaced after that, in one step. A file that it does not name is what a killed run has left, and the next run
removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from batch import local, manifest
from batch.decoded import SCHEMA, to_columns
from batch.manifest import File, Manifest, sync
from batch.plan import Limit, check_read, plan
from batch.runs import RunsError
from batch.sources import KafkaSource, Source
from batch.staged import Counts
from batch.stretch import CHUNK, PlanError, Records, Stretch, checked
from streamguard.settings import Settings

GROUP_ROWS = 65_536
"""Of a Parquet row group, at the most."""
_DAY_MS = 86_400_000
_ASIDE = ".partial"
_DELTA = ["offset", "timestamp"]

Say = Callable[[str], None]


class Outcome(msgspec.Struct, frozen=True):
    """What an archiving came to; `--json` prints it."""

    directory: str
    records: int
    refused: int
    kept_whole: int
    """Records whose bytes are kept, the refused among them."""
    files: int
    bytes: int
    ends: dict[int, int]
    """First offset not archived yet, by partition."""
    seconds: float

    @property
    def says(self) -> str:
        """In a sentence."""
        if not self.records:
            return f"{self.directory}: nothing new"
        return (
            f"{self.directory}: {self.records:,} records in {self.files} files, "
            f"{self.bytes / self.records:.0f} bytes each, {self.refused:,} of them refused as events "
            f"({self.seconds:.1f} s)"
        )


class _Part(msgspec.Struct):
    """What the task of one partition leaves beside its files."""

    counts: Counts
    refused: int = 0
    kept_whole: int = 0
    files: list[File] = []


@dataclass(frozen=True, slots=True)
class _Archived:
    """An archive to go on from."""

    ends: Mapping[int, int]
    name: str = "the archive"
    sooner: str = "archive more often than the topic's retention"
    anew: str = "begin another archive with what is there: --output with a new directory"

    def file(self, partition: int) -> None:
        """Nothing is folded."""


def archive(
    settings: Settings, directory: Path, say: Say, *, until: Limit | None = None, most: int | None = None
) -> Outcome:
    """Append what the topic has beyond the archive's ends.

    Parameters
    ----------
    settings
        The topic, and the engine.
    directory
        The archive; made if missing. It has to be where every executor sees it.
    say
        Hears of progress.
    until, most
        See `batch.plan.plan`.

    Raises
    ------
    PlanError
        If the archive is of another topic or damaged, records have expired unread, or something planned was not
        read.
    UnavailableError, SparkError
        If there is no broker, or no Spark.
    RunsError
        If another process is writing to the archive, or it cannot be written.
    """
    began = time.perf_counter()
    source = KafkaSource(settings.kafka.bootstrap_servers, settings.kafka.events_topic)
    with _alone(directory):
        before = _opened(directory, source)
        stretches = plan(source, _Archived(before.ends), until=until, most=most)
        new = [s for s in stretches if s.end > s.start]
        say(f"{sum(s.end - s.start for s in new):,} offsets of {len(new)} partitions are new")
        aside = directory / _ASIDE
        aside.mkdir()
        today = int(time.time() * 1000) // _DAY_MS
        try:
            _run(source, new, settings, aside, partial(write_stretch, _days(before), today), say)
            parts = [msgspec.json.decode(_report(aside, s.partition).read_bytes(), type=_Part) for s in new]
            check_read(source, [part.counts for part in parts])
            files = [file for part in parts for file in part.files]
            _publish(directory, files)
            after = msgspec.structs.replace(
                before,
                starts={s.partition: s.start for s in stretches} | before.starts,
                ends=before.ends | {s.partition: s.end for s in stretches},
                files=sorted([*before.files, *files], key=lambda f: (f.partition, f.start)),
            )
            after.save(directory)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Outcome(
        directory=str(directory),
        records=sum(part.counts.records for part in parts),
        refused=sum(part.refused for part in parts),
        kept_whole=sum(part.kept_whole for part in parts),
        files=len(files),
        bytes=sum(file.bytes for file in files),
        ends=dict(after.ends),
        seconds=round(time.perf_counter() - began, 3),
    )


def write_stretch(
    days: Mapping[int, int],
    today: int,
    stretch: Stretch,
    records: Records,
    _: Settings,
    directory: Path,
) -> None:
    """The work of a task: files of one partition, and what there is to say of them, written aside.

    Parameters
    ----------
    days
        Of each partition with an archive, the day it has reached, counted from 1970.
    today
        The day beyond which none is reached.
    """
    part = _Part(Counts(stretch.partition, stretch.start, stretch.end))
    pieces = _pieces(checked(stretch, records, part.counts), part, days.get(stretch.partition), today)
    for day, group in groupby(pieces, key=itemgetter(0)):
        part.files.append(_write_file(directory, stretch.partition, day, (rows for _, rows in group)))
    _report(directory, stretch.partition).write_bytes(msgspec.json.encode(part))


def _pieces(
    records: Records, part: _Part, reached: int | None, today: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Decoded rows, each piece with the day that it is filed under."""
    for offsets, values in records:
        rows = to_columns(offsets, values)
        part.refused += rows["timestamp"].null_count
        part.kept_whole += len(rows) - rows["raw"].null_count
        days = rows["timestamp"].cast(pa.int64()).fill_null(0).to_numpy() // _DAY_MS
        days = np.minimum(days, today)
        if reached is None:
            reached = int(next(iter(days[days > 0]), today))
        days = np.maximum.accumulate(np.maximum(days, reached))
        reached = int(days[-1])
        for a, b in pairwise([0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]):
            yield int(days[a]), rows.slice(a, b - a)


def _write_file(directory: Path, partition: int, day: int, pieces: Iterator[pa.RecordBatch]) -> File:
    """Write rows to the disk; the file's place in the archive is known when its last offset is."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    first = next(pieces)
    start = first["offset"][0].as_py()
    aside = directory / _name_aside(partition, start)
    rows, end, stamps = 0, start, []
    with pq.ParquetWriter(
        aside,
        SCHEMA,
        compression="zstd",
        use_dictionary=[name for name in SCHEMA.names if name not in _DELTA],
        column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    ) as writer:
        for group in _row_groups(chain([first], pieces)):
            writer.write_table(group, row_group_size=GROUP_ROWS)
            rows += len(group)
            end = group["offset"][-1].as_py() + 1
            stamps += pc.min_max(group["timestamp"].cast(pa.int64())).as_py().values()
    sync(aside)
    stamps = [ms for ms in stamps if ms is not None]
    return File(
        path=f"date={np.datetime64(day, 'D')}/partition={partition}/{start:012d}-{end:012d}.parquet",
        partition=partition,
        start=start,
        end=end,
        rows=rows,
        bytes=aside.stat().st_size,
        first_ms=min(stamps, default=None),
        last_ms=max(stamps, default=None),
    )


def _row_groups(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for rows in pieces:
        waiting.append(rows)
        if sum(map(len, waiting)) > GROUP_ROWS - CHUNK:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _run(
    source: Source, stretches: list[Stretch], settings: Settings, aside: Path, work: local.Work, say: Say
) -> None:
    def told(stretch: Stretch) -> None:
        say(f"partition {stretch.partition}: offsets {stretch.start:,} to {stretch.end:,} decoded")

    if settings.batch.engine == "local" or not stretches:
        local.fold(source, stretches, settings, aside, told, work)
        return
    from batch import spark as engine
    from batch.session import opened

    scratch = aside / "spark"
    scratch.mkdir()
    with opened(settings.spark, scratch) as spark:
        engine.fold(source, stretches, settings, aside, told, spark, work=work)


def _opened(directory: Path, source: KafkaSource) -> Manifest:
    """The manifest to go on from, after what killed runs left behind is removed; that of a new archive is made."""
    found = manifest.read(directory)
    if found is None:
        strangers = sorted(path.name for path in directory.iterdir() if path.name[0] not in "._")
        if strangers:
            raise PlanError(
                f"{directory} is not empty and not an archive (it has {', '.join(strangers[:3])}): name a new directory"
            )
        found = Manifest(manifest.FORMAT, source.identity())
        found.save(directory)
    identity = source.identity()
    if found.source != identity:
        raise PlanError(
            f"{directory} is an archive of another topic ({found.source}, now {identity}): name a new directory"
        )
    shutil.rmtree(directory / _ASIDE, ignore_errors=True)
    named = {directory / file.path for file in found.files}
    for path in directory.glob("date=*/partition=*/*.parquet"):
        if path not in named:
            path.unlink()
    return found


def _publish(directory: Path, files: list[File]) -> None:
    """Move files to their places, and have the places on the disk."""
    places = {directory}
    for file in files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        (directory / _ASIDE / _name_aside(file.partition, file.start)).rename(path)
        places |= {path.parent, path.parent.parent}
    for place in places:
        sync(place)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the archive's lock, which the system gives back when the process ends, however it ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunsError(f"cannot write an archive to {directory}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RunsError(
            f"another process is writing to the archive {directory}: wait for its end, or name another directory"
        ) from None
    finally:
        os.close(lock)


def _days(before: Manifest) -> dict[int, int]:
    """The day that each partition has reached; files are in the order of their offsets."""
    return {file.partition: int(np.datetime64(file.date, "D").astype(int)) for file in before.files}


def _name_aside(partition: int, start: int) -> str:
    return f"partition-{partition:04d}-{start}.part"


def _report(aside: Path, partition: int) -> Path:
    return aside / f"partition-{partition:04d}.json"
