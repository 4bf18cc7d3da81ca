"""Reads an event field by field from JSON that the strict decoder refuses, and notes what it repairs."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.errors import DataError
from streamguard.events.scan import children, unescape

MAX_DEPTH = 200
"""Nesting that is read; what is deeper is ignored. The limit is far from that of the interpreter, which depends on the
depth of the call stack."""

REPAIRS = {
    "converted": "A number or a boolean stood for a text, or a text for a number or a boolean; it was converted.",
    "unwrapped": "A list or an object stood for a single value; its first element or its name was read.",
    "wrong_type": "The value had another type, or was no JSON at all; it was dropped.",
    "out_of_range": "The number was not finite; infinity became the largest number, and NaN was dropped.",
    "bad_text": "The text had invalid UTF-8, half a surrogate pair, an unknown escape or a control character.",
    "too_long": "The name of the user was cut; a digest of the whole name stands at its end.",
    "too_deep": f"The record had more than {MAX_DEPTH} levels of nesting; what was deeper was not read.",
    "missing_type": "The event had no `event_type`; it was scored with an empty one.",
    "ignored_field": "A field that is not scored was not valid JSON; it was ignored.",
}
"""All repairs of an event before it is scored; each key is also a label value of a metric."""

MEMBERS = ("name", "value", "ip", "address", "id", "uid", "code")
"""The members of an object that may stand for a single value, the first one that is present."""
JOINED = "command_line"
"""The field in which a list is a list of arguments, and all of its elements are read."""
_MAX_ELEMENTS, _MAX_ARGUMENTS, _MAX_LEVELS = 16, 1024, 3
_MAX_DIGITS = 400
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

Bytes = NDArray[np.uint8]


class Repair(NamedTuple):
    """One repair: the field, empty if it is not scored, and a key of `REPAIRS`."""

    field: str
    kind: str

    def __str__(self) -> str:
        return f"{self.field}: {self.kind}" if self.field else self.kind


class NotAnObjectError(DataError):
    """The text is not one JSON object; the message says where it stops to be one.

    Attributes
    ----------
    fields
        Value of every field that could be read before that place.
    """

    def __init__(self, message: str, fields: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


class _Scalar(NamedTuple):
    """A single JSON value: its type and its text."""

    type: str
    text: str


_NULL = _Scalar("null", "")


class LenientReader:
    """Reads the fields of a struct from JSON, each by itself.

    Parameters
    ----------
    struct
        Its fields have the types text, number, boolean, a union of them, or a struct of such fields.

    Examples
    --------
    >>> class Login(msgspec.Struct):
    ...     user: str | None = None
    ...     score: float | None = None
    >>> fields, repairs, depth = LenientReader(Login).read(b'{"user": ["ann"], "score": "0.5", "x": {"y": NaN}}')
    >>> fields, [str(repair) for repair in repairs], depth
    ({'user': 'ann', 'score': 0.5}, ['user: unwrapped', 'score: converted'], 2)
    """

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        self._names = list(struct.__struct_fields__)
        self._table = _table(self._names)
        self._struct = struct
        hints = get_type_hints(struct)
        self._kinds: list[LenientReader | Callable[..., Any]] = [
            _kind_of(hints[name]) for name in self._names
        ]

    def read(self, value: bytes) -> tuple[dict[str, Any], list[Repair], int]:
        """Read the fields of a record.

        Returns
        -------
        fields
            Value of every field that is present and could be read; structs for groups of fields.
        repairs
            What was repaired, in the order of the fields.
        depth
            Levels of nesting of the record.

        Raises
        ------
        NotAnObjectError
            If the record is not one JSON object.
        """
        marked = value.startswith(_BOM)
        text = value.removeprefix(_BOM).strip(b" \t\r\n")
        repairs: dict[Repair, None] = {Repair("", "bad_text"): None} if marked else {}
        if not text.startswith(b"{"):
            raise NotAnObjectError(_what_instead(text))
        fields, end, depth = self._read(np.frombuffer(text, np.uint8), "", repairs)
        if end != len(text):
            at = abs(end)
            raise NotAnObjectError(
                f"the JSON object is damaged at byte {at} of {len(text)}"
                if at <= len(text)
                else f"the JSON object is incomplete: it ends early, at byte {len(text)}",
                fields,
            )
        if depth > MAX_DEPTH:
            repairs[Repair("", "too_deep")] = None
        return fields, list(repairs), depth

    def _read(self, data: Bytes, prefix: str, repairs: dict[Repair, None]) -> tuple[dict[str, Any], int, int]:
        spans = np.empty((len(self._names), 2), np.int64)
        end, depth = children(data, self._table, spans)
        fields: dict[str, Any] = {}
        for name, kind, (start, stop) in zip(self._names, self._kinds, spans.tolist(), strict=True):
            if not stop:
                continue
            part, field = data[start:stop], prefix + name
            if isinstance(kind, LenientReader):
                found = kind.group(part, field, repairs)
            else:
                scalar = _scalar(part, field, repairs, _MAX_LEVELS)
                found = None if scalar is _NULL else kind(scalar, field, repairs)
            if found is not None:
                fields[name] = found
        return fields, end, depth

    def group(self, data: Bytes, field: str, repairs: dict[Repair, None]) -> msgspec.Struct | None:
        """The struct of a group of fields; None if it is not an object."""
        opening = bytes(data[:1])
        if opening == b"{":
            fields, end, _ = self._read(data, f"{field}.", repairs)
            if end > 0:
                return self._struct(**fields)
        elif opening == b"[":
            spans = np.empty((1, 2), np.int64)
            children(data, _NONE, spans)
            start, stop = spans[0]
            if stop and data[start] == ord("{"):
                repairs[Repair(field, "unwrapped")] = None
                return self.group(data[start:stop], field, repairs)
        elif bytes(data) == b"null":
            return None
        repairs[Repair(field, "wrong_type")] = None
        return None


def _what_instead(text: bytes) -> str:
    """What a record is that is not a JSON object, with the remedy if it is known."""
    for beginning, what in (
        (b"[", "it begins a JSON list: write one object in each line or record, without a list around them"),
        (b"\x1f\x8b", "it is packed with gzip: unpack it"),
        (b"\xff\xfe", "it is UTF-16: convert it to UTF-8"),
        (b"\xfe\xff", "it is UTF-16: convert it to UTF-8"),
    ):
        if text.startswith(beginning):
            return f"the record is not a JSON object: {what}"
    return "the record is not a JSON object"


def depth_of(value: bytes) -> int:
    """Levels of nesting of a JSON object or list, as far as its brackets fit.

    Examples
    --------
    >>> depth_of(b'{"a": [{"b": "[[["}]}'), depth_of(b"7")
    (3, 0)
    """
    text = value.removeprefix(_BOM).strip(b" \t\r\n")
    if text[:1] not in (b"{", b"["):
        return 0
    return int(children(np.frombuffer(text, np.uint8), _NONE, np.empty((0, 2), np.int64))[1])


def _kind_of(hint: Any) -> LenientReader | Callable[..., Any]:
    parts = get_args(hint) or (hint,)
    for part in parts:
        if hasattr(part, "__struct_fields__"):
            return LenientReader(part)
    if str in parts:
        return _text_or_number if float in parts else _text_or_integer if int in parts else _text
    return _boolean if bool in parts else _number


def _table(names: Any) -> Bytes:
    """Names as rows, padded with zeros."""
    width = max(map(len, names), default=0) or 1
    rows = np.frombuffer(b"".join(name.encode().ljust(width, b"\0") for name in names), np.uint8)
    return rows.reshape(len(names), width)


_NONE = _table(())
_MEMBERS = _table(MEMBERS)


def _scalar(data: Bytes, field: str, repairs: dict[Repair, None], levels: int) -> _Scalar:
    """The single value that a JSON value is or contains."""
    opening = data[0]
    if opening == ord('"'):
        return _Scalar("string", _unescaped(data[1:-1], field, repairs))
    if opening in b"[{":
        found = _unwrapped(data, field, repairs, levels) if levels else None
        repairs[Repair(field, "wrong_type" if found is None else "unwrapped")] = None
        return found or _NULL
    word = data[: 1 << 16].tobytes().decode("utf-8", "replace")
    if word == "null":
        return _NULL
    if word in ("true", "false"):
        return _Scalar("boolean", word)
    return _Scalar("number" if _NUMBER.fullmatch(word) else "other", word)


def _unescaped(data: Bytes, field: str, repairs: dict[Repair, None]) -> str:
    out = np.empty(len(data), np.uint8)
    length, faults = unescape(data, out)
    raw = out[:length].tobytes()
    text = raw.decode("utf-8", "replace")
    if faults or (not raw.isascii() and text.encode() != raw):
        repairs[Repair(field, "bad_text")] = None
    return text


def _unwrapped(data: Bytes, field: str, repairs: dict[Repair, None], levels: int) -> _Scalar | None:
    """The first value in a list or an object; all arguments of a command."""
    joined = data[0] == ord("[") and field.endswith(JOINED)
    if joined:
        try:
            return _Scalar("string", " ".join(msgspec.json.decode(data.tobytes(), type=list[str])))
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    names = _MEMBERS if data[0] == ord("{") else _NONE
    spans = np.empty((len(names) or (_MAX_ARGUMENTS if joined else _MAX_ELEMENTS), 2), np.int64)
    children(data, names, spans)
    arguments: list[str] = []
    for start, stop in spans.tolist():
        if not stop:
            continue
        found = _scalar(data[start:stop], field, repairs, levels - 1)
        if not joined and found.text:
            return found
        arguments.append(found.text)
    return _Scalar("string", " ".join(arguments)) if arguments and joined else None


def _text(value: _Scalar, field: str, repairs: dict[Repair, None]) -> str | None:
    if value.type == "other":
        repairs[Repair(field, "wrong_type")] = None
        return None
    if value.type != "string":
        repairs[Repair(field, "converted")] = None
    return value.text


def _number(value: _Scalar, field: str, repairs: dict[Repair, None]) -> float | None:
    text = value.text if value.type != "boolean" else "1" if value.text == "true" else "0"
    try:
        number = float(text) if len(text) <= _MAX_DIGITS or value.type == "number" else math.nan
    except ValueError:
        repairs[Repair(field, "wrong_type")] = None
        return None
    if math.isfinite(number):
        if value.type in ("string", "boolean"):
            repairs[Repair(field, "converted")] = None
        return number
    repairs[Repair(field, "out_of_range")] = None
    return None if math.isnan(number) else math.copysign(sys.float_info.max, number)


def _boolean(value: _Scalar, field: str, repairs: dict[Repair, None]) -> bool | None:
    found = _BOOLEANS.get(value.text.lower())
    if found is None:
        repairs[Repair(field, "wrong_type")] = None
        return None
    if value.type != "boolean":
        repairs[Repair(field, "converted")] = None
    return found


def _text_or_number(value: _Scalar, field: str, repairs: dict[Repair, None]) -> str | int | float | None:
    if value.type == "number" and len(value.text) <= _MAX_DIGITS:
        match = _NUMBER.fullmatch(value.text)
        return float(value.text) if match and any(match.groups()) else int(value.text)
    return _text(value, field, repairs)


def _text_or_integer(value: _Scalar, field: str, repairs: dict[Repair, None]) -> str | int | None:
    number = _text_or_number(value, field, repairs)
    if not isinstance(number, float):
        return number
    return _text(value, field, repairs)
