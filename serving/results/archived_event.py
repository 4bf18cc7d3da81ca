"""A record of the archive as JSON: what was archived in columns becomes the event again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from streamguard.serving.results.sandbox import Row
from streamguard.text import printable

Form = Literal["event", "record", "decision", "unreadable_batch", "empty"]

_NOT_SHOWN = {"offset", "filename", "withheld", "decision", "head", "size"}


class ArchivedEvent(msgspec.Struct, frozen=True):
    """A record of the archive."""

    partition: int
    offset: int
    timestamp_ms: Annotated[int | None, msgspec.Meta(description="Time of the event, epoch milliseconds")]
    form: Annotated[
        Form,
        msgspec.Meta(
            description="`event`; `record`: what was refused as an event; `decision` of a person; `unreadable_batch`: "
            "a batch that could not be read, from `first` to this offset; `empty`: a record without a value"
        ),
    ]
    document: Annotated[
        dict[str, Any] | None,
        msgspec.Meta(description="The event; an archive keeps the fields that are scored and the event's id"),
    ]
    text: Annotated[
        str | None, msgspec.Meta(description="Bytes that are no JSON object, with unsafe characters replaced")
    ] = None
    cut: Annotated[bool, msgspec.Meta(description="Whether `text` is only the beginning")] = False


def first_offset(row: Row) -> int:
    """First offset that a row stands for."""
    withheld = _parsed(row["withheld"])
    first = None if withheld is None else withheld.get("first")
    return first if isinstance(first, int) else int(row["offset"])


def archived_event(partition: int, row: Row) -> ArchivedEvent:
    """The record of a row of the archive.

    Parameters
    ----------
    row
        The columns of the archive. Instead of `raw` there are `head`, its first bytes, and `size`, their number in all.
    """
    offset, timestamp = int(row["offset"]), row["timestamp"]
    head: bytes | None = row["head"]
    cut = head is not None and row["size"] > len(head)
    text = None if head is None else printable(bytes(head).decode(errors="replace"), keep="\n\t")
    if row["withheld"] is not None:
        return ArchivedEvent(
            partition, offset, None, "unreadable_batch", _parsed(row["withheld"]), text, cut or bool(text)
        )
    if row["decision"] is not None:
        return ArchivedEvent(partition, offset, None, "decision", _parsed(row["decision"]))
    if head is None:
        if timestamp is None:
            return ArchivedEvent(partition, offset, None, "empty", None)
        return ArchivedEvent(partition, offset, timestamp, "event", _document(row))
    document = None if cut else _parsed(head)
    form: Form = "record" if timestamp is None else "event"
    if document is None and timestamp is not None:
        document = _document(row)
    return ArchivedEvent(
        partition, offset, timestamp, form, document, text if document is None else None, cut
    )


def _document(row: Row) -> dict[str, Any]:
    """The event from its columns: `metadata.hostname` is the field `hostname` of the object `metadata`."""
    document: dict[str, Any] = {}
    for name, value in _filled(row):
        group, _, field = name.partition(".")
        if field:
            document.setdefault(group, {})[field] = value
        else:
            document[group] = value
    return document


def _filled(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in row.items() if value is not None and name not in _NOT_SHOWN)


def _parsed(data: str | bytes | None) -> dict[str, Any] | None:
    """A JSON object; None if the data are none."""
    try:
        found = msgspec.json.decode(data or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
