"""The case of an incident: what its updates and the actions of people make of it, as a function of these two sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from streamguard.events.event_time import epoch_ms
from streamguard.serving.decisions.growth import Growth, growth
from streamguard.serving.decisions.ledger import Entry, InForce, Logged, ledger
from streamguard.serving.decisions.mute import Breach, MuteInForce, muting
from streamguard.serving.decisions.record import (
    Acknowledge,
    Assign,
    Classification,
    Close,
    Comment,
    Mute,
    Reopen,
    Snooze,
)
from streamguard.serving.decisions.update import Update

Status = Literal["new", "acknowledged", "closed"]
"""New until a person acknowledges it. A closed incident that opens again is new. Snoozed and muted are no status: they
stop notifications, and hide."""


class Remark(msgspec.Struct, frozen=True):
    """A comment that is not undone; `masked`: its author saw pseudonyms only."""

    id: str
    by: str
    at: str
    text: str
    masked: bool = False


class Reopening(msgspec.Struct, frozen=True):
    """Why an incident is open again: a person's action, or growth beyond what the person saw who closed it."""

    action: str = ""
    growth: Growth | None = None


class Case(msgspec.Struct, frozen=True):
    """The state of an incident.

    Attributes
    ----------
    status
        See `Status`.
    assignee, acknowledged_by
        Persons; empty without one.
    classification, reason, duplicate_of
        How a closed incident was closed; None and empty if it is open.
    snoozed_until
        Time of the server's clock until which notifications stop; None if they do not, or if the incident has grown
        since (`snooze_ended_by`).
    reopened_by
        Why the incident is open after it was closed; None if it was not, or is closed again.
    comments
        Those in force.
    muted
        Whether the incident is hidden.
    mutes_applied
        Ids of the mutes that hide an update of it.
    mute_broken_by
        The update that made a muted incident visible again.
    own_mutes
        Mutes in force that were made from this incident. They apply to every incident of the entity.
    history
        Every action, rejected and undone ones included, in the order of the log.
    last_action
        What the next action states as `expected`: the id of the last accepted action that is not about a comment.
    seen
        The largest number of alerts that the author of an action in force had seen.
    """

    status: Status = "new"
    assignee: str = ""
    acknowledged_by: str = ""
    classification: Classification | None = None
    reason: str = ""
    duplicate_of: str = ""
    snoozed_until: str | None = None
    snooze_ended_by: Growth | None = None
    reopened_by: Reopening | None = None
    comments: tuple[Remark, ...] = ()
    muted: bool = False
    mutes_applied: tuple[str, ...] = ()
    mute_broken_by: Breach | None = None
    own_mutes: tuple[MuteInForce, ...] = ()
    history: tuple[Entry, ...] = ()
    last_action: str = ""
    seen: int = 0

    def is_snoozed(self, now_ms: int) -> bool:
        """Whether notifications stop at a time of the server's clock, epoch milliseconds."""
        until = (
            None if self.snoozed_until is None or self.status == "closed" else epoch_ms(self.snoozed_until)
        )
        return until is not None and now_ms < until


def case_of(
    incident: str, updates: Iterable[Update], actions: Iterable[Logged], mutes: Iterable[MuteInForce] = ()
) -> Case:
    """The case of an incident. Neither order nor repetitions of the arguments change it.

    Parameters
    ----------
    incident
        Id of the incident.
    updates
        Its updates.
    actions
        Actions that name it, with their offsets.
    mutes
        Mutes in force of its entity that were made from other incidents: `own_mutes` of their cases. Its own ones are
        added.
    """
    known = sorted(set(updates))
    found = ledger(incident, actions)
    own = own_mutes(incident, found.in_force)
    hidden = muting(known, {*mutes, *own})
    return msgspec.structs.replace(
        _folded(known, found.in_force),
        muted=hidden.muted,
        mutes_applied=hidden.mutes,
        mute_broken_by=hidden.breach,
        own_mutes=own,
        history=found.history,
        last_action=found.last_action,
    )


def own_mutes(incident: str, in_force: Iterable[InForce]) -> tuple[MuteInForce, ...]:
    """The mutes among the actions on an incident."""
    return tuple(
        MuteInForce(offset, action.id, incident, action.by, action.at, action.reason, action.scope)
        for offset, action, _ in in_force
        if isinstance(action, Mute)
    )


def _folded(updates: Sequence[Update], in_force: Sequence[InForce]) -> Case:
    """Status, persons, classification, snooze and comments after all actions in force."""
    case, closed_at, snoozed_at = Case(), 0, 0
    comments: list[Remark] = []
    replace = msgspec.structs.replace
    for _, action, target in in_force:
        if case.status == "closed" and (grown := growth(updates, closed_at)):
            case = _reopened(case, Reopening(growth=grown))
        match action:
            case Acknowledge():
                if case.status == "new" and not _unseen(case.reopened_by, target.seen):
                    case = replace(case, status="acknowledged", acknowledged_by=action.by)
                case = replace(case, assignee=action.assignee or case.assignee)
            case Assign():
                case = replace(case, assignee=action.assignee)
            case Comment():
                comments.append(Remark(action.id, action.by, action.at, action.text, action.masked))
            case Snooze():
                case, snoozed_at = replace(case, snoozed_until=action.until), target.seen
            case Close():
                closed_at = target.seen
                case = replace(
                    case,
                    status="closed",
                    acknowledged_by="",
                    classification=action.classification,
                    reason=action.reason,
                    duplicate_of=action.duplicate_of,
                    snoozed_until=None,
                    reopened_by=None,
                )
            case Reopen() if case.status == "closed":
                case = _reopened(case, Reopening(action=action.id))
        case = replace(case, seen=max(case.seen, target.seen))
    if case.status == "closed" and (grown := growth(updates, closed_at)):
        case = _reopened(case, Reopening(growth=grown))
    if case.snoozed_until is not None and (grown := growth(updates, snoozed_at)):
        case = replace(case, snoozed_until=None, snooze_ended_by=grown)
    return replace(case, comments=tuple(comments))


def _reopened(case: Case, by: Reopening) -> Case:
    return msgspec.structs.replace(
        case, status="new", classification=None, reason="", duplicate_of="", reopened_by=by
    )


def _unseen(reopening: Reopening | None, seen: int) -> bool:
    """Whether an incident is open again by growth that an author had not seen."""
    return reopening is not None and reopening.growth is not None and reopening.growth.count > seen
