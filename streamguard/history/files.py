"""Reads events from a file or standard input in batches: JSON lines, CSV (RFC 4180) or Parquet.

A row of CSV or Parquet is converted to the JSON document that a topic would contain. The same parser then reads it,
so a file and a topic give the same verdicts.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from streamguard.errors import DataError
from streamguard.events.event import Event, Refusal, RepairedEvent, parse
from streamguard.history.fields import RowMap
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.text import counted

BATCH_ROWS = 4096
BATCH_BYTES = 32_000_000
FORMATS = ("jsonl", "csv", "parquet")
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_BOM = b"\xef\xbb\xbf"

NOT_CSV = "not_csv"
"""Reason for a refusal that only CSV files have, in addition to `streamguard.events.event.REASONS`."""


class HistoryError(DataError):
    """The events cannot be read. The message contains the file, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows.

    Attributes
    ----------
    first
        Number of the first row in the file, from 1. The line of column names and blank lines do not count.
    lines
        Number of the line, from 1, at which each row begins; in Parquet the number of the row.
    values
        Each row as a JSON document; None for a row that could not be read.
    events, index, refused, repaired
        Result of `streamguard.events.event.parse` for `values`.
    extra
        Requested column -> its value in each row; None for an empty cell.
    """

    first: int
    lines: Sequence[int]
    values: list[bytes | None]
    events: list[Event]
    index: list[int]
    refused: list[Refusal]
    repaired: list[RepairedEvent]
    extra: dict[str, list[Any]]

    def where(self, refusal: Refusal) -> str:
        """Number of a refused row, and the number of its line if it is different."""
        row, line = self.first + refusal.index, self.lines[refusal.index]
        return f"row {row}" if row == line else f"row {row} (line {line})"


def read(
    source: str,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
    optional: Sequence[str] = (),
    rows: int = BATCH_ROWS,
) -> Iterator[Batch]:
    """Read events in bounded memory.

    Parameters
    ----------
    source
        Path of a file, or `-` for standard input.
    format
        One of `FORMATS`; None means the format of the file's extension, and JSON lines for standard input.
    columns
        Event field -> column of CSV or Parquet. Other columns with the name of a field, dotted (`metadata.hostname`)
        or bare (`hostname`), need no entry. All remaining columns are ignored.
    extra
        Columns (in JSON lines: top-level fields) to return in `Batch.extra`.
    optional
        Further columns to return if the file has them.
    rows
        Maximum number of rows in a batch.

    Raises
    ------
    HistoryError
        If the source cannot be opened, does not have its format, or has no column for a required field.
    """
    format = format or _format_of(source)
    if format == "jsonl" and columns:
        raise HistoryError("--map is for CSV and Parquet: JSON lines have fields, not columns")
    if format == "parquet" and source == "-":
        raise HistoryError(
            "Parquet cannot be read from standard input: give a file, or send JSON lines or CSV"
        )
    name = "standard input" if source == "-" else source
    with ExitStack() as stack, _readable(name):
        file: BinaryIO = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
        if format == "jsonl":
            yield from _json_lines(file, (*extra, *optional), rows)
        elif format == "csv":
            yield from _csv(file, name, columns or {}, extra, optional, rows)
        else:
            yield from _parquet(file, name, columns or {}, extra, optional, rows)


def check(source: str) -> None:
    """Check that a source can be opened and that its format is known, without reading it.

    Parameters
    ----------
    source
        Path of a file, or `-` for standard input.

    Raises
    ------
    HistoryError
        If the source cannot be opened, or its extension is not that of a format.
    """
    _format_of(source)
    if source == "-":
        return
    with _readable(source):
        if not Path(source).is_fifo():  # the writer of a pipe would take the check for its reader
            Path(source).open("rb").close()


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HistoryError(f"cannot read {name}: {error.strerror or error}") from None


def _format_of(source: str) -> str:
    if source == "-":
        return "jsonl"
    ending = Path(source).suffix.lower()
    if ending not in ENDINGS:
        raise HistoryError(f"{source}: the name must end in {', '.join(ENDINGS)}; otherwise give --format")
    return ENDINGS[ending]


class _Pending:
    """Rows of the next batch."""

    def __init__(self, extra: Sequence[str], rows: int) -> None:
        self._extra = extra
        self._rows = rows
        self._next = 1
        self._clear()

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._values: list[bytes | None] = []
        self._beside: dict[str, list[Any]] = {name: [] for name in self._extra}
        self._failed: dict[int, str] = {}
        self._bytes = 0

    def add(self, line: int, value: bytes, beside: Mapping[str, Any]) -> None:
        self._lines.append(line)
        self._values.append(value)
        self._bytes += len(value)
        for name, cells in self._beside.items():
            cells.append(beside.get(name))

    def add_broken(self, line: int, why: str) -> None:
        self._failed[len(self._values)] = why
        self._lines.append(line)
        self._values.append(None)
        for cells in self._beside.values():
            cells.append(None)

    def batches(self, *, last: bool = False) -> Iterator[Batch]:
        """The rows as a batch, if the batch is full or `last` is set."""
        if not self._values or not (last or len(self._values) >= self._rows or self._bytes >= BATCH_BYTES):
            return
        events, index, refused, repaired = parse(self._values)
        failed = self._failed
        refused = [Refusal(r.index, NOT_CSV, failed[r.index]) if r.index in failed else r for r in refused]
        yield Batch(self._next, self._lines, self._values, events, index, refused, repaired, self._beside)
        self._next += len(self._values)
        self._clear()


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, each cut at the maximum length of an event; the remainder of a longer line is skipped in pieces."""
    limit = MAX_EVENT_BYTES + 2
    line = file.readline(limit).removeprefix(_BOM)
    while line:
        yield line
        while len(line) == limit and not line.endswith(b"\n"):
            line = file.readline(limit)
        line = file.readline(limit)


def _json_lines(file: BinaryIO, extra: Sequence[str], rows: int) -> Iterator[Batch]:
    pending = _Pending(extra, rows)
    for number, line in enumerate(_lines(file), 1):
        value = line.strip(b"\r\n")
        if value.strip():
            pending.add(number, value, _fields(value) if extra else {})
            yield from pending.batches()
    yield from pending.batches(last=True)


def _fields(value: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


UNCLOSED = "unexpected end of data"
"""Message of `csv.Error` if a file ends within quotes."""


def _csv(
    file: BinaryIO,
    where: str,
    mapped: Mapping[str, str],
    extra: Sequence[str],
    optional: Sequence[str],
    rows: int,
) -> Iterator[Batch]:
    csv.field_size_limit(MAX_EVENT_BYTES)
    records = csv.reader((line.decode("utf-8", "surrogateescape") for line in _lines(file)), strict=True)
    try:
        names = next(records, [])
    except csv.Error as error:
        raise HistoryError(f"{where}: the first line must contain the column names: {error}") from None
    if not names:
        raise HistoryError(f"{where} is empty: the first line must contain the column names")
    row_map = _row_map(names, mapped, extra, where)
    beside = [(name, names.index(name)) for name in (*extra, *optional) if name in names]
    pending = _Pending((*extra, *optional), rows)
    while True:
        line = records.line_num + 1
        try:
            cells = next(records)
            if not cells:
                continue
            if len(cells) != len(names):
                raise csv.Error(f"{counted(len(cells), 'cell')}, but {counted(len(names), 'column')}")
            pending.add(line, row_map.document(cells), {name: cells[k] or None for name, k in beside})
        except StopIteration:
            break
        except csv.Error as error:
            if records.line_num - line > 1 and str(error) == UNCLOSED:
                raise HistoryError(
                    f"{where}: a quote opened in line {line} is never closed: close it; the rest of the file cannot"
                    " be read"
                ) from None
            pending.add_broken(line, str(error))
        yield from pending.batches()
    yield from pending.batches(last=True)


def _parquet(
    file: BinaryIO,
    where: str,
    mapped: Mapping[str, str],
    extra: Sequence[str],
    optional: Sequence[str],
    rows: int,
) -> Iterator[Batch]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise HistoryError(
            f"{where}: Parquet needs pyarrow: pip install '.[batch]' in StreamGuard's checkout, or give CSV"
        ) from None
    pending = _Pending((*extra, *optional), rows)
    number = 0
    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.empty_table().flatten().column_names
        fed = _row_map(names, mapped, extra, where).columns
        row_map = RowMap(fed, mapped)
        beside = [name for name in (*extra, *optional) if name in names]
        wanted = fed + [name for name in beside if name not in fed]
        for batch in table.iter_batches(rows, columns=wanted):
            flat = arrow.Table.from_batches([batch]).flatten()
            cells = [_cells(arrow, flat.column(name)) for name in wanted]
            for row in zip(*cells, strict=True):
                number += 1
                pending.add(number, row_map.document(row), {name: row[wanted.index(name)] for name in beside})
                yield from pending.batches()
    except HistoryError:
        raise
    except (arrow.ArrowException, ValueError, OverflowError) as error:
        raise HistoryError(f"{where} cannot be read as Parquet: {error}") from None
    yield from pending.batches(last=True)


def _row_map(names: Sequence[str], mapped: Mapping[str, str], extra: Sequence[str], where: str) -> RowMap:
    try:
        for name in extra:
            if name not in names:
                raise ValueError(f"there is no column {name!r}; the columns are {', '.join(names)}")
        for field, column in mapped.items():
            if column in extra and field != "event_id":
                raise ValueError(
                    f"column {column!r} is a label and cannot be the event's {field}: map another column"
                )
        return RowMap(names, mapped)
    except ValueError as error:
        raise HistoryError(f"{where}: {error}") from None


def _cells(arrow: Any, column: Any) -> list[Any]:
    """The cells of a column as Python's types: texts, and UTC times with microseconds.

    Bytes that are no UTF-8 are escaped in their cell, as in CSV, so that only this cell is repaired.
    """
    kind = column.type
    if str(kind).removeprefix("large_") in ("string", "binary"):
        raw = column.cast(arrow.large_binary()).to_pylist()
        return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in raw]
    if arrow.types.is_date(kind):
        column = column.cast(arrow.timestamp("us"))
    elif arrow.types.is_timestamp(kind):
        column = column.cast(arrow.timestamp("us", "UTC" if kind.tz else None), safe=False)
    found: list[Any] = column.to_pylist()
    return found
