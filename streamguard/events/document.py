"""The whole event for an incident, with the fields that are not scored, as a document that any reader accepts."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from streamguard.events.lenient import MAX_DEPTH, depth_of
from streamguard.limits import MAX_DOCUMENT_BYTES

_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|u[0-9a-fA-F]{4}|[\"\\/bfnrt]|(?P<bare>))"
)
_MAX_DIGITS = 18
"""A longer whole number is kept as its text, because readers of JSON round it."""


def as_document(value: bytes) -> Any:
    r"""Return the whole event for an incident, including the fields that are not scored.

    What JSON does not allow is repaired: half a surrogate pair and invalid UTF-8 become U+FFFD, and a number that is
    not finite becomes its text. The result is the event's text if it is no JSON beyond that, if it is nested too
    deeply, or if it is longer than `MAX_DOCUMENT_BYTES`, where the text is cut.

    Examples
    --------
    >>> as_document(b'{"x": 1}'), as_document(b'{"x": 1e999, "y": "\\ud800"}')
    ({'x': 1}, {'x': '1e999', 'y': '�'})
    >>> as_document(b'{"x": ')
    '{"x": '
    """
    if len(value) <= MAX_DOCUMENT_BYTES and depth_of(value) <= MAX_DEPTH:
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        try:
            text = _ESCAPE.sub(_valid, value.decode("utf-8-sig", "replace"))
            return json.loads(text, strict=False, parse_float=_real, parse_int=_whole, parse_constant=str)
        except (ValueError, RecursionError):
            pass
    return value[:MAX_DOCUMENT_BYTES].decode("utf-8", "replace")


def _valid(escape: re.Match[str]) -> str:
    """The escape itself, or what stands for it: half a pair, or a backslash that begins none."""
    if escape["half"]:
        return "\ufffd"
    return "\\\\" if escape["bare"] is not None else escape[0]


def _real(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _whole(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_DIGITS else text
