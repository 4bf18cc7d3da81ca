"""A security event: the fields of its JSON that are scored, and the reasons for which events are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

MAX_EVENT_BYTES = 1_000_000
MAX_USER_CHARACTERS = 256
MAX_DOCUMENT_BYTES = 100_000
"""Limit for an event inside an incident: a message that is too large for the broker would stop the worker."""

MAX_BRACKETS = 200
"""A limit on nesting that, unlike the interpreter's, does not depend on the depth of the call stack. Only records of
over 1,000 bytes are counted: shorter ones cannot nest too deeply."""
EARLIEST_MS = 946_684_800_000
"""2000-01-01; events before this time are refused."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01; events at or after this time are refused."""

REASONS = {
    "empty": "the record has no value",
    "too_large": f"the record is over {MAX_EVENT_BYTES:,} bytes",
    "not_json": "the record is not valid JSON in UTF-8",
    "wrong_type": "a field has a value of the wrong type",
    "too_nested": f"the record has over {MAX_BRACKETS} opening brackets",
    "missing_field": "a field that every event needs is missing",
    "missing_user": "the event names neither a user nor a source address",
    "user_too_long": f"the user's name is over {MAX_USER_CHARACTERS} characters",
    "bad_timestamp": "the timestamp is neither a number nor RFC 3339",
    "timestamp_out_of_range": "the timestamp is outside the years 2000 to 2099",
    "unreadable_batch": "the batch of records cannot be unpacked",
}
"""All reasons for a refusal; each key is also a label value of the dead-letter metric."""


class _Part(msgspec.Struct, gc=False, frozen=True):
    pass


class Metadata(_Part, gc=False, frozen=True):
    hostname: str | None = None
    geo_location: str | None = None
    user_agent: str | None = None


class AuthDetails(_Part, gc=False, frozen=True):
    auth_type: str | None = None
    failure_reason: str | None = None


class NetworkDetails(_Part, gc=False, frozen=True):
    bytes_sent: float | None = 0.0
    bytes_received: float | None = 0.0
    destination_hostname: str | None = None


class FileDetails(_Part, gc=False, frozen=True):
    file_path: str | None = None
    operation: str | None = None
    file_size_bytes: float | None = 0.0
    is_encrypted: bool | None = False


class ProcessDetails(_Part, gc=False, frozen=True):
    process_name: str | None = None
    command_line: str | None = None


class DnsDetails(_Part, gc=False, frozen=True):
    query_name: str | None = None
    response_code: str | int | None = None


class Event(msgspec.Struct, gc=False):
    """The fields of an event that are scored; all others are ignored."""

    timestamp: int | float | str
    event_type: str
    user: str | None = None
    source_ip: str | None = None
    destination_ip: str | None = None
    threat_score: float | None = None
    status: str | None = None
    failure_reason: str | None = None
    metadata: Metadata | None = None
    auth_details: AuthDetails | None = None
    network_details: NetworkDetails | None = None
    file_details: FileDetails | None = None
    process_details: ProcessDetails | None = None
    dns_details: DnsDetails | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that cannot be scored.

    Attributes
    ----------
    index
        Position in the chunk.
    reason
        A key of `REASONS`.
    detail
        What exactly is wrong, without the content of the event.
    """

    index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """Stands for a value that the reader of a topic did not deliver; `parse` refuses it.

    Attributes
    ----------
    reason, detail
        As in `Refusal`.
    head, size, sha256
        First bytes, size and digest of the record's value, or of the whole batch as it is stored.
    first, last
        The offsets that it stands for.
    """

    reason: str
    detail: str
    head: bytes
    size: int
    sha256: str
    first: int
    last: int

    @property
    def count(self) -> int:
        """Number of offsets that it stands for."""
        return self.last - self.first + 1


Value = bytes | Withheld | None
"""The value of a record."""


_decode = msgspec.json.Decoder(Event).decode


def parse(values: Sequence[Value]) -> tuple[list[Event], list[int], list[Refusal]]:
    """Decode a chunk. An event that cannot be scored becomes a refusal, never an exception.

    Parameters
    ----------
    values
        One JSON document each.

    Returns
    -------
    events
        The valid events, with `timestamp` normalised to epoch milliseconds.
    index
        Position of each event in `values`, ascending.
    refused
        The refusals.

    Examples
    --------
    >>> events, index, refused = parse([b"{}", b'{"timestamp": 1700000000, "user": "a", "event_type": "t"}'])
    >>> events[0].timestamp, index, refused[0].reason
    (1700000000000, [1], 'missing_field')
    """
    events: list[Event] = []
    index: list[int] = []
    refused: list[Refusal] = []
    for i, value in enumerate(values):
        try:
            if len(value) > 1000 and value.count(b"[") + value.count(b"{") > MAX_BRACKETS:  # type: ignore[union-attr, arg-type, operator]
                refused.append(Refusal(i, "too_nested", REASONS["too_nested"]))
                continue
            event = _decode(value)  # type: ignore[arg-type]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, AttributeError) as error:
            refused.append(_refusal(i, value, error))
            continue
        stamp = epoch_ms(event.timestamp)
        if stamp is None:
            refused.append(Refusal(i, "bad_timestamp", REASONS["bad_timestamp"]))
            continue
        event.timestamp = stamp
        user = event.user
        if not EARLIEST_MS <= stamp < LATEST_MS:
            refused.append(Refusal(i, "timestamp_out_of_range", f"{stamp} ms since 1970"))
        elif not user and not event.source_ip:
            refused.append(Refusal(i, "missing_user", REASONS["missing_user"]))
        elif user and len(user) > MAX_USER_CHARACTERS:
            refused.append(Refusal(i, "user_too_long", f"{len(user)} characters"))
        elif len(value) > MAX_EVENT_BYTES:  # type: ignore[arg-type]
            refused.append(Refusal(i, "too_large", f"{len(value)} bytes"))  # type: ignore[arg-type]
        else:
            events.append(event)
            index.append(i)
    return events, index, refused


def _refusal(index: int, value: Value, error: Exception) -> Refusal:
    if isinstance(value, Withheld):
        return Refusal(index, value.reason, value.detail)
    if not value:
        return Refusal(index, "empty", REASONS["empty"])
    if len(value) > MAX_EVENT_BYTES:
        return Refusal(index, "too_large", f"{len(value)} bytes")
    if isinstance(error, RecursionError) or value.count(b"[") + value.count(b"{") > MAX_BRACKETS:
        return Refusal(index, "too_nested", REASONS["too_nested"])
    detail = str(error)[:200]
    if isinstance(error, msgspec.ValidationError):
        missing = "missing required field" in detail
        return Refusal(index, "missing_field" if missing else "wrong_type", detail)
    return Refusal(index, "not_json", detail)


def epoch_ms(stamp: int | float | str) -> int | None:
    """Convert a timestamp in any common unit to epoch milliseconds; None if it cannot be read.

    A number below 1e11 is read as seconds, below 1e14 as milliseconds, below 1e17 as microseconds, above as
    nanoseconds: the years 2000 to 2099 fall into a separate range in each unit. A text is RFC 3339 or such a number;
    without a UTC offset it is read as UTC.

    Examples
    --------
    >>> epoch_ms(1.7e9) == epoch_ms("2023-11-14T22:13:20Z") == epoch_ms(1_700_000_000_000_000) == 1_700_000_000_000
    True
    >>> epoch_ms("yesterday") is None
    True
    """
    if type(stamp) is int and 100_000_000_000 <= stamp < 100_000_000_000_000:
        return stamp
    if isinstance(stamp, str):
        try:
            stamp = float(stamp) if "-" not in stamp[1:] else stamp
        except ValueError:
            return None
    if isinstance(stamp, str):
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    magnitude = abs(stamp)
    for limit, factor in ((1e11, 1000), (1e14, 1), (1e17, 1e-3), (1e25, 1e-6)):
        if magnitude < limit:
            return round(stamp * factor)
    return None


def as_document(value: bytes) -> Any:
    """Return the whole event for an incident, including the fields that are not scored.

    The result is the event's text instead if a field that is not scored cannot be decoded (bad UTF-8, a number out of
    range), or if the event is longer than `MAX_DOCUMENT_BYTES`, where the text is cut.

    Examples
    --------
    >>> as_document(b'{"x": 1}'), as_document(b'{"x": 1e999}')
    ({'x': 1}, '{"x": 1e999}')
    """
    if len(value) <= MAX_DOCUMENT_BYTES:
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return value[:MAX_DOCUMENT_BYTES].decode("utf-8", "replace")
