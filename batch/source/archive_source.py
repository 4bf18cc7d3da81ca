"""Reads a topic's archive as a source, with the partitions, offsets and events of the topic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamguard.batch.source.offset_range import OffsetRange, PlanError, RecordChunk, Records
from streamguard.batch.source.sources import rows_at_a_time
from streamguard.events.event import Withheld
from streamguard.runs.archive_manifest import ArchiveFile, ArchiveManifest
from streamguard.text import counted


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """A topic's archive, as `streamguard.batch.archive` writes it."""

    directory: str
    manifest: ArchiveManifest
    kind: str = "archive"

    def identity(self) -> dict[str, Any]:
        """Identity of the topic: a run over the archive can continue a run over the topic, and vice versa."""
        return self.manifest.source

    def hash_keys(self) -> dict[int, bytes]:
        """The keys that the topic had when it was archived last."""
        return {partition: bytes.fromhex(key) for partition, key in self.manifest.hash_keys.items()}

    def bounds(self) -> dict[int, tuple[int, int]]:
        """First archived offset of each partition, and its first offset that is not archived yet."""
        if not self.manifest.starts:
            raise PlanError(f"{self.directory}: the archive is empty: run `streamguard archive`")
        return {p: (start, self.manifest.ends[p]) for p, start in sorted(self.manifest.starts.items())}

    def at_time(self, ms: int) -> dict[int, int]:
        """First offset of each partition whose event time is not earlier; the end if all events are earlier."""
        found = {}
        for partition, (_, end) in self.bounds().items():
            later = (f for f in self.manifest.files if f.partition == partition and (f.last_ms or 0) >= ms)
            file = next(later, None)
            found[partition] = end if file is None else self._first_at(file, ms)
        return found

    def records(self, offset_range: OffsetRange) -> Records:
        """Read the partition's files, a bounded number of rows at a time."""
        from streamguard.batch.source.decoded import append_times, first_offsets, to_values

        for file in self.manifest.of(offset_range.partition, offset_range.start, offset_range.end):
            for batch in self._batches(file, None):
                a = int(np.searchsorted(batch["offset"].to_numpy(), offset_range.start))
                b = int(np.searchsorted(first_offsets(batch), offset_range.end))
                if a < b:
                    rows = batch.slice(a, b - a)
                    offsets = np.minimum(rows["offset"].to_numpy(), offset_range.end - 1)
                    values = [
                        value.within(offset_range.start, offset_range.end)
                        if isinstance(value, Withheld)
                        else value
                        for value in to_values(rows)
                    ]
                    yield RecordChunk(offsets, values, append_times(rows))

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        """Read the offsets again; True if the archive has no record between them."""
        for file in self.manifest.of(partition, start, end):
            for batch in self._batches(file, ["offset"]):
                a, b = np.searchsorted(batch["offset"].to_numpy(), [start, end])
                if a < b:
                    return False
        return True

    def _first_at(self, file: ArchiveFile, ms: int) -> int:
        for batch in self._batches(file, ["offset", "timestamp"]):
            stamps = batch["timestamp"].cast("int64").fill_null(0).to_numpy()
            later = np.flatnonzero(stamps >= ms)
            if len(later):
                return int(batch["offset"][later[0]].as_py())
        return file.end

    def _batches(self, file: ArchiveFile, columns: list[str] | None) -> Iterator[Any]:
        """Rows of the file, after checking its size and number of rows against the manifest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(self.directory) / file.path
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as table:
                size, rows = path.stat().st_size, table.metadata.num_rows
                if (size, rows) != (file.bytes, file.rows):
                    raise PlanError(
                        f"{path} has {counted(rows, 'row')} in {size:,} bytes, but the manifest lists "
                        f"{counted(file.rows, 'row')} in {file.bytes:,} bytes: restore the file"
                    )
                yield from table.iter_batches(rows_at_a_time(table.metadata), columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise PlanError(
                f"{path} (offsets {file.start} to {file.end - 1} of partition {file.partition}) cannot be read "
                f"({str(error).splitlines()[0]}): restore the file"
            ) from None
