"""Writes the new records of one partition as files of decoded rows, one day per file: one task of an archiving run.

A file holds the rows (`streamguard.batch.source.decoded.SCHEMA`) of an offset range. Its date is the day that the
partition has reached: the latest day of an event so far, but never later than the day of the run. Late events, and
records that are not events, are in the file of the day that was current when they were read. To select a range of
times, readers filter by the column `timestamp`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from streamguard.batch.source.decoded import SCHEMA, first_offsets, to_columns
from streamguard.batch.source.offset_range import CHUNK, Counts, OffsetRange, Records, checked
from streamguard.events.decision import Decision
from streamguard.events.event import UNREADABLE, Withheld
from streamguard.files.disk import sync
from streamguard.runs.archive_manifest import ArchiveFile
from streamguard.settings.schema import Settings

GROUP_ROWS = 65_536
"""Maximum number of rows in a Parquet row group."""
GROUP_BYTES = 256 << 20
"""Approximate size in memory at which a row group ends sooner: a refused record may have 64 MiB."""
_DAY_MS = 86_400_000
_DELTA = ["offset", "timestamp"]


class Part(msgspec.Struct):
    """Result of one task: its counts and its files."""

    counts: Counts
    refused: int = 0
    """Records that are not events."""
    unreadable: int = 0
    """Offsets of batches that cannot be read; they are also among the refused."""
    kept_whole: int = 0
    """Records whose bytes are kept in the column `raw`."""
    files: list[ArchiveFile] = []


def write_archive_files(
    days: Mapping[int, int],
    today: int,
    offset_range: OffsetRange,
    records: Records,
    _: Settings,
    directory: Path,
) -> None:
    """Write the files of an offset range under temporary names (`name_aside`), and a report on them.

    Parameters
    ----------
    days
        The day that each archived partition has reached, in days since 1970.
    today
        The latest day that a partition can reach.
    """
    part = Part(Counts(offset_range.partition, offset_range.start, offset_range.end))
    pieces = _pieces(
        checked(offset_range, records, part.counts), part, days.get(offset_range.partition), today
    )
    for day, group in groupby(pieces, key=itemgetter(0)):
        part.files.append(_write_file(directory, offset_range.partition, day, (rows for _, rows in group)))
    _report(directory, offset_range.partition).write_bytes(msgspec.json.encode(part))


def _pieces(
    records: Records, part: Part, reached: int | None, today: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Decoded rows in pieces, each with the day of its file."""
    for chunk in records:
        rows = to_columns(*chunk)
        withheld = [value for value in chunk.values if isinstance(value, Withheld)]
        unreadable = sum(value.count for value in withheld if value.reason == UNREADABLE)
        part.unreadable += unreadable
        decisions = sum(isinstance(value, Decision) for value in chunk.values)
        part.refused += (
            rows["timestamp"].null_count - len(withheld) - decisions + sum(value.count for value in withheld)
        )
        part.kept_whole += len(rows) - rows["raw"].null_count - len(withheld)
        days = rows["timestamp"].cast(pa.int64()).fill_null(0).to_numpy() // _DAY_MS
        days = np.minimum(days, today)
        if reached is None:
            reached = int(next(iter(days[days > 0]), today))
        days = np.maximum.accumulate(np.maximum(days, reached))
        reached = int(days[-1])
        for a, b in pairwise([0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]):
            yield int(days[a]), rows.slice(a, b - a)


def _write_file(directory: Path, partition: int, day: int, pieces: Iterator[pa.RecordBatch]) -> ArchiveFile:
    """Write rows under a temporary name; the final path contains the last offset, which is known only at the end."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    first = next(pieces)
    start = int(first_offsets(first)[0])
    aside = directory / name_aside(partition, start)
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
    return ArchiveFile(
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
        if sum(map(len, waiting)) > GROUP_ROWS - CHUNK or sum(r.nbytes for r in waiting) > GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def name_aside(partition: int, start: int) -> str:
    """Temporary name of the file that starts at an offset."""
    return f"partition-{partition:04d}-{start}.part"


def read_part(aside: Path, partition: int) -> Part:
    """Read the result of the task of a partition."""
    return msgspec.json.decode(_report(aside, partition).read_bytes(), type=Part)


def _report(aside: Path, partition: int) -> Path:
    return aside / f"partition-{partition:04d}.json"
