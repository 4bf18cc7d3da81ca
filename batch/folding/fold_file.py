"""The file of a folded partition: its schema, and functions to write and read the rows of each kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamguard.batch.folding.bottom_k import SAMPLED, STORED, TEXTS
from streamguard.batch.folding.summaries import PEAK, SUMMARY

FORMAT = 4
"""Number of the format; a run does not continue a history in another one."""

PEAKS = tuple(f"{name}_bits" for name in PEAK.names or ())
"""Columns of `streamguard.batch.folding.summaries.PEAK`; they belong to one run and are not continued by the next."""

SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("priority", pa.float64()),
        *(pa.field(name, pa.string()) for name in TEXTS),
        *(pa.field(name, pa.float64()) for name in PEAKS),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)
"""Schema of all rows. Each kind of row uses some of the columns:

* `counts`: `value` is the JSON of `streamguard.batch.source.offset_range.Counts`;
* `sample`, `alert`: `offset`, the texts, `priority`, the key in `streamguard.batch.folding.bottom_k.BottomKSample`, and
  `value`, the bytes of `STORED` there;
* `user`: `user`, `value`, the bytes of `streamguard.batch.folding.summaries.SUMMARY`, `event_bits` and `incident_bits`,
  and `priority`, a hash of the name: the users with the smallest are a random sample of all users;
* `incident`: `value` is its JSON;
* `state`: `key` and `value`, as in a worker's changelog.

The rows of each kind follow each other; users are sorted by name. The next run continues from the rows of the kinds
`sample`, `user` and `state`.
"""

ROWS_A_BATCH = 16_384
"""Maximum number of rows that are written or read at a time."""


def batches(partition: int, kind: str, **values: Any) -> Iterator[pa.RecordBatch]:
    """Rows of one kind; columns without given values are null."""
    for a in range(0, len(next(iter(values.values()))), ROWS_A_BATCH):
        arrays = {
            name: pa.array(some[a : a + ROWS_A_BATCH], SCHEMA.field(name).type)
            for name, some in values.items()
        }
        n = len(next(iter(arrays.values())))
        arrays["kind"] = pa.array([kind] * n, pa.string())
        arrays["partition"] = pa.array(np.full(n, partition), pa.int32())
        yield pa.RecordBatch.from_arrays(
            [arrays.get(field.name, pa.nulls(n, field.type)) for field in SCHEMA], schema=SCHEMA
        )


def sample_batches(
    partition: int, kind: str, rows: NDArray[Any], texts: NDArray[np.object_]
) -> Iterator[pa.RecordBatch]:
    """Rows of kind `sample` or `alert`, from `SAMPLED` (n,) and texts (n, 3)."""
    for a in range(0, len(rows), ROWS_A_BATCH):
        some = rows[a : a + ROWS_A_BATCH]
        stored = np.empty(len(some), STORED)
        for name in STORED.names or ():
            stored[name] = some[name]
        named = {name: texts[a : a + ROWS_A_BATCH, k] for k, name in enumerate(TEXTS)}
        yield from batches(
            partition, kind, offset=some["offset"], priority=some["key"], value=_values(stored), **named
        )


def user_batches(
    partition: int,
    users: list[str],
    peaks: NDArray[Any],
    records: NDArray[Any],
    rows: NDArray[np.int64],
) -> Iterator[pa.RecordBatch]:
    """Rows of kind `user`: names, `PEAK` (n,), and the place of each user in `records`, `SUMMARY` (m,)."""
    for a in range(0, len(users), ROWS_A_BATCH):
        names = users[a : a + ROWS_A_BATCH]
        yield from batches(
            partition,
            "user",
            user=names,
            event_bits=peaks["event"][a : a + ROWS_A_BATCH],
            incident_bits=peaks["incident"][a : a + ROWS_A_BATCH],
            priority=[_hashed(name) for name in names],
            value=_values(records[rows[a : a + ROWS_A_BATCH]]),
        )


def _hashed(name: str) -> float:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return float(int.from_bytes(digest, "big"))


def _values(records: NDArray[Any]) -> pa.Array:
    """The bytes of each record, without a copy."""
    ends = np.arange(len(records) + 1, dtype=np.int32) * records.dtype.itemsize
    return pa.Array.from_buffers(
        pa.binary(), len(records), [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(records))]
    )


def parts(
    file: str | Path, kinds: tuple[str, ...], columns: list[str] | None = None
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Read rows of some kinds, a bounded number of rows of one kind at a time.

    Parameters
    ----------
    columns
        Columns to read in addition to the kind; None means all.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, page_checksum_verification=True) as table:
        groups = [k for k in range(table.num_row_groups) if _may_have(table.metadata.row_group(k), kinds)]
        wanted = None if columns is None else ["kind", *columns]
        for batch in table.iter_batches(ROWS_A_BATCH, row_groups=groups, columns=wanted):
            found = batch["kind"].to_numpy(zero_copy_only=False)
            for kind in kinds:
                if (here := found == kind).any():
                    yield kind, batch if here.all() else batch.filter(pa.array(here))


def _may_have(group: Any, kinds: tuple[str, ...]) -> bool:
    statistics = group.column(SCHEMA.get_field_index("kind")).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= kind <= statistics.max for kind in kinds)


def sample_rows(batch: pa.RecordBatch) -> NDArray[Any]:
    """Decode rows of kind `sample` or `alert` as `SAMPLED` (n,)."""
    stored = np.frombuffer(b"".join(batch["value"].to_pylist()), STORED)
    rows = np.empty(len(stored), SAMPLED)
    rows["key"] = batch["priority"].to_numpy()
    for name in STORED.names or ():
        rows[name] = stored[name]
    return rows


def sample_texts(batch: pa.RecordBatch) -> NDArray[np.object_]:
    """Texts (n, 3) of rows of kind `sample` or `alert`."""
    texts = np.empty((batch.num_rows, len(TEXTS)), object)
    for k, name in enumerate(TEXTS):
        texts[:, k] = batch[name].to_pylist()
    return texts


def user_records(batch: pa.RecordBatch) -> NDArray[Any]:
    """Decode rows of kind `user` as `SUMMARY` (n,)."""
    return np.frombuffer(b"".join(batch["value"].to_pylist()), SUMMARY)
