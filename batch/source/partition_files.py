"""Lays files of events out like a topic: users are spread over partitions, and rows are numbered as offsets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from streamguard.batch.source.offset_range import OffsetRange, PlanError, Records, partition_file
from streamguard.batch.source.sources import rows_at_a_time
from streamguard.history.files import ENDINGS, Batch, HistoryError, check, read
from streamguard.history.partitioner import partition_of

_GROUP_ROWS = 16_384
_PENDING_BYTES = 32_000_000
"""Maximum size of the records that wait to be written, over all partitions."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files written by `lay_out`, one per partition, with the columns offset and value."""

    directory: str
    ends: tuple[int, ...]
    kind: str = "files"

    def identity(self) -> dict[str, Any]:
        """Directory of the files; each run has its own, so files are always folded from the beginning."""
        return {"directory": self.directory}

    def bounds(self) -> dict[int, tuple[int, int]]:
        """0, and the number of rows, for each partition."""
        return {partition: (0, end) for partition, end in enumerate(self.ends)}

    def at_time(self, ms: int) -> dict[int, int]:  # noqa: ARG002
        """Not supported: `lay_out` selects events by time."""
        raise PlanError("files laid out like a topic have no index by time")

    def records(self, offset_range: OffsetRange) -> Records:
        """Read the partition's file, a bounded number of rows at a time."""
        return _rows(partition_file(self.directory, offset_range.partition), offset_range)

    def nothing_between(self, partition: int, start: int, end: int) -> bool:  # noqa: ARG002
        """True only for an empty range: rows have no gaps."""
        return start == end


def _rows(path: Path, offset_range: OffsetRange) -> Iterator[tuple[Any, list[bytes | None]]]:
    import pyarrow.parquet as pq

    if offset_range.start == offset_range.end:
        return
    table = pq.ParquetFile(path)
    for batch in table.iter_batches(rows_at_a_time(table.metadata), columns=["offset", "value"]):
        offsets = batch["offset"].to_numpy()
        inside = (offsets >= offset_range.start) & (offsets < offset_range.end)
        if inside.all():
            yield offsets, batch["value"].to_pylist()
        elif inside.any():
            selected = np.flatnonzero(inside)
            yield offsets[selected], batch["value"].take(selected).to_pylist()


def lay_out(
    source: str,
    directory: Path,
    *,
    partitions: int,
    since_ms: int | None = None,
    until_ms: int | None = None,
    max_records: int | None = None,
) -> FileSource:
    """Read a file, or the files of a directory sorted by name, and write one file per partition.

    Parameters
    ----------
    source
        JSON lines, CSV or Parquet; `-` for JSON lines from standard input.
    directory
        Output directory; it is created if missing.
    partitions
        Number of partitions; users are spread over them by Kafka's default partitioner.
    since_ms, until_ms
        Events outside these event times are left out. Records that are not events are kept, so that they are counted.
    max_records
        Maximum number of records.

    Raises
    ------
    PlanError
        If a file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("offset", pa.int64()), ("value", pa.binary())])
    partition = lru_cache(65_536)(lambda user: partition_of(user.encode(), partitions))
    ends = [0] * partitions
    pending: list[list[bytes | None]] = [[] for _ in range(partitions)]
    held = [0] * partitions
    writers = [
        pq.ParquetWriter(partition_file(directory, p), schema, compression="lz4", use_dictionary=False)
        for p in range(partitions)
    ]

    def write(p: int) -> None:
        values = pending[p]
        offsets = range(ends[p] - len(values), ends[p])
        writers[p].write_table(
            pa.table([pa.array(offsets, pa.int64()), pa.array(values, pa.binary())], schema)
        )
        values.clear()
        held[p] = 0

    try:
        for user, value in islice(_values(source, since_ms, until_ms), max_records):
            p = partition(user)
            pending[p].append(value)
            ends[p] += 1
            held[p] += len(value or b"")
            if len(pending[p]) == _GROUP_ROWS or held[p] > _PENDING_BYTES // partitions:
                write(p)
        for p in range(partitions):
            write(p)
    finally:
        for writer in writers:
            writer.close()
    return FileSource(str(directory), tuple(ends))


def check_files(source: str) -> None:
    """Check that the input of `lay_out` exists, without reading it.

    Raises
    ------
    PlanError
        If there is no file, or a file cannot be opened.
    """
    for file in _files(source):
        with _as_plan_error(file):
            check(file)


def _values(source: str, since: int | None, until: int | None) -> Iterator[tuple[str, bytes | None]]:
    for file in _files(source):
        with _as_plan_error(file):
            for batch in read(file):
                yield from _of_batch(batch, since, until)


@contextmanager
def _as_plan_error(file: str) -> Iterator[None]:
    """Raise an error of the file as a `PlanError`."""
    try:
        yield
    except HistoryError as error:
        hint = ""
        if file.lower().endswith((".csv", ".parquet")):
            hint = " (a retrain reads only columns with the names of an event's fields)"
        raise PlanError(f"{error}{hint}") from None


def _of_batch(batch: Batch, since: int | None, until: int | None) -> Iterator[tuple[str, bytes | None]]:
    users: list[str | None] = [""] * len(batch.values)
    for event, row in zip(batch.events, batch.index, strict=True):
        outside = (since is not None and int(event.timestamp) < since) or (
            until is not None and int(event.timestamp) >= until
        )
        users[row] = None if outside else event.user or ""
    return ((user, value) for user, value in zip(users, batch.values, strict=True) if user is not None)


def _files(source: str) -> list[str]:
    if not Path(source).is_dir():
        return [source]
    files = sorted(
        str(path) for path in Path(source).rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()
    )
    if not files:
        raise PlanError(f"{source}: no file in it ends in {', '.join(ENDINGS)}")
    return files
