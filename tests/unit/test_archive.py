"""The archive stores each record once even if a run is killed, folds like the topic, and is plain Parquet."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from streamguard.batch import archive as module
from streamguard.batch.archive import ArchiveOutcome, archive
from streamguard.batch.archive_writer import write_archive_files
from streamguard.batch.engines import local
from streamguard.batch.folding.fold_file import PEAKS
from streamguard.batch.folding.resume import ResumePoint, newest, write_about
from streamguard.batch.runs import BusyError
from streamguard.batch.source.archive_source import ArchiveSource
from streamguard.batch.source.offset_plan import plan
from streamguard.batch.source.offset_range import OffsetRange, PlanError, RecordChunk, Records
from streamguard.batch.source.sources import Source
from streamguard.cli.main import main
from streamguard.events.ceiling import UNKNOWN
from streamguard.runs.archive_manifest import ArchiveError, ArchiveFile, ArchiveManifest, read
from streamguard.settings.schema import Batch, Detection, Sampling, Settings
from tests.streams import DAY, HOUR, START, event, habit

SETTINGS = Settings(
    batch=Batch(engine="local"), detection=Detection(alert_risk=66.7), sampling=Sampling(rows=256, alerts=50)
)
MONDAY = START // DAY


@dataclass
class Topic:
    """Partitions in memory as (offset, value) pairs, with gaps where a topic has transaction markers.

    With `appended_ms`, the append time of each record is set to it; otherwise senders have set the records' times.
    """

    partitions: dict[int, list[tuple[int, bytes | None]]]
    ends: dict[int, int] = field(default_factory=dict)
    id: str = "one"
    kind: str = "kafka"
    appended_ms: int = UNKNOWN

    def identity(self) -> dict[str, Any]:
        return {"topic": "events", "topic_id": self.id}

    def hash_keys(self) -> dict[int, bytes]:
        return {}

    def bounds(self) -> dict[int, tuple[int, int]]:
        return {
            p: (rows[0][0] if rows else 0, self.ends.get(p, rows[-1][0] + 1 if rows else 0))
            for p, rows in self.partitions.items()
        }

    def at_time(self, ms: int) -> dict[int, int]:
        raise NotImplementedError

    def records(self, offset_range: OffsetRange) -> Records:
        rows = [
            row
            for row in self.partitions[offset_range.partition]
            if offset_range.start <= row[0] < offset_range.end
        ]
        for a in range(0, len(rows), 333):
            offsets, values = zip(*rows[a : a + 333], strict=True)
            yield RecordChunk(np.array(offsets), list(values), np.full(len(values), self.appended_ms))

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        return not any(start <= offset < end for offset, _ in self.partitions[partition])

    def expire(self, partition: int, before: int) -> None:
        self.partitions[partition] = [row for row in self.partitions[partition] if row[0] >= before]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    """Two partitions over two and a half days, with bad records, records that columns cannot represent, and gaps."""
    first: list[bytes | None] = list(habit(2000, step=100_000))
    first[700:700] = [b"?", None, event(START + DAY, "ann", auth_details={}), b""]
    second: list[bytes | None] = list(habit(500, users=7, step=400_000, seed=1))
    made = Topic(
        {0: [(k + k // 400, value) for k, value in enumerate(first)], 1: list(enumerate(second, 50))}
    )
    monkeypatch.setattr(module.KafkaSource, "of", lambda settings: made)
    return made


def run(directory: Path, **wanted: Any) -> ArchiveOutcome:
    return archive(SETTINGS, directory, lambda text: None, **wanted)


def source(directory: Path) -> ArchiveSource:
    manifest = read(directory)
    assert manifest is not None
    return ArchiveSource(str(directory), manifest)


def listed_files(directory: Path) -> list[str]:
    manifest = read(directory)
    assert manifest is not None
    return sorted(file.path for file in manifest.files)


def files_on_disk(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.parquet"))


def fold(read_from: Source, directory: Path, before: Path | None = None, **limits: Any) -> Path:
    """A folded history as a retrain stores it."""
    directory.mkdir()
    resume_point = None
    if before is not None:
        resume_point = newest([before], read_from, SETTINGS)
        assert isinstance(resume_point, ResumePoint)
    ranges = plan(read_from, resume_point, **limits)
    local.fold(read_from, ranges, SETTINGS, directory, lambda offset_range: None)
    write_about(directory, read_from, SETTINGS, ranges, resume_point)
    return directory


def histories(directory: Path, kinds: Sequence[str] = ("sample", "user", "state")) -> list[pa.Table]:
    tables = [pq.read_table(path) for path in sorted(directory.glob("*.parquet"))]
    return [
        table.filter(pa.compute.is_in(table["kind"], pa.array(kinds))).drop_columns(list(PEAKS))
        for table in tables
    ]


def test_files_are_sorted_by_day_and_partition_and_listed(tmp_path: Path, topic: Topic) -> None:
    outcome = run(tmp_path / "a")

    assert listed_files(tmp_path / "a") == files_on_disk(tmp_path / "a")
    assert {path.rpartition("/")[0] for path in listed_files(tmp_path / "a")} == {
        f"date=2025-01-0{6 + day}/partition={p}" for day in range(3) for p in (0, 1)
    }
    assert outcome.records == 2504 and outcome.files == 6
    assert outcome.refused == 3 and outcome.kept_whole == 3
    assert outcome.ends == {0: 2009, 1: 550}
    assert sum(path.stat().st_size for path in (tmp_path / "a").rglob("*.parquet")) == outcome.bytes
    assert run(tmp_path / "a").message.endswith("no new records")


def test_archive_reads_back_like_the_topic(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a", max_records=1000)
    run(tmp_path / "a")
    kept = source(tmp_path / "a")

    assert kept.identity() == topic.identity()
    assert kept.bounds() == topic.bounds()
    for p, rows in topic.partitions.items():
        chunks = list(kept.records(OffsetRange(p, *kept.bounds()[p])))
        assert [int(offset) for chunk in chunks for offset in chunk.offsets] == [offset for offset, _ in rows]
    assert kept.nothing_between(0, 400, 401)
    assert not kept.nothing_between(0, 399, 402)


@pytest.mark.parametrize("appended_ms", [UNKNOWN, START + HOUR])
def test_folding_topic_archive_or_both_gives_the_same_bits(
    tmp_path: Path, topic: Topic, appended_ms: int
) -> None:
    topic.appended_ms = appended_ms
    whole = fold(topic, tmp_path / "topic")
    run(tmp_path / "a", until={0: 900, 1: 333})
    part = fold(source(tmp_path / "a"), tmp_path / "part")
    back = fold(topic, tmp_path / "back", before=part, until={0: 1500, 1: 550})
    run(tmp_path / "a")
    again = fold(source(tmp_path / "a"), tmp_path / "again", before=back)
    kept = fold(source(tmp_path / "a"), tmp_path / "kept")

    assert histories(kept) == histories(again) == histories(whole)
    assert histories(kept, ["counts", "alert"]) == histories(whole, ["counts", "alert"])


def test_killed_run_leaves_no_listed_files(
    tmp_path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "a", max_records=500)
    before = listed_files(tmp_path / "a")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("check_read", "_publish"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, step, killed)
            run(tmp_path / "a")
        assert files_on_disk(tmp_path / "a") == before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ArchiveManifest, "save", killed)
        run(tmp_path / "a")
    assert len(files_on_disk(tmp_path / "a")) > len(before)
    assert listed_files(tmp_path / "a") == before

    run(tmp_path / "a", max_records=100)
    assert files_on_disk(tmp_path / "a") == listed_files(tmp_path / "a")
    run(tmp_path / "a")
    fresh = tmp_path / "fresh"
    run(fresh)
    assert histories(fold(source(tmp_path / "a"), tmp_path / "x")) == histories(
        fold(source(fresh), tmp_path / "y")
    )


def test_run_accepts_offsets_that_hold_only_markers(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a")
    files = listed_files(tmp_path / "a")
    topic.ends[1] = 553
    outcome = run(tmp_path / "a")

    assert outcome.ends[1] == 553 and outcome.records == 0
    assert listed_files(tmp_path / "a") == files
    topic.partitions[1].append((553, event(START, "ann")))
    del topic.ends[1]
    assert run(tmp_path / "a").records == 1
    assert histories(fold(source(tmp_path / "a"), tmp_path / "x")) == histories(fold(topic, tmp_path / "y"))


def test_archive_days_never_decrease_and_never_exceed_today(tmp_path: Path, topic: Topic) -> None:
    stamps = [START + 2 * DAY, START, START + 90 * DAY, START + 3 * DAY]
    rows = [(k, event(ms, "ann")) for k, ms in enumerate(stamps)]
    (tmp_path / "w").mkdir()
    write_archive_files({}, MONDAY + 10, OffsetRange(7, 0, 4), Topic({7: rows}).records(OffsetRange(7, 0, 4)), SETTINGS,
                         tmp_path / "w")  # fmt: skip
    part = msgspec.json.decode((tmp_path / "w/partition-0007.json").read_bytes())

    assert [(file["path"][:15], file["rows"]) for file in part["files"]] == [
        ("date=2025-01-08", 2), ("date=2025-01-16", 2)
    ]  # fmt: skip
    assert date.fromordinal(date(1970, 1, 1).toordinal() + MONDAY + 10).isoformat() == "2025-01-16"


def test_records_that_expired_unread_are_reported(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a", until={1: 100})
    topic.expire(1, 130)

    message = "partition 1: the archive ended at offset 100, but the topic begins at 130 now: 30 records expired unread"
    with pytest.raises(PlanError, match=message + ".*--output with a new directory"):
        run(tmp_path / "a")


def test_archive_of_another_topic_is_refused(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a")
    topic.id = "two"

    with pytest.raises(PlanError, match=r"another topic.*'two'.*new directory"):
        run(tmp_path / "a")


def test_directory_with_other_files_is_left_unchanged(tmp_path: Path, topic: Topic) -> None:
    other = tmp_path / "date=2025-01-06/partition=0/part.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")

    with pytest.raises(PlanError, match=r"not empty and not an archive \(it has date=2025-01-06\)"):
        run(tmp_path)
    assert other.read_bytes() == b"mine"


def test_second_concurrent_writer_is_refused(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a", max_records=10)
    lock = os.open(tmp_path / "a/.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    with pytest.raises(BusyError, match="another process is writing"):
        run(tmp_path / "a")
    ended = CliRunner().invoke(main, ["archive", "--engine", "local", "--output", str(tmp_path / "a")])
    assert ended.exit_code == 75 and ended.stderr.startswith("Error: another process is writing")
    os.close(lock)
    assert run(tmp_path / "a").records == 2494


def test_command_prints_the_outcome(tmp_path: Path, topic: Topic) -> None:
    arguments = ["--engine", "local", "--output", str(tmp_path / "a"), "--max-events", "1000"]
    first = CliRunner().invoke(main, ["archive", *arguments, "--json"])
    second = CliRunner().invoke(main, ["archive", *arguments])

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert msgspec.json.decode(first.stdout)["records"] == 999  # one of the 1,000 offsets has no record
    held = sum(file.rows for file in source(tmp_path / "a").manifest.files)
    assert f"{tmp_path / 'a'}: {held - 999:,} records in" in second.stdout
    topic.id = "two"
    assert CliRunner().invoke(main, ["archive", *arguments]).exit_code == 65


def test_run_cannot_resume_from_an_archive_that_lacks_records(tmp_path: Path, topic: Topic) -> None:
    whole = fold(topic, tmp_path / "whole")
    early = fold(topic, tmp_path / "early", until={0: 100, 1: 60})
    topic.expire(0, 200)
    run(tmp_path / "a", until={0: 900})

    for before, message in (
        (early, "begins at 200 now: it lacks 100 records"),
        (whole, "run `streamguard archive`"),
    ):
        with pytest.raises(
            PlanError, match=rf"partition 0: the earlier run ended at .*the archive.*{message}"
        ):
            fold(source(tmp_path / "a"), tmp_path / f"{before.name}-on", before=before)


@pytest.mark.parametrize("how", ["gone", "cut", "changed", "other"])
def test_damaged_file_is_reported(tmp_path: Path, topic: Topic, how: str) -> None:
    run(tmp_path / "a")
    kept = source(tmp_path / "a")
    path = tmp_path / "a" / kept.manifest.files[1].path
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "other":
        path.write_bytes((tmp_path / "a" / kept.manifest.files[0].path).read_bytes())
    else:
        data[len(data) // 3] ^= 1
        path.write_bytes(data[:-9] if how == "cut" else data)

    with pytest.raises(PlanError, match=rf"{path.name}.*restore"):
        fold(kept, tmp_path / "x")


def test_damaged_manifest_is_reported(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a")
    path = tmp_path / "a/_manifest.json"
    text = path.read_text()
    twice = msgspec.json.decode(text)
    twice["files"].append(twice["files"][0])
    for damaged in (
        "[]",
        text[:-20],
        msgspec.json.encode(twice).decode(),
        text.replace("date=2025-01-06/", "../", 1),
    ):
        path.write_text(damaged)
        with pytest.raises(ArchiveError, match=r"_manifest\.json is damaged"):
            run(tmp_path / "a")
    path.write_text(text.replace("archive-1", "archive-2"))
    with pytest.raises(ArchiveError, match="format streamguard-archive-2"):
        read(tmp_path / "a")


def test_times_are_converted_to_offsets(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a")
    kept = source(tmp_path / "a")

    assert kept.at_time(START) == {0: 0, 1: 50}
    assert kept.at_time(START + 100_000 * 1000)[0] == 1006
    assert kept.at_time(START + 30 * DAY) == {0: 2009, 1: 550}


def test_empty_archive_is_reported(tmp_path: Path) -> None:
    ArchiveManifest("streamguard-archive-1", {}).save(tmp_path)

    with pytest.raises(PlanError, match="the archive is empty"):
        source(tmp_path).bounds()


def test_common_parquet_readers_read_the_archive(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a")
    root = str(tmp_path / "a")
    glob = f"{root}/date=*/partition=*/*.parquet"
    days: dict[str, int] = {}
    for file in source(tmp_path / "a").manifest.files:
        days[file.date] = days.get(file.date, 0) + file.rows

    arrow = ds.dataset(root, partitioning="hive").to_table()
    assert arrow.num_rows == 2504 and set(arrow["partition"].to_pylist()) == {0, 1}
    pandas = pd.read_parquet(root)
    assert pandas.groupby("date", observed=True).size().to_dict() == days
    assert pandas["timestamp"].dtype == "datetime64[ms, UTC]"
    duck = duckdb.sql(
        f"select date::varchar, count(*) from read_parquet('{glob}', hive_partitioning=true) group by 1"
    )
    assert dict(duck.fetchall()) == days
    polars = pl.read_parquet(glob, hive_partitioning=True)
    assert polars.filter(pl.col("partition") == 1).height == 500
    assert "raw" in polars.columns and "metadata.hostname" in polars.columns
    single = pq.ParquetFile(tmp_path / "a" / listed_files(tmp_path / "a")[0]).schema_arrow.names
    assert "date" not in single and "partition" not in single


def test_manifest_describes_its_files(tmp_path: Path, topic: Topic) -> None:
    run(tmp_path / "a")
    manifest = read(tmp_path / "a")
    assert manifest is not None
    first = manifest.files[0]

    assert isinstance(first, ArchiveFile)
    assert (first.partition, first.start, first.date) == (0, 0, "2025-01-06")
    assert first.first_ms == START and first.rows < first.end - first.start
    assert manifest.starts == {0: 0, 1: 50}
