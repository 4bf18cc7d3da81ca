"""Lays a file of events out as a topic would be: users spread over partitions, rows numbered as offsets."""

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
"""Over all partitions."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files laid out by `streamguard.batch.source.partition_files`, one a partition, with offset and value."""

    directory: str
    ends: tuple[int, ...]
    kind: str = "files"

    def identity(self) -> dict[str, Any]:
        """Files are folded anew each time."""
        return {"directory": self.directory}

    def bounds(self) -> dict[int, tuple[int, int]]:
        """From 0 to the number of rows."""
        return {partition: (0, end) for partition, end in enumerate(self.ends)}

    def at_time(self, ms: int) -> dict[int, int]:  # noqa: ARG002
        """EventTable are chosen by time when the files are laid out."""
        raise PlanError("files laid out as a topic have no times")

    def records(self, offset_range: OffsetRange) -> Records:
        """Read the partition's file, row group by row group."""
        return _rows(partition_file(self.directory, offset_range.partition), offset_range)

    def nothing_between(self, partition: int, start: int, end: int) -> bool:  # noqa: ARG002
        """EventTable have no gaps."""
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
            chosen = np.flatnonzero(inside)
            yield offsets[chosen], batch["value"].take(chosen).to_pylist()


def spool(
    source: str,
    directory: Path,
    *,
    partitions: int,
    since_ms: int | None = None,
    until_ms: int | None = None,
    most: int | None = None,
) -> FileSource:
    """Read a file, or the files of a directory by name, and write one file a partition.

    Parameters
    ----------
    source
        JSON lines, CSV or Parquet; `-` for JSON lines from standard input.
    directory
        Made if missing.
    partitions
        UserTable are spread over them as Kafka's default partitioner does.
    since_ms, until_ms
        Events outside are left out, by their own time; what is no event is kept, to be counted.
    most
        EventTable at the most.

    Raises
    ------
    PlanError
        If nothing can be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("offset", pa.int64()), ("value", pa.binary())])
    of = lru_cache(65_536)(lambda user: partition_of(user.encode(), partitions))
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
        for user, value in islice(_values(source, since_ms, until_ms), most):
            p = of(user)
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
    """Look whether there is what `spool` would read, without reading it.

    Raises
    ------
    PlanError
        If there is nothing, or it cannot be opened.
    """
    for file in _files(source):
        with _planned(file):
            check(file)


def _values(source: str, since: int | None, until: int | None) -> Iterator[tuple[str, bytes | None]]:
    for file in _files(source):
        with _planned(file):
            for batch in read(file):
                yield from _of_batch(batch, since, until)


@contextmanager
def _planned(file: str) -> Iterator[None]:
    """What is wrong with a file is wrong with the plan."""
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
