"""The file of a folded partition: its schema, how rows of each kind are written, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamguard.alerts.incident import decode
from streamguard.batch.folding.bottom_k import KEPT, TEXTS
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
"""EventTable of different kinds share it, each with its own columns:

* `counts`: value, the JSON of `streamguard.batch.folding.fold_result.Counts`;
* `sample`, `alerts`: offset, texts, and value, the bytes of `streamguard.batch.folding.bottom_k.KEPT`;
* `user`: user, value, what `Summaries.restore` takes, and peak, the strongest evidence in this run;
* `incident`: value, its JSON;
* `state`: key and value, as in a worker's changelog.

`counts`, `sample`, `user` and `state` are what the next run goes on from.
"""

_ROWS_A_BATCH = 16_384


def batches(partition: int, kind: str, **values: Any) -> Iterator[pa.RecordBatch]:
    """EventTable of one kind; columns that are not given are null."""
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


def kept_batches(
    partition: int, kind: str, rows: NDArray[Any], texts: NDArray[np.object_]
) -> Iterator[pa.RecordBatch]:
    """EventTable of kind `sample` or `alerts`, of `KEPT` (n,) and texts (n, 3)."""
    for a in range(0, len(rows), _ROWS_A_BATCH):
        some = rows[a : a + _ROWS_A_BATCH]
        ends = np.arange(len(some) + 1, dtype=np.int32) * KEPT.itemsize
        value = pa.Array.from_buffers(pa.binary(), len(some), [None, pa.py_buffer(ends), pa.py_buffer(some)])
        told = {name: texts[a : a + _ROWS_A_BATCH, k] for k, name in enumerate(TEXTS)}
        yield from batches(partition, kind, offset=some["offset"], value=value, **told)


def parts(file: str | Path) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of a file, a bounded number of one kind at a time."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(_ROWS_A_BATCH):
        kinds = batch["kind"].to_numpy(zero_copy_only=False)
        for kind in np.unique(kinds):
            yield kind, batch.filter(pa.array(kinds == kind))


def kept_rows(batch: pa.RecordBatch | pa.Table) -> NDArray[Any]:
    """EventTable of kind `sample` or `alerts` as `KEPT` (n,)."""
    return np.frombuffer(b"".join(batch["value"].to_pylist()), KEPT)


def kept_texts(batch: pa.RecordBatch | pa.Table) -> NDArray[np.object_]:
    """Texts (n, 3) of such rows."""
    texts = np.empty((batch.num_rows, len(TEXTS)), object)
    for k, name in enumerate(TEXTS):
        texts[:, k] = batch[name].to_pylist()
    return texts


def load(files: Sequence[str | Path], max_rows: int) -> FoldResult:
    """Read what an engine has left, a file each partition.

    Parameters
    ----------
    files
        Of `SCHEMA`.
    max_rows
        Of the sample, over all partitions.
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


def _rows(part: Any, most: int | None) -> EventTable:
    rows, partition = kept_rows(part), part["partition"].to_numpy()
    chosen = np.lexsort((rows["offset"], partition, rows["key"]))[:most]
    chosen = chosen[np.lexsort((rows["offset"][chosen], partition[chosen]))]
    rows, texts = rows[chosen], kept_texts(part.select(TEXTS).take(chosen))
    return EventTable(
        partition[chosen],
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
