"""Updates of incidents and actions of people, for tests of cases."""

from __future__ import annotations

from typing import Any

from streamguard.alerts.incident import rfc3339
from streamguard.serving.decisions.case import Case, case_of
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.record import (
    VERSION,
    Acknowledge,
    Assign,
    CaseAction,
    Close,
    Comment,
    Mute,
    Reopen,
    Scope,
    Snooze,
    Target,
    Undo,
    Unmask,
    UnmaskAnswer,
)
from streamguard.serving.decisions.update import Update, UpdateReason

INCIDENT = "3-17-18bcfe5687b"
START = 1_780_000_000_000
"""Event time of the first update, epoch milliseconds."""
DAY = 86_400_000
NOW = rfc3339(START + DAY)
"""Time of the server's clock when people act."""
KINDS = {
    one.__struct_config__.tag: one
    for one in (Acknowledge, Assign, Comment, Snooze, Mute, Close, Reopen, Undo, Unmask, UnmaskAnswer)
}
SOURCE = UpdateReason("source", "203.0.113.9", 6.5)
COMMAND = UpdateReason("command", "sleep 5", 4.0)
WEAK = UpdateReason("agent", "curl", 1.5)


def update(count: int, bits: float, *patterns: str, **other: Any) -> Update:
    """An update of an incident of ann."""
    fields: dict[str, Any] = {
        "at": rfc3339(START + 60_000 * count),
        "entity_kind": "user",
        "entity": "ann",
        "reasons": (SOURCE, COMMAND, WEAK),
    }
    return Update(count=count, bits=bits, patterns=patterns, **{**fields, **other})


def action(kind: str, name: str, seen: int = 1, expected: str = "", **fields: Any) -> CaseAction:
    """An action on the incident, or on those of `incidents`."""
    incidents = fields.pop("incidents", (INCIDENT,))
    targets = tuple(Target(id=one, seen=seen, expected=expected) for one in incidents)
    common: dict[str, Any] = {"version": VERSION, "id": name, "incidents": targets, "by": "bea", "at": NOW}
    made: CaseAction = KINDS[kind](**{**common, **fields})
    return made


def close(name: str, seen: int = 1, expected: str = "", **fields: Any) -> CaseAction:
    """An action that closes the incident."""
    return action(
        "close", name, seen, expected, **{"classification": "false_positive", "reason": "a test", **fields}
    )


def scope(**other: Any) -> Scope:
    """The scope of a mute of the updates that `update` makes."""
    from streamguard.serving.decisions.mute import scope_of

    made = scope_of([update(1, 12.0, "living_off_the_land")], 1, rfc3339(START + 30 * DAY))
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return Scope(**{**fields, **other})


def case(updates: list[Update], *actions: CaseAction, **other: Any) -> Case:
    """The case of the incident after actions at the offsets 0, 1, 2 and so on."""
    return case_of(INCIDENT, updates, [Logged(k, one) for k, one in enumerate(actions)], **other)
