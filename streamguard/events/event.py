"""A security event: the fields of its JSON that are scored; what is repaired, and what is refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from streamguard.events.absent import NOBODY
from streamguard.events.address import ADDRESS
from streamguard.events.decision import Decision
from streamguard.events.event_time import epoch_ms
from streamguard.events.lenient import MAX_DEPTH, LenientReader, NotAnObjectError, Repair
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.text import printable, shortened

MAX_USER_CHARACTERS = 256

UNKNOWN_STATUS = "unknown"
"""Status of an event whose status cannot be read; without a status an event counts as a success."""
EARLIEST_MS = 946_684_800_000
"""2000-01-01; events before this time are refused."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01; events at or after this time are refused."""

UNREADABLE = "unreadable_batch"
UNSIGNED_DECISION = "unsigned_decision"
BAD_DECISION = "bad_decision"
DECISIONS_FULL = "decisions_full"
REASONS = {
    "empty": "the record has no value",
    "too_large": f"the record is over {MAX_EVENT_BYTES:,} bytes",
    "not_json": "the record is not one JSON object",
    "missing_field": "the timestamp is missing",
    "missing_user": "the event names neither a user nor a source address",
    "bad_timestamp": "the timestamp is neither a number nor RFC 3339",
    "timestamp_out_of_range": "the timestamp is outside the years 2000 to 2099",
    UNREADABLE: "the batch of records cannot be unpacked",
    UNSIGNED_DECISION: "the decision has no valid signature for this topic and partition",
    BAD_DECISION: "the decision is signed, but cannot be read",
    DECISIONS_FULL: "the partition holds as many decisions as it has room for",
}
"""All reasons for a refusal; each key is also a label value of the dead-letter metric. Anything else that is wrong with
an event is repaired, see `streamguard.events.lenient.REPAIRS`."""


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
    rule_name: str | None = None
    status: str | None = None
    failure_reason: str | None = None
    metadata: Metadata | None = None
    auth_details: AuthDetails | None = None
    network_details: NetworkDetails | None = None
    file_details: FileDetails | None = None
    process_details: ProcessDetails | None = None
    dns_details: DnsDetails | None = None


class RepairedEvent(Event, gc=False):
    """An event of which parts were repaired before it is scored.

    Attributes
    ----------
    repairs
        What was repaired.
    """

    repairs: tuple[Repair, ...] = ()


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
        What exactly is wrong, without the content of the event but for a time that cannot be read.
    user, source
        The user and the source address that the event names; empty if they cannot be read.
    count
        Number of offsets that it stands for; more than one for a batch that cannot be read.
    """

    index: int
    reason: str
    detail: str
    user: str = ""
    source: str = ""
    count: int = 1


class Parsed(NamedTuple):
    """A decoded chunk.

    Attributes
    ----------
    events
        The events that can be scored, with `timestamp` normalised to epoch milliseconds.
    positions
        Position of each event among the records, ascending.
    refused
        The records that cannot be scored.
    repaired
        The events, also among `events`, that were repaired.
    """

    events: list[Event]
    positions: list[int]
    refused: list[Refusal]
    repaired: list[RepairedEvent]


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

    def within(self, start: int, end: int) -> Withheld:
        """The part of it that lies in an offset range, end exclusive; at least one of its offsets does."""
        return replace(self, first=max(self.first, start), last=min(self.last, end - 1))


Value = bytes | Withheld | Decision | None
"""The value of a record: a decision, if the record is one and its signature was verified."""


_decode = msgspec.json.Decoder(Event).decode
_lenient = LenientReader(Event)
_SHOWN_CHARACTERS = 40
"""Length up to which a time that cannot be read is shown."""
_FLAT_BYTES, _FLAT_OBJECT_BYTES = 2 * MAX_DEPTH, 5 * MAX_DEPTH
"""A valid record of these sizes cannot exceed `MAX_DEPTH`, the second one without a list: a level takes 5 bytes."""


def parse(values: Sequence[Value]) -> Parsed:
    """Decode a chunk. An event that cannot be scored becomes a refusal, never an exception.

    A record that the strict decoder refuses is read again field by field. So only a record without a subject, without
    a time, or without a JSON object is refused.

    Parameters
    ----------
    values
        One JSON document each.

    Examples
    --------
    >>> parsed = parse([b"{}", b'{"timestamp": 1700000000, "user": 7, "event_type": "t"}'])
    >>> parsed.positions, parsed.refused[0].reason
    ([1], 'missing_field')
    >>> parsed.events[0].timestamp, parsed.events[0].user, [str(repair) for repair in parsed.repaired[0].repairs]
    (1700000000000, '7', ['user: converted'])
    """
    events: list[Event] = []
    index: list[int] = []
    refused: list[Refusal] = []
    repaired: list[RepairedEvent] = []
    event: Event | Refusal
    for i, value in enumerate(values):
        try:
            size = len(value)  # type: ignore[arg-type]
            if (
                size > _FLAT_BYTES
                and (size > _FLAT_OBJECT_BYTES or b"[" in value)  # type: ignore[operator]
                and (size > MAX_EVENT_BYTES or value.count(b"[") + value.count(b"{") > MAX_DEPTH)  # type: ignore[union-attr, operator]
            ):
                event = _read_again(i, value)  # type: ignore[arg-type]
            else:
                event = _decode(value)  # type: ignore[arg-type]
                if event.user is not None and len(event.user) > MAX_USER_CHARACTERS:
                    event = _repaired(msgspec.structs.asdict(event), [])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            if isinstance(value, Decision):
                continue  # the fold applies it; it is neither an event nor refused
            event = _read_again(i, value)
        if isinstance(event, Refusal):
            refused.append(event)
            continue
        user = event.user
        if user in NOBODY or (user[0] <= " " and user.strip() in NOBODY):  # type: ignore[index, union-attr]
            event.user = None
        stamp = epoch_ms(event.timestamp)
        if stamp is None:
            refused.append(_refusal(i, event, "bad_timestamp", _not_a_time(event.timestamp)))
            continue
        event.timestamp = stamp
        if not EARLIEST_MS <= stamp < LATEST_MS:
            refused.append(_refusal(i, event, "timestamp_out_of_range", f"{stamp} ms since 1970"))
        elif not event.user and not ADDRESS[event.source_ip or ""][0]:
            refused.append(_refusal(i, event, "missing_user", REASONS["missing_user"]))
        else:
            events.append(event)
            index.append(i)
            if type(event) is RepairedEvent:  # faster than isinstance
                repaired.append(event)
    return Parsed(events, index, refused, repaired)


def _read_again(index: int, value: bytes | Withheld | None) -> Event | Refusal:
    """Read a record leniently that the strict decoder refuses, or that may be nested too deeply for it."""
    if isinstance(value, Withheld):
        return Refusal(index, value.reason, value.detail, *_named(value.head), count=value.count)
    if not value:
        return Refusal(index, "empty", REASONS["empty"])
    if len(value) > MAX_EVENT_BYTES:
        return Refusal(index, "too_large", f"{len(value)} bytes", *_named(value))
    try:
        fields, repairs, depth = _lenient.read(value)
    except NotAnObjectError as error:
        return Refusal(index, "not_json", str(error), *_subject(error.fields))
    if not repairs and depth <= MAX_DEPTH and "event_type" in fields:
        try:
            event = _decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            repairs = [Repair("", "ignored_field")]
        else:
            if len(event.user or "") <= MAX_USER_CHARACTERS:
                return event
    if "timestamp" not in fields:
        reason = "bad_timestamp" if any(r.field == "timestamp" for r in repairs) else "missing_field"
        return Refusal(index, reason, REASONS[reason], *_subject(fields))
    return _repaired(fields, repairs)


def _repaired(fields: dict[str, Any], repairs: list[Repair]) -> RepairedEvent:
    """The event of the fields that could be read, with a type and with a name of bounded length."""
    if "event_type" not in fields:
        fields["event_type"] = ""
        repairs.append(Repair("event_type", "missing_type"))
    if Repair("status", "wrong_type") in repairs:
        fields["status"] = UNKNOWN_STATUS
    user = fields.get("user") or ""
    if len(user) > MAX_USER_CHARACTERS:
        digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        fields["user"] = f"{user[: MAX_USER_CHARACTERS - 17]}#{digest}"
        repairs.append(Repair("user", "too_long"))
    return RepairedEvent(**fields, repairs=tuple(repairs))


def _named(head: bytes) -> tuple[str, str]:
    """The user and the source address that the beginning of a record names; empty if they cannot be read."""
    try:
        return _subject(_lenient.read(head[:MAX_EVENT_BYTES])[0])
    except NotAnObjectError as error:
        return _subject(error.fields)


def _subject(fields: dict[str, Any]) -> tuple[str, str]:
    user, source = fields.get("user"), fields.get("source_ip")
    return user if user and user.strip() not in NOBODY else "", ADDRESS[source or ""][0]


def _not_a_time(stamp: int | float | str) -> str:
    shown = printable(shortened(f"{stamp!r:.{_SHOWN_CHARACTERS}}", _SHOWN_CHARACTERS))
    return REASONS["bad_timestamp"].replace("the timestamp", f"the timestamp {shown}", 1)


def _refusal(index: int, event: Event, reason: str, detail: str) -> Refusal:
    return Refusal(index, reason, detail, event.user or "", ADDRESS[event.source_ip or ""][0])


def repairs_of(repaired: Sequence[RepairedEvent]) -> Counter[str]:
    """Number of events by field and repair, written `field: repair`."""
    return Counter(str(repair) for event in repaired for repair in event.repairs)
