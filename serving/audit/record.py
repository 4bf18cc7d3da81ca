"""A record of the audit log: what somebody has seen or granted, and the hash of the record before it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from streamguard.errors import DataError, TemporaryError

VERSION: Final = 1
MAX_TEXT = 300
"""Characters of each text; a longer one is cut."""
MAX_RECORD_BYTES = 16_384
NOTHING = "0" * 64
"""Stands for the hash of the record before the first one."""

Kind = Literal["first", "event", "alive", "last"]
"""`first` and `last` are the ends of a chain; `alive` says that the server runs, although nothing happens."""
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class AuditError(TemporaryError):
    """The audit log cannot be written, so no names are shown."""


class NotARecordError(DataError):
    """A record of the topic is not one of the audit log."""


class AuditRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One record.

    Attributes
    ----------
    version
        `VERSION`.
    chain, number
        Random id of the run of a server, and place in its chain, from 0.
    previous
        SHA-256 digest of the value of the record before it, in hexadecimal digits; `NOTHING` for the first one.
    kind
        See `Kind`.
    at
        Time of the server's clock, RFC 3339.
    by, role
        Who, and with which role; empty for records about the server.
    what
        The operation: method and route.
    subject
        Id of the incident or of the request for names, or the pseudonym of the user; empty for a list.
    detail
        What came of it: `asked`, `granted`, `refused`; empty if names were shown.
    """

    version: Literal[1]
    chain: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{24}\Z")]
    number: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    previous: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    kind: Kind
    at: Annotated[str, msgspec.Meta(max_length=40)]
    by: _Text = ""
    role: _Text = ""
    what: _Text = ""
    subject: _Text = ""
    detail: _Text = ""


_decode = msgspec.json.Decoder(AuditRecord).decode


def encode(record: AuditRecord) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode(value: bytes | None) -> AuditRecord:
    """The record that a value of the topic is.

    Raises
    ------
    NotARecordError
        If it is none.
    """
    if value is None or len(value) > MAX_RECORD_BYTES:
        raise NotARecordError("it is empty or too large")
    try:
        return _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotARecordError(str(error)) from None


def digest(value: bytes) -> str:
    """The SHA-256 digest of a value, in hexadecimal digits."""
    return hashlib.sha256(value).hexdigest()


def cut(text: str) -> str:
    """A text as a record holds it: Unicode, and not too long."""
    return text.encode("utf-8", "replace").decode()[:MAX_TEXT]
