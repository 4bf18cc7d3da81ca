"""What a person asks to do with incidents, and the record of the topic of decisions that it becomes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.errors import DataError
from streamguard.events.ending import EndError, end_ms
from streamguard.events.event_time import DAY_MS, epoch_ms
from streamguard.serving.decisions.mute import scope_of
from streamguard.serving.decisions.record import (
    VERSION,
    Acknowledge,
    Assign,
    CaseAction,
    Classification,
    Close,
    Comment,
    Mute,
    Name,
    Reopen,
    Scope,
    Snooze,
    Target,
    Text,
    Undo,
)
from streamguard.serving.decisions.update import Update
from streamguard.serving.query.answers import IncidentAnswer

MUTE_DAYS = 30
"""Event time after the incident for which a mute holds unless the request says otherwise."""

Kind = Literal["acknowledge", "assign", "comment", "snooze", "mute", "close", "reopen", "undo"]


class ConflictError(DataError):
    """Somebody else has acted on the incident meanwhile, or it is not as the request says.

    Attributes
    ----------
    field
        Name of the part of the request that is wrong; empty if it is not a single one.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class PreconditionError(ConflictError):
    """The incident is not as the request says that it was seen."""


class ActionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a person wants to do with an incident.

    Attributes
    ----------
    kind
        The action.
    assignee
        For `acknowledge` and `assign`; empty: without an assignee.
    text
        For `comment`.
    until
        For `snooze`: time at which notifications begin again. For `mute`: event time at which it ends. A date, a time,
        or a duration such as `7d`, `12h` or `90m`, which begins now, or at the latest alert if that is later.
    classification, duplicate_of
        For `close`; `duplicate_of` names the other incident.
    undoes
        For `undo`: id of the action.
    reason
        Why, for other people.
    seen, expected
        `row.alerts` and `case.last_action` of the incident as the person saw it; without them, as it is now.
    """

    kind: Kind
    assignee: Name = ""
    text: Text = ""
    until: Annotated[str, msgspec.Meta(max_length=40)] = ""
    classification: Classification = "undetermined"
    duplicate_of: Annotated[str, msgspec.Meta(max_length=200)] = ""
    undoes: Annotated[str, msgspec.Meta(max_length=200)] = ""
    reason: Text = ""
    seen: Annotated[int, msgspec.Meta(gt=-1)] | None = None  # the document would lack a bound of 0
    expected: Annotated[str, msgspec.Meta(max_length=200)] | None = None


def now() -> str:
    """The time of the server's clock, as records state it."""
    return rfc3339(now_ms())


def now_ms() -> int:
    """The time of the server's clock, epoch milliseconds."""
    return int(datetime.now(UTC).timestamp() * 1000)


def action_of(
    wanted: ActionRequest,
    targets: tuple[Target, ...],
    by: str,
    id: str,
    found: IncidentAnswer | None,
    masked: bool,
) -> CaseAction:
    """A request as a record.

    Parameters
    ----------
    targets
        The incidents, as the person saw them.
    by
        Who asks.
    id
        Id of the action.
    found
        The incident, if the request is about one.
    masked
        Whether the person sees pseudonyms only.

    Raises
    ------
    ConflictError
        If a time or a text is missing.
    RecordError
        If nothing of the incident can be muted.
    """
    common: dict[str, Any] = {
        "version": VERSION,
        "id": id,
        "incidents": targets,
        "by": by,
        "at": now(),
        "reason": wanted.reason,
        "masked": masked,
    }
    match wanted.kind:
        case "acknowledge":
            return Acknowledge(**common, assignee=wanted.assignee)
        case "assign":
            return Assign(**common, assignee=wanted.assignee)
        case "comment":
            if not wanted.text.strip():
                raise ConflictError("a comment needs a `text`", "text")
            return Comment(**common, text=wanted.text)
        case "snooze":
            return Snooze(**common, until=rfc3339(ends_at(wanted.until, now_ms())))
        case "mute":
            assert found is not None
            return Mute(**common, scope=scope_of_mute(found, targets[0].seen, wanted.until))
        case "close":
            return Close(**common, classification=wanted.classification, duplicate_of=wanted.duplicate_of)
        case "reopen":
            return Reopen(**common)
        case "undo":
            return Undo(**common, undoes=wanted.undoes)


def scope_of_mute(found: IncidentAnswer, seen: int, until: str) -> Scope:
    """What a mute of an incident hides.

    Parameters
    ----------
    seen
        Number of alerts of the last update that its author has seen.
    until
        Event time at which it ends, or a duration; empty: `MUTE_DAYS` after the incident.

    Raises
    ------
    ConflictError
        If `until` is not an end after the incident.
    RecordError
        If nothing of the incident can be muted.
    """
    latest = epoch_ms(found.incident.last_seen) or 0
    updates = [Update.of(one.incident) for one in found.updates]
    end = ends_at(until, latest) if until else latest + MUTE_DAYS * DAY_MS
    return scope_of(updates, seen, rfc3339(end))


def ends_at(until: str, latest: int) -> int:
    """The end that a request states, epoch milliseconds, see `streamguard.events.ending.end_ms`.

    Raises
    ------
    ConflictError
        If it is none that is later than `latest`.
    """
    try:
        return end_ms(until, latest, now_ms())
    except EndError as error:
        raise ConflictError(str(error), "until") from None
