"""The place in a list at which the next page begins: the sort key of the last row, bound to the filters of the list."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import msgspec

from streamguard.errors import DataError

PATTERN = r"^[A-Za-z0-9_-]{1,400}$"
"""Characters of a cursor."""


class CursorError(DataError):
    """A cursor is not one of this list."""


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    digest: str
    key: float
    id: str


def encode(filters: Any, key: float, id: str) -> str:
    """A cursor after the row with this sort key and id.

    Parameters
    ----------
    filters
        What the list was filtered and sorted by.
    """
    value = msgspec.msgpack.encode(_Cursor(_digest(filters), key, id[:200]))
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def decode(filters: Any, cursor: str) -> tuple[float, str]:
    """The sort key and the id after which the next page begins.

    Raises
    ------
    CursorError
        If the text is no cursor, or belongs to other filters.

    Examples
    --------
    >>> decode({"user": "ann"}, encode({"user": "ann"}, 21.5, "3-7-1"))
    (21.5, '3-7-1')
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = msgspec.msgpack.decode(base64.b64decode(padded, b"-_", validate=True), type=_Cursor)
    except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        raise CursorError("the cursor is not one that a list has returned: begin again without it") from None
    if found.digest != _digest(filters):
        raise CursorError("the cursor belongs to another filter or order: begin again without it")
    return found.key, found.id


def _digest(filters: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(filters, order="sorted")).hexdigest()[:12]
