"""Case actions as JSON: encoded, decoded within strict bounds, and refused with a reason from a closed set."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.errors import DataError
from streamguard.events.event_time import epoch_ms
from streamguard.serving.decisions.record import (
    ABOUT_NAMES,
    KINDS,
    VERSION,
    CaseAction,
    Close,
    Mute,
    Snooze,
    Undo,
    Unmask,
)

MAX_RECORD_BYTES = 1_000_000
"""Bytes of a record: the topic accepts batches of 1,048,588 bytes, and a batch has a header and a key."""

REASONS = {
    "too_large": f"it is larger than {MAX_RECORD_BYTES:,} bytes",
    "not_an_action": "it is not valid under the schema of case actions",
    "unknown_version": f"its version is not {VERSION}",
    "unknown_kind": "its kind is none that this version knows",
    "contradictory": "its parts contradict each other",
}
"""Why a record is passed over."""


class RecordError(DataError):
    """A record is no case action; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"the case action is refused, because {REASONS[reason]}: {detail}")
        self.reason = reason


class _Envelope(msgspec.Struct):
    version: int
    kind: str


_decode: Callable[[bytes], CaseAction] = msgspec.json.Decoder(CaseAction).decode
_envelope = msgspec.json.Decoder(_Envelope).decode


def encode(action: CaseAction) -> bytes:
    """The action as JSON, checked as `decode` does.

    Raises
    ------
    RecordError
        If readers would refuse it.
    """
    try:
        value = msgspec.json.encode(action)
    except UnicodeEncodeError as error:
        raise RecordError("not_an_action", f"a text is not Unicode ({error.reason})") from None
    decode(value)
    return value


def decode(value: bytes) -> CaseAction:
    """Decode and check the value of a record.

    Raises
    ------
    RecordError
        If it is no case action, with the reason.

    Examples
    --------
    >>> decode(b'{"version":2,"kind":"reopen"}')
    Traceback (most recent call last):
    streamguard.serving.decisions.codec.RecordError: the case action is refused, because its version is not 1: it is 2
    """
    if len(value) > MAX_RECORD_BYTES:
        raise RecordError("too_large", f"it has {len(value):,} bytes")
    try:
        action = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(value, error) from None
    if contradiction := _contradiction(action):
        raise RecordError("contradictory", contradiction)
    return action


def _refusal(value: bytes, error: Exception) -> RecordError:
    """The reason why a record cannot be decoded."""
    try:
        envelope = _envelope(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return RecordError("not_an_action", str(error))
    if envelope.version != VERSION:
        return RecordError("unknown_version", f"it is {envelope.version}")
    if envelope.kind not in KINDS:
        return RecordError("unknown_kind", f"it is {envelope.kind[:100]!r}, known are {', '.join(KINDS)}")
    return RecordError("not_an_action", str(error))


def _contradiction(action: CaseAction) -> str:
    """What in a record of the right types cannot be true; empty if nothing is."""
    ids = {target.id for target in action.incidents}
    if len(ids) < len(action.incidents):
        return "an incident appears twice"
    times = [action.at]
    match action:
        case Snooze():
            times.append(action.until)
        case Mute():
            times.append(action.scope.until)
            if len(ids) > 1:
                return "a mute has the scope of one incident, and more are named"
        case Close() if (action.classification == "duplicate") != bool(action.duplicate_of):
            return "`duplicate_of` belongs to the classification duplicate, and to no other"
        case Close() if action.duplicate_of in ids:
            return "an incident is no duplicate of itself"
        case Undo() if action.undoes == action.id:
            return "an action does not undo itself"
        case Unmask() if not action.reason.strip():
            return "a request for names needs a reason"
    if isinstance(action, ABOUT_NAMES) and len(ids) > 1:
        return "names are asked for, and shown, for one incident, and more are named"
    wrong = [time for time in times if not _exists(time)]
    return f"the time {wrong[0]} does not exist" if wrong else ""


def _exists(time: str) -> bool:
    ms = epoch_ms(time)
    return ms is not None and rfc3339(ms) == time
