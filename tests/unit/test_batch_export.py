"""Common Parquet readers find `is_anomaly` and all other columns, in single files and in the directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from streamguard.batch.detection.assessment import Assessment, assess
from streamguard.batch.detection.clusters import peer_groups
from streamguard.batch.folding.fold_result import FoldResult
from streamguard.batch.folding.summaries import SUMMARY_COLUMNS
from streamguard.batch.reporting import export
from streamguard.batch.reporting.users import export_users
from streamguard.fold.features import NAMES
from streamguard.models.train import train
from streamguard.settings.schema import Clusters
from tests.batches import ALERT_BITS, START_MS, detected, fold_result, users_of


@pytest.fixture(scope="module")
def history() -> FoldResult:
    return fold_result()


@pytest.fixture(scope="module")
def findings(history: FoldResult) -> Assessment:
    return assess(history, train(history.sample.features, trees=20), alert_bits=ALERT_BITS)


@pytest.fixture(scope="module")
def directory(findings: Assessment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "training_data"
    export.training_data(findings, training(findings), path)
    return path


def training(findings: Assessment) -> np.ndarray:
    return findings.rows.strength[findings.sampled] < 5.0


def rows(columns: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(partition, offset, is_anomaly) of each row, sorted."""
    return sorted(zip(columns["partition"], columns["offset"], columns["is_anomaly"], strict=True))


def from_frame(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return rows({name: frame[name].tolist() for name in ("partition", "offset", "is_anomaly")})


def from_duckdb(query: str) -> list[tuple[Any, ...]]:
    return sorted(duckdb.sql(f'select partition, "offset", is_anomaly from {query}').fetchall())


WHOLE: dict[str, Callable[[str], list[tuple[Any, ...]]]] = {
    "pandas": lambda path: from_frame(pd.read_parquet(path)),
    "pyarrow table": lambda path: rows(pq.read_table(path).to_pydict()),
    "pyarrow dataset": lambda path: rows(ds.dataset(path).to_table().to_pydict()),
    "pyarrow hive dataset": lambda path: rows(ds.dataset(path, partitioning="hive").to_table().to_pydict()),
    "duckdb": lambda path: from_duckdb(f"'{path}/*/*.parquet'"),
    "duckdb hive": lambda path: from_duckdb(f"read_parquet('{path}/*/*.parquet', hive_partitioning=true)"),
    "duckdb plain": lambda path: from_duckdb(f"read_parquet('{path}/*/*.parquet', hive_partitioning=false)"),
    "polars": lambda path: rows(pl.read_parquet(path).to_dict(as_series=False)),
    "polars hive": lambda path: rows(pl.read_parquet(path, hive_partitioning=True).to_dict(as_series=False)),
    "polars plain": lambda path: rows(
        pl.read_parquet(path, hive_partitioning=False).to_dict(as_series=False)
    ),
    "polars files": lambda path: rows(pl.read_parquet(f"{path}/*/*.parquet").to_dict(as_series=False)),
    "polars scan": lambda path: rows(pl.scan_parquet(path).collect().to_dict(as_series=False)),
}

SINGLE: dict[str, Callable[[str], list[tuple[Any, ...]]]] = {
    "pandas": WHOLE["pandas"],
    "pyarrow table": WHOLE["pyarrow table"],
    "pyarrow file": lambda path: rows(pq.ParquetFile(path).read().to_pydict()),
    "pyarrow dataset": WHOLE["pyarrow dataset"],
    "pyarrow hive dataset": WHOLE["pyarrow hive dataset"],
    "duckdb": lambda path: from_duckdb(f"'{path}'"),
    "duckdb hive": lambda path: from_duckdb(f"read_parquet('{path}', hive_partitioning=true)"),
    "duckdb plain": lambda path: from_duckdb(f"read_parquet('{path}', hive_partitioning=false)"),
    "polars": WHOLE["polars"],
    "polars hive": WHOLE["polars hive"],
    "polars plain": WHOLE["polars plain"],
}


def expected(findings: Assessment) -> list[tuple[Any, ...]]:
    table = findings.rows
    return list(zip(table.partition.tolist(), table.offset.tolist(), findings.alerted.tolist(), strict=True))


@pytest.mark.parametrize("reader", WHOLE)
def test_reader_reads_the_directory(reader: str, directory: Path, findings: Assessment) -> None:
    assert WHOLE[reader](str(directory)) == expected(findings)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("reader", SINGLE)
def test_reader_reads_a_single_file(reader: str, value: int, directory: Path, findings: Assessment) -> None:
    found = SINGLE[reader](str(directory / f"anomaly={value}" / "part-0.parquet"))
    assert found == [row for row in expected(findings) if row[2] == bool(value)] != []


@pytest.mark.integration
def test_spark_reads_the_directory_and_single_files(
    directory: Path, findings: Assessment, spark: Any
) -> None:
    def read(path: Path) -> list[tuple[Any, ...]]:
        frame = spark.read.parquet(str(path)).select("partition", "offset", "is_anomaly")
        return sorted(tuple(row) for row in frame.collect())

    assert read(directory) == expected(findings)
    for value in (0, 1):
        wanted = [row for row in expected(findings) if row[2] == bool(value)]
        assert read(directory / f"anomaly={value}" / "part-0.parquet") == wanted


def test_all_columns_are_written(directory: Path, findings: Assessment) -> None:
    frame = pd.read_parquet(directory).sort_values(["partition", "offset"], ignore_index=True)
    table = findings.rows
    assert list(frame.columns) == [
        *("partition", "offset", "timestamp", "user", "event_type", "source_ip"),
        *NAMES,
        *("score", "tail_bits", "forest_bits", "evidence_bits", "risk", "patterns"),
        *("is_sampled", "is_training", "is_anomaly", "anomaly"),
    ]
    assert np.array_equal(frame[list(NAMES)].to_numpy(np.float32), table.features)
    assert frame["timestamp"].iloc[0] == pd.Timestamp(
        START_MS + 1000 * int(table.offset[0]), unit="ms", tz="UTC"
    )
    assert frame["evidence_bits"].tolist() == findings.evidence.tolist()
    assert frame["user"].tolist() == table.user.tolist()
    with_patterns = frame["patterns"][np.flatnonzero(table.patterns)[0]]
    assert list(with_patterns) == ["brute_force", "password_spray"]
    assert frame["is_sampled"].tolist() == findings.sampled.tolist()
    assert frame["is_training"].sum() == training(findings).sum()
    assert not (frame["is_training"] & ~frame["is_sampled"]).any()


def test_readers_find_both_directories_without_alerts(findings: Assessment, tmp_path: Path) -> None:
    quiet = replace(findings, alerted=np.zeros(len(findings.rows), bool))
    export.training_data(quiet, training(findings), tmp_path)
    for reader in WHOLE.values():
        assert reader(str(tmp_path)) == expected(quiet)
    assert len(pd.read_parquet(tmp_path / "anomaly=1")) == 0


def test_same_findings_give_the_same_bytes(findings: Assessment, history: FoldResult, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export.training_data(findings, training(findings), tmp_path / name)
        export_users(history, detected(history, None, None), tmp_path / name / "features")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.parquet"))
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_user_files_have_features_summary_and_peers(history: FoldResult, tmp_path: Path) -> None:
    users = users_of(history)
    groups = peer_groups(users.usual, Clusters(), seed=0)
    peers = groups.assign(users.usual)
    export_users(history, detected(history, None, groups), tmp_path)
    frame = pd.read_parquet(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-0.parquet", "part-1.parquet"]
    assert list(frame.columns) == [
        *("user", "partition"),
        *NAMES,
        *(f"mean_{name}" for name in NAMES),
        *(SUMMARY_COLUMNS.names or ()),
        *("peer_group", "peer_distance", "peer_bits", "small_group", "evidence_bits", "risk", "is_anomaly"),
    ]
    assert frame["user"].tolist() == users.user.tolist()
    assert frame["peer_group"].tolist() == peers.group.tolist()
    assert np.array_equal(frame[[f"mean_{name}" for name in NAMES]].to_numpy(), users.usual)
    assert frame["first_seen"][0] == pd.Timestamp(START_MS, unit="ms", tz="UTC")
    assert frame["total_events"].tolist() == [25] * len(frame)


def test_peer_columns_are_empty_without_peer_groups(history: FoldResult, tmp_path: Path) -> None:
    export_users(history, detected(history, None, None), tmp_path)
    frame = pd.read_parquet(tmp_path)
    assert frame[["peer_group", "peer_distance", "peer_bits", "small_group"]].isna().all(axis=None)
