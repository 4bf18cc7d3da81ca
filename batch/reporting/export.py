"""Writes the Parquet files of a run: kept events as training data, and users with their features."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamguard.batch.detection.assessment import Assessment, pattern_names
from streamguard.batch.detection.users import UserAssessment
from streamguard.batch.folding.fold_result import UserTable, no_users
from streamguard.batch.folding.summaries import SUMMARY_COLUMNS
from streamguard.events.subject import shown
from streamguard.fold.features import NAMES

if TYPE_CHECKING:
    import pyarrow as pa

PARTITION_KEY = "anomaly"
"""The directories are `anomaly=0` and `anomaly=1`; the column in the files is `is_anomaly`.

Readers turn the key of a path into a column, which conflicts with a column of the same name in the file: below
`is_anomaly=1/`, `pandas.read_parquet` refuses the directory with any type of the column, and a pyarrow dataset and
Polars require an int32. With two names, every reader can read each file alone, and a reader of one kind of events opens
one directory.
"""

_COMPRESSION = "zstd"


def training_data(assessment: Assessment, training: NDArray[np.bool_], directory: Path) -> None:
    """Write `anomaly=0/part-0.parquet` and `anomaly=1/part-0.parquet`; the same assessment gives the same bytes.

    Columns: partition, offset, timestamp (UTC), user, event_type, source_ip, the 34 features, score, tail_bits,
    forest_bits, evidence_bits, risk, patterns (names), is_sampled (true for the uniform sample; the other rows are the
    alerts with the strongest evidence), is_training, is_anomaly. A file without rows has all columns, too.

    Parameters
    ----------
    assessment
        The assessed events.
    training
        bool, for the rows of the sample in their order: whether the row is a training row.
    directory
        Output directory; it is created if missing.
    """
    import pyarrow as pa

    rows = assessment.rows
    is_training = np.zeros(len(rows), bool)
    is_training[assessment.sampled] = training
    table = pa.table(
        {
            "partition": pa.array(rows.partition, pa.int32()),
            "offset": pa.array(rows.offset, pa.int64()),
            "timestamp": _time(rows.timestamp),
            "user": pa.array([shown(one) for one in rows.user], pa.string()),
            "event_type": pa.array(rows.event_type, pa.string()),
            "source_ip": pa.array(rows.source, pa.string()),
            **_features(rows.features),
            "score": pa.array(rows.score),
            "tail_bits": pa.array(rows.tail),
            "forest_bits": pa.array(assessment.forest),
            "evidence_bits": pa.array(assessment.evidence),
            "risk": pa.array(assessment.risk),
            "patterns": pa.array(
                [pattern_names(bits) for bits in rows.patterns.tolist()], pa.list_(pa.string())
            ),
            "is_sampled": pa.array(assessment.sampled),
            "is_training": pa.array(is_training),
            "is_anomaly": pa.array(assessment.alerted),
        }
    )
    for value in (0, 1):
        _write(
            table.filter(pa.array(assessment.alerted == bool(value))),
            directory / f"{PARTITION_KEY}={value}",
        )


def features(tables: Iterable[tuple[UserTable, UserAssessment]], partition: int, directory: Path) -> None:
    """Write the file of a partition, with one row per user; the same users give the same bytes.

    Columns: user, partition, the 34 features of the last event, their means over all events (mean_NAME), the
    summary (total_events to last_seen), peer_group, peer_distance, peer_bits, small_group (null without peer groups),
    evidence_bits, risk, is_anomaly.

    Parameters
    ----------
    tables
        The users of the partition in tables of a limited size; each table is written before the next one is read.
    partition
        Number of the partition.
    directory
        Output directory; it is created if missing.
    """
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    empty = _user_table(no_users(), None)
    with pq.ParquetWriter(
        directory / f"part-{partition}.parquet", empty.schema, compression=_COMPRESSION
    ) as writer:
        for users, found in tables:
            writer.write_table(_user_table(users, found))


def _user_table(users: UserTable, found: UserAssessment | None) -> pa.Table:
    import pyarrow as pa

    n = len(users)
    nothing = np.zeros(n)
    peers = None if found is None else found.peers
    summary = {
        name: _time(users.summary[name]) if name.endswith("_seen") else pa.array(users.summary[name].copy())
        for name in SUMMARY_COLUMNS.names or ()
    }
    groups: dict[str, Any] = {
        "peer_group": pa.nulls(n, pa.int32()) if peers is None else pa.array(peers.group),
        "peer_distance": pa.nulls(n, pa.float64()) if peers is None else pa.array(peers.distance),
        "peer_bits": pa.nulls(n, pa.float64()) if peers is None else pa.array(peers.bits),
        "small_group": pa.nulls(n, pa.bool_()) if peers is None else pa.array(peers.small),
    }
    return pa.table(
        {
            "user": pa.array([shown(one) for one in users.user], pa.string()),
            "partition": pa.array(users.partition, pa.int32()),
            **_features(users.features),
            **_features(users.usual, "mean_"),
            **summary,
            **groups,
            "evidence_bits": pa.array(nothing if found is None else found.evidence),
            "risk": pa.array(nothing if found is None else found.risk),
            "is_anomaly": pa.array(nothing.astype(bool) if found is None else found.at_risk),
        }
    )


def _features(matrix: NDArray[Any], prefix: str = "") -> dict[str, Any]:
    import pyarrow as pa

    return {prefix + name: pa.array(np.ascontiguousarray(matrix[:, k])) for k, name in enumerate(NAMES)}


def _time(ms: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    return pa.array(np.ascontiguousarray(ms), pa.timestamp("ms", tz="UTC"))


def _write(table: pa.Table, directory: Path) -> None:
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / "part-0.parquet", compression=_COMPRESSION)
