"""Converts a row of a table into an event: maps columns to event fields, and cells to values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import msgspec

from streamguard.events.event import Event

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def _text(cell: Any) -> Any:
    return str(cell) if isinstance(cell, int | float) else cell


def _status(cell: Any) -> Any:
    return "failed" if cell == "failure" else _text(cell)


def _timestamp(cell: Any) -> Any:
    return cell


def _number(cell: Any) -> Any:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return cell
    return number if math.isfinite(number) else str(cell)


def _boolean(cell: Any) -> Any:
    return _BOOLEANS.get(cell.lower(), cell) if isinstance(cell, str) else cell


def _event_fields() -> dict[str, Callable[[Any], Any]]:
    """Dotted name of every scored field -> function that converts a cell; a wrong cell stays unchanged."""
    kinds: dict[str, Any] = {}
    for name, kind in get_type_hints(Event).items():
        group = next((part for part in get_args(kind) if hasattr(part, "__struct_fields__")), None)
        kinds |= {f"{name}.{k}": t for k, t in get_type_hints(group).items()} if group else {name: kind}
    fields: dict[str, Callable[[Any], Any]] = {"event_id": _text}
    for name, kind in kinds.items():
        parts = get_args(kind) or (kind,)
        fields[name] = _text if str in parts else _boolean if bool in parts else _number
    return fields | {"timestamp": _timestamp, "status": _status}


FIELDS = _event_fields()
"""Name of an event field -> function that converts a cell."""


def field_named(name: str) -> str | None:
    """The event field of a dotted or a bare name; None if no field or several fields have the name.

    Examples
    --------
    >>> field_named("hostname"), field_named("failure_reason"), field_named("is_attack")
    ('metadata.hostname', 'failure_reason', None)
    """
    if name in FIELDS:
        return name
    found = [field for field in FIELDS if field.rpartition(".")[2] == name]
    return found[0] if len(found) == 1 else None


def _separated(names: Sequence[str]) -> str:
    """A hint at another separator than the comma, if the only column looks like several."""
    if len(names) == 1:
        for sign, word in ((";", "semicolons"), ("\t", "tabs")):
            if sign in names[0]:
                return f"; they seem to be separated by {word}: convert the file to commas"
    return ""


class RowMap:
    """Mapping of columns to event fields.

    Parameters
    ----------
    names
        Names of the columns, in order.
    mapped
        Event field -> column. Columns with the name of a field need no entry.

    Raises
    ------
    ValueError
        If a field or column does not exist, two columns map to one field, or a required field has no column.

    Attributes
    ----------
    columns : list of str
        Names of the columns that are mapped to a field.

    Examples
    --------
    >>> RowMap(["when", "user", "event_type"], {"timestamp": "when"}).document(["2024-05-01", "ann", "login"])
    b'{"timestamp":"2024-05-01","user":"ann","event_type":"login"}'
    """

    def __init__(self, names: Sequence[str], mapped: Mapping[str, str]) -> None:
        there = f"the columns are {', '.join(names)}"
        source: dict[str, int] = {}
        for given, column in mapped.items():
            field = field_named(given)
            if field is None:
                raise ValueError(f"{given!r} is not an event field; the event fields are {', '.join(FIELDS)}")
            if column not in names:
                raise ValueError(f"there is no column {column!r} for {field}; {there}")
            source[field] = names.index(column)
        explicit = set(source)
        for k, name in enumerate(names):
            field = field_named(name)
            if field is None or field in explicit:
                continue
            if field in source:
                raise ValueError(
                    f"columns {source[field] + 1} ({names[source[field]]}) and {k + 1} ({name}) both map to the "
                    f"event field {field}: choose one with --map, or rename one"
                )
            source[field] = k
        needed = [name for name in ("timestamp", "event_type") if name not in source]
        if "user" not in source and "source_ip" not in source:
            needed.append("user")
        if needed:
            raise ValueError(
                f"no column maps to {needed[0]}: name a column so, or give --map {needed[0]}=COLUMN to replay or "
                f"evaluate; {there}{_separated(names)}"
            )
        self.columns = [names[k] for k in dict.fromkeys(source.values())]
        self._places: list[tuple[int, str, str, Callable[[Any], Any]]] = []
        for field, k in source.items():
            group, _, name = field.rpartition(".")
            self._places.append((k, group, name, FIELDS[field]))

    def document(self, cells: Sequence[Any]) -> bytes:
        """The event of a row as JSON, without empty cells. The row has one cell for each column."""
        document: dict[str, Any] = {}
        for k, group, name, convert in self._places:
            cell = cells[k]
            if cell is None or cell == "":
                continue
            if group:
                document.setdefault(group, {})[name] = convert(cell)
            else:
                document[name] = convert(cell)
        try:
            return msgspec.json.encode(document)
        except UnicodeEncodeError:  # bytes that are not UTF-8 stay as they are, and the parser repairs them
            return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
