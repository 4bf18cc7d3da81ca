"""The file of a folded partition: its schema, and functions to write and read the rows of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamguard.alerts.incident import decode
from streamguard.batch.folding.bottom_k import SAMPLED, TEXTS
from streamguard.batch.folding.fold_result import EventTable, FoldResult, UserTable
from streamguard.batch.folding.summaries import SUMMARY, columns
from streamguard.batch.source.offset_range import Counts
from streamguard.history.incidents import worst_first
from streamguard.state.codec import unpack

SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64()),
        *(pa.field(name, pa.string()) for name in TEXTS),
        pa.field("peak", pa.float64()),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)
"""Schema of all rows. Each kind of row uses some of the columns:

* `counts`: `value` is the JSON of `streamguard.batch.source.offset_range.Counts`;
* `sample`, `alert`: `offset`, the texts, and `value`, the bytes of `streamguard.batch.folding.bottom_k.SAMPLED`;
* `user`: `user`, `value`, the bytes for `Summaries.restore`, and `peak`, the strongest evidence in this run;
* `incident`: `value` is its JSON;
* `state`: `key` and `value`, as in a worker's changelog.

The next run continues from the rows of the kinds `sample`, `user` and `state`.
"""

_ROWS_A_BATCH = 16_384


def batches(partition: int, kind: str, **values: Any) -> Iterator[pa.RecordBatch]:
    """Rows of one kind; columns without given values are null."""
    for a in range(0, len(next(iter(values.values()))), _ROWS_A_BATCH):
        arrays = {
            name: pa.array(some[a : a + _ROWS_A_BATCH], SCHEMA.field(name).type)
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
    for a in range(0, len(rows), _ROWS_A_BATCH):
        some = rows[a : a + _ROWS_A_BATCH]
        ends = np.arange(len(some) + 1, dtype=np.int32) * SAMPLED.itemsize
        value = pa.Array.from_buffers(pa.binary(), len(some), [None, pa.py_buffer(ends), pa.py_buffer(some)])
        named = {name: texts[a : a + _ROWS_A_BATCH, k] for k, name in enumerate(TEXTS)}
        yield from batches(partition, kind, offset=some["offset"], value=value, **named)


def parts(file: str | Path) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Read the rows of a file, a bounded number of rows of one kind at a time."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(_ROWS_A_BATCH):
        kinds = batch["kind"].to_numpy(zero_copy_only=False)
        for kind in np.unique(kinds):
            yield kind, batch.filter(pa.array(kinds == kind))


def sample_rows(batch: pa.RecordBatch | pa.Table) -> NDArray[Any]:
    """Decode rows of kind `sample` or `alert` as `SAMPLED` (n,)."""
    return np.frombuffer(b"".join(batch["value"].to_pylist()), SAMPLED)


def sample_texts(batch: pa.RecordBatch | pa.Table) -> NDArray[np.object_]:
    """Texts (n, 3) of rows of kind `sample` or `alert`."""
    texts = np.empty((batch.num_rows, len(TEXTS)), object)
    for k, name in enumerate(TEXTS):
        texts[:, k] = batch[name].to_pylist()
    return texts


def load(files: Sequence[str | Path], max_rows: int) -> FoldResult:
    """Read the files that an engine wrote, one for each partition.

    Parameters
    ----------
    files
        Files with the schema `SCHEMA`.
    max_rows
        Maximum number of sampled events, over all partitions.
    """
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    table = ds.dataset([str(file) for file in files], format="parquet").to_table(
        filter=ds.field("kind") != "state"
    )
    parts = {
        kind: table.filter(ds.field("kind") == kind)
        for kind in ("counts", "sample", "alert", "user", "incident")
    }
    users = parts["user"]
    records = np.empty(len(users), SUMMARY)
    for k, value in enumerate(users["value"].to_pylist()):
        records[k] = unpack(value, SUMMARY, "a summary")[0]
    by_partition_and_name = [("partition", "ascending"), ("user", "ascending")]
    order = pc.sort_indices(users.select(["partition", "user"]), by_partition_and_name).to_numpy()
    records = records[order]
    counts = [msgspec.json.decode(value, type=Counts) for value in parts["counts"]["value"].to_pylist()]
    incidents = [decode(value) for value in parts["incident"]["value"].to_pylist()]
    return FoldResult(
        sample=_rows(parts["sample"], max_rows),
        alerts=_rows(parts["alert"], None),
        users=UserTable(
            user=np.array(users["user"].to_pylist(), object)[order],
            partition=users["partition"].to_numpy()[order],
            features=np.ascontiguousarray(records["features"]),
            usual=records["feature_sum"] / records["events"][:, None],
            summary=columns(records),
            peak=users["peak"].to_numpy()[order],
        ),
        incidents=worst_first(incidents),
        counts=sorted(counts, key=lambda c: c.partition),
    )


def _rows(part: Any, max_rows: int | None) -> EventTable:
    rows, partition = sample_rows(part), part["partition"].to_numpy()
    selected = np.lexsort((rows["offset"], partition, rows["key"]))[:max_rows]
    selected = selected[np.lexsort((rows["offset"][selected], partition[selected]))]
    rows, texts = rows[selected], sample_texts(part.select(TEXTS).take(selected))
    return EventTable(
        partition[selected],
        rows["offset"],
        rows["timestamp"],
        texts[:, 0],
        texts[:, 1],
        texts[:, 2],
        np.ascontiguousarray(rows["features"]),
        rows["score"],
        rows["tail"],
        rows["strength"],
        rows["patterns"],
        rows["alerted"],
    )
