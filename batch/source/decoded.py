"""Converts records to decoded columns, and columns back to records with the same score, to the bit.

Columns have the names of `streamguard.history.fields`. Fields that are not scored are left out, except for the event's
id. If the columns do not reproduce the same event, or the same refusal, the record's bytes are kept beside them. Each
row is decoded again before it is written to check this, so the guarantee holds for every record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamguard.events.ceiling import UNKNOWN
from streamguard.events.decision import Decision, decoded
from streamguard.events.event import Event, Value, Withheld, parse

_ID = "event_id"
_RAW = "raw"
_APPENDED = "appended"
_WITHHELD = "withheld"
_DECISION = "decision"


def _columns() -> tuple[dict[str, pa.DataType], dict[str, type[msgspec.Struct]]]:
    """Arrow type of every scored column, in the order of `Event`, and the struct of every group of fields."""
    columns: dict[str, pa.DataType] = {}
    groups: dict[str, type[msgspec.Struct]] = {}
    for name, kind in get_type_hints(Event).items():
        group = next((part for part in get_args(kind) if hasattr(part, "__struct_fields__")), None)
        if group is not None:
            groups[name] = msgspec.defstruct(
                group.__name__, [], bases=(group,), frozen=True, omit_defaults=True
            )
            columns |= {f"{name}.{k}": _arrow_type(t) for k, t in get_type_hints(group).items()}
        else:
            columns[name] = pa.timestamp("ms", tz="UTC") if name == "timestamp" else _arrow_type(kind)
    return columns, groups


def _arrow_type(kind: Any) -> pa.DataType:
    parts = get_args(kind) or (kind,)
    return pa.string() if str in parts else pa.bool_() if bool in parts else pa.float64()


_SCORED, _GROUPS = _columns()

SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        *(pa.field(name, kind) for name, kind in _SCORED.items()),
        pa.field(_ID, pa.string()),
        pa.field(_RAW, pa.binary()),
        pa.field(_APPENDED, pa.timestamp("ms", tz="UTC")),
        pa.field(_WITHHELD, pa.string()),
        pa.field(_DECISION, pa.string()),
    ]
)
"""One row per record: its offset, the event's columns (null where absent), `raw`, `appended`, `withheld`, `decision`.

`raw` has the record's bytes if the columns do not contain everything that is scored. A refused record has only its
offset and `raw`; a record without a value has only its offset. `appended` is the time at which a broker appended the
record; it is null where the sender has set the record's time, and archives of version 0.1.0 do not have the column.

A batch that cannot be read is one row with its last offset. Its `withheld` is a JSON document: the reason, its detail,
the first offset, and size and digest of the batch, of which `raw` has the first bytes. It is null in all other rows,
and archives of version 0.1 do not have the column.

`decision` is the JSON of a decision whose signature was valid when it was archived; it is null in all other rows, and
archives of version 0.1 do not have the column.
"""


class _Document(Event, omit_defaults=True):
    event_id: str | None = None


class _Withheld(msgspec.Struct):
    """What `Withheld` has beside its head and its last offset."""

    reason: str
    detail: str
    first: int
    size: int
    sha256: str


class _Identified(msgspec.Struct, gc=False):
    event_id: str | None = None


_identified = msgspec.json.Decoder(_Identified).decode
_lines = msgspec.json.Encoder().encode_lines


def to_columns(
    offsets: NDArray[np.int64],
    values: Sequence[Value],
    append_ms: NDArray[np.int64] | None = None,
) -> pa.RecordBatch:
    """Decode records.

    Parameters
    ----------
    offsets
        int64 (n,).
    values
        Values of the n records.
    append_ms
        int64 (n,): append times, 0 where unknown; None if all are unknown.

    Returns
    -------
    RecordBatch
        n rows of `SCHEMA`, which `to_values` converts to records with the same score.

    Examples
    --------
    >>> rows = to_columns(np.arange(2), [b'{"timestamp": 1.7e9, "user": "ann", "event_type": "login", "x": 1}', b"?"])
    >>> rows["user"].to_pylist(), rows["raw"].to_pylist()
    (['ann', None], [None, b'?'])
    >>> to_values(rows)
    [b'{"timestamp":1700000000000,"event_type":"login","user":"ann"}', b'?']
    """
    events, index, _, _ = parse(values)
    columns = dict(_scored(events))
    columns[_ID] = pa.array([_id_of(values[i]) for i in index], pa.string())
    decoded = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    again, places, _, _ = parse(_documents(decoded))
    kept = [
        value.head if isinstance(value, Withheld) else None if isinstance(value, Decision) else value
        for value in values
    ]
    for place, event in zip(places, again, strict=True):
        if event == events[place]:
            kept[index[place]] = None
    if len(index) < len(values):
        rows = np.full(len(values), -1)
        rows[index] = np.arange(len(index))
        decoded = decoded.take(pa.array(rows, mask=rows < 0))
    times = np.full(len(offsets), UNKNOWN) if append_ms is None else append_ms
    appended = pa.array(times, SCHEMA.field(_APPENDED).type, mask=times == UNKNOWN)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(offsets, pa.int64()),
            *decoded.columns,
            pa.array(kept, pa.binary()),
            appended,
            pa.array([_described(value) for value in values], pa.string()),
            pa.array([v.encoded() if isinstance(v, Decision) else None for v in values], pa.string()),
        ],
        schema=SCHEMA,
    )


def to_values(batch: pa.RecordBatch) -> list[Value]:
    """Values from rows of `SCHEMA`: `withheld` ones, the bytes in `raw`, or else a JSON document of the columns."""
    values: list[Value] = _documents(batch)  # type: ignore[assignment]
    raw, withheld = batch[_RAW], _withheld(batch)
    for k in np.flatnonzero(~_filled(batch["timestamp"]) | _filled(raw)).tolist():
        values[k] = raw[k].as_py()
    for k, entry in withheld.items():
        last = batch["offset"][k].as_py()
        values[k] = Withheld(
            entry.reason, entry.detail, raw[k].as_py(), entry.size, entry.sha256, entry.first, last
        )
    if _DECISION in batch.schema.names:
        decisions = batch[_DECISION]
        for k in np.flatnonzero(_filled(decisions)).tolist():
            values[k] = decoded(decisions[k].as_py().encode())
    return values


def first_offsets(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """First offset that every row stands for: its own, or that of the batch that cannot be read."""
    offsets: NDArray[np.int64] = batch["offset"].to_numpy()
    withheld = _withheld(batch)
    if withheld:
        offsets = offsets.copy()
        offsets[list(withheld)] = [entry.first for entry in withheld.values()]
    return offsets


def append_times(batch: pa.RecordBatch) -> NDArray[np.int64] | None:
    """Append time of every row's record, 0 where unknown; None in archives that do not contain them."""
    if _APPENDED not in batch.schema.names:
        return None
    times: NDArray[np.int64] = batch[_APPENDED].cast(pa.int64()).fill_null(UNKNOWN).to_numpy()
    return times


def _described(value: Value) -> str | None:
    if not isinstance(value, Withheld):
        return None
    about = _Withheld(value.reason, value.detail, value.first, value.size, value.sha256)
    return msgspec.json.encode(about).decode()


def _withheld(batch: pa.RecordBatch) -> dict[int, _Withheld]:
    """What is stored of batches that could not be read, by row."""
    if _WITHHELD not in batch.schema.names or batch[_WITHHELD].null_count == len(batch):
        return {}
    cells = batch[_WITHHELD]
    rows = np.flatnonzero(_filled(cells)).tolist()
    return {k: msgspec.json.decode(cells[k].as_py(), type=_Withheld) for k in rows}


def _scored(events: Sequence[Event]) -> Iterator[tuple[str, pa.Array]]:
    for name in Event.__struct_fields__:
        cells = [getattr(event, name) for event in events]
        if name not in _GROUPS:
            yield name, pa.array(cells, _SCORED[name])
            continue
        present = [k for k, part in enumerate(cells) if part is not None]
        rows = np.full(len(cells), -1)
        rows[present] = np.arange(len(present))
        take = pa.array(rows, mask=rows < 0)
        for field in _GROUPS[name].__struct_fields__:
            column = f"{name}.{field}"
            parts = [getattr(cells[k], field) for k in present]
            if field == "response_code":
                parts = [code if code is None else str(code) for code in parts]
            yield column, pa.array(parts, _SCORED[column]).take(take)


def _documents(batch: pa.RecordBatch) -> list[bytes]:
    """JSON of the event of every row."""
    n = batch.num_rows
    fields: list[Sequence[Any]] = []
    for name in Event.__struct_fields__:
        if name in _GROUPS:
            fields.append(_parts(batch, name))
        elif name == "timestamp":
            fields.append(batch[name].cast(pa.int64()).to_pylist())
        else:
            fields.append(_column(batch, name).to_pylist())
    fields.append(batch[_ID].to_pylist())
    return _lines(map(_Document, *fields)).split(b"\n")[:n]


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column; archives of earlier versions lack fields that were scored later, and their events did not have them."""
    return batch[name] if name in batch.schema.names else pa.nulls(batch.num_rows, _SCORED[name])


def _parts(batch: pa.RecordBatch, group: str) -> list[Any]:
    """Struct of a group of fields, for every row; None where all fields of the group are absent."""
    make = _GROUPS[group]
    columns = [_column(batch, f"{group}.{field}") for field in make.__struct_fields__]
    present = np.flatnonzero(np.logical_or.reduce([_filled(column) for column in columns]))
    parts: list[Any] = [None] * batch.num_rows
    cells = [column.take(pa.array(present)).to_pylist() for column in columns]
    if group == "dns_details":
        code = make.__struct_fields__.index("response_code")
        cells[code] = [_code(text) for text in cells[code]]
    for k, part in zip(present.tolist(), map(make, *cells), strict=True):
        parts[k] = part
    return parts


def _code(text: str | None) -> str | int | None:
    """A response code, which is a text or a number; digits are read as a number, because that is more likely."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 16 else text


def _filled(column: pa.Array) -> NDArray[np.bool_]:
    filled: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return filled


def _id_of(value: Value) -> str | None:
    try:
        return _identified(value).event_id  # type: ignore[arg-type]
    except (ValueError, RecursionError):  # an id that is not a text is dropped: it is not scored
        return None
