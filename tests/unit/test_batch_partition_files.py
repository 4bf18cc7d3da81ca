"""Files laid out like a topic: in order, in bounded memory, with an error for unsuitable files."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streamguard.batch.source import partition_files as module
from streamguard.batch.source import sources
from streamguard.batch.source.offset_range import OffsetRange, PlanError
from streamguard.batch.source.partition_files import lay_out
from tests.streams import START, event


def test_large_rows_are_written_and_read_in_small_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PENDING_BYTES", 1_000_000)
    monkeypatch.setattr(sources, "READ_BYTES", 500_000)
    values = [event(START + k, "ann", "k" * 100_000) for k in range(40)]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(values))
    source = lay_out(str(tmp_path / "events.jsonl"), tmp_path / "out", partitions=1)
    chunks = list(source.records(OffsetRange(0, 0, 40)))

    assert pq.ParquetFile(tmp_path / "out/partition-0000.parquet").num_row_groups >= 4
    assert [value for chunk in chunks for value in chunk.values] == values
    assert max(len(chunk.values) for chunk in chunks) <= 5


def test_rows_with_the_newest_first_are_reported(tmp_path: Path) -> None:
    values = [event(START + k, "ann") for k in range(40)]
    for name, rows in (("old", values), ("new", values[::-1])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(rows))
    old, new = (lay_out(str(tmp_path / f"{n}.jsonl"), tmp_path / n, partitions=2) for n in ("old", "new"))

    assert old.warning is None
    assert new.warning is not None and "Sort the rows by time" in new.warning


def test_table_with_unknown_column_names_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(event(START))
    (tmp_path / "b.csv").write_text("time,who\n1,ann\n")

    with pytest.raises(
        PlanError, match=r"b\.csv: .*name a column so, or give --map timestamp=COLUMN to replay"
    ):
        lay_out(str(tmp_path), tmp_path / "out", partitions=2)
