"""Lays files of events out like a topic: one file per partition, in which rows are numbered as offsets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.batch.source.offset_range import OffsetRange, PlanError, RecordChunk, Records, partition_file
from streamguard.batch.source.sources import rows_at_a_time
from streamguard.history.files import ENDINGS, Batch, HistoryError, check, read
from streamguard.history.layout import Layout
from streamguard.history.order import RowOrder

_GROUP_ROWS = 16_384
_PENDING_BYTES = 32_000_000
"""Maximum size of the records that wait to be written, over all partitions."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files written by `lay_out`, one per partition, with the columns offset and value."""

    directory: str
    ends: tuple[int, ...]
    kind: str = "files"
    warning: str | None = None
    """What is wrong with the order of the rows, and the remedy."""

    def identity(self) -> dict[str, Any]:
        """Directory of the files; each run has its own, so files are always folded from the beginning."""
        return {"directory": self.directory}

    def hash_keys(self) -> dict[int, bytes]:
        """No keys: files have no worker."""
        return {}

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


def _rows(path: Path, offset_range: OffsetRange) -> Iterator[RecordChunk]:
    import pyarrow.parquet as pq

    if offset_range.start == offset_range.end:
        return
    table = pq.ParquetFile(path)
    for batch in table.iter_batches(rows_at_a_time(table.metadata), columns=["offset", "value"]):
        offsets = batch["offset"].to_numpy()
        inside = (offsets >= offset_range.start) & (offsets < offset_range.end)
        if inside.all():
            yield RecordChunk(offsets, batch["value"].to_pylist())
        elif inside.any():
            selected = np.flatnonzero(inside)
            yield RecordChunk(offsets[selected], batch["value"].take(selected).to_pylist())


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
        Number of partitions, over which `streamguard.history.layout.Layout` spreads the rows.
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
    layout, order = Layout(partitions), RowOrder()
    written = [0] * partitions
    pending: list[list[bytes | None]] = [[] for _ in range(partitions)]
    held = [0] * partitions
    writers = [
        pq.ParquetWriter(partition_file(directory, p), schema, compression="lz4", use_dictionary=False)
        for p in range(partitions)
    ]

    def write(p: int) -> None:
        values = pending[p]
        offsets = range(written[p], written[p] + len(values))
        writers[p].write_table(
            pa.table([pa.array(offsets, pa.int64()), pa.array(values, pa.binary())], schema)
        )
        written[p] += len(values)
        values.clear()
        held[p] = 0

    try:
        for batch, among in _batches(source, since_ms, until_ms, max_records):
            order.add(batch.events)
            for placed in layout.place(batch, among):
                p = placed.partition
                for row in placed.rows.tolist():
                    value = batch.values[row]
                    pending[p].append(value)
                    held[p] += len(value or b"")
                    if len(pending[p]) == _GROUP_ROWS or held[p] > _PENDING_BYTES // partitions:
                        write(p)
        for p in range(partitions):
            write(p)
    finally:
        for writer in writers:
            writer.close()
    return FileSource(str(directory), tuple(layout.ends), warning=order.warning(source))


def check_files(source: str) -> None:
    """Check that the input of `lay_out` exists, without reading it.

    Raises
    ------
    PlanError
        If there is no file, or a file cannot be opened.
    """
    for file in _files(source):
        with _as_plan_error():
            check(file)


def _batches(
    source: str, since: int | None, until: int | None, max_records: int | None
) -> Iterator[tuple[Batch, NDArray[np.bool_]]]:
    """Batches of rows, and which of their rows are within the limits."""
    left = max_records
    for file in _files(source):
        with _as_plan_error():
            for batch in read(file):
                if left == 0:
                    return
                among = _within(batch, since, until)
                if left is not None:
                    among &= np.cumsum(among) <= left
                    left -= int(among.sum())
                yield batch, among


@contextmanager
def _as_plan_error() -> Iterator[None]:
    """Raise an error of the file as a `PlanError`."""
    try:
        yield
    except HistoryError as error:
        raise PlanError(str(error)) from None


def _within(batch: Batch, since: int | None, until: int | None) -> NDArray[np.bool_]:
    """bool, one for each row: whether its event is within the times; a row that is not an event has no time."""
    among = np.ones(len(batch.values), bool)
    if since is not None or until is not None:
        times = np.array([int(event.timestamp) for event in batch.events], np.int64)
        among[batch.index] = (times >= (since or 0)) & (times < (2**62 if until is None else until))
    return among


def _files(source: str) -> list[str]:
    if not Path(source).is_dir():
        return [source]
    files = sorted(
        str(path) for path in Path(source).rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()
    )
    if not files:
        raise PlanError(f"{source}: no file in it ends in {', '.join(ENDINGS)}")
    return files
