"""Which actions on one incident are in force: the order of their log settles conflicts, and an undo removes one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from streamguard.serving.decisions.record import (
    ABOUT_NAMES,
    Acknowledge,
    Assign,
    CaseAction,
    Close,
    Comment,
    Snooze,
    Target,
    Undo,
    Unmask,
    UnmaskAnswer,
    kind_of,
)

REJECTIONS = {
    "conflict": "its author had not seen the last action on the incident",
    "unknown_action": "it undoes an action that is not among the earlier ones on the incident",
    "not_in_force": "it undoes an action that was rejected or is undone",
    "undo_of_undo": "it undoes an undo; repeat the action instead",
    "about_names": "it undoes a request for names or an answer to one, which stay",
}
"""Why an action has no effect on an incident. It stays in the history."""


class Logged(NamedTuple):
    """An action and its offset in the topic of decisions."""

    offset: int
    action: CaseAction


class InForce(NamedTuple):
    """An action that was accepted and is not undone, and the incident as its author saw it."""

    offset: int
    action: CaseAction
    target: Target


class Entry(msgspec.Struct, frozen=True):
    """One action in the history of an incident.

    Attributes
    ----------
    offset
        Offset in the topic of decisions.
    id, kind, by, at
        As its record states them.
    value
        Assignee, classification, time until, the id of the action that it undoes, or whether names were granted; empty
        for other kinds.
    text
        Comment or reason.
    masked
        Whether its author saw pseudonyms only.
    rejected
        Key of `REJECTIONS`; empty for an action that was accepted.
    undone_by
        Id of the action that undoes it; empty without one.
    """

    offset: int
    id: str
    kind: str
    by: str
    at: str
    value: str
    text: str
    rejected: str = ""
    undone_by: str = ""
    masked: bool = False


class Ledger(NamedTuple):
    """The actions on one incident.

    Attributes
    ----------
    history
        Every action, in the order of the log.
    in_force
        Those that have an effect, in the same order.
    last_action
        Id of the last action that was accepted and changes the state, an undo included; empty without one. The next
        action has to name it as `expected`.
    """

    history: tuple[Entry, ...]
    in_force: tuple[InForce, ...]
    last_action: str


def ledger(incident: str, actions: Iterable[Logged]) -> Ledger:
    """Accept or reject each action on an incident, by the order of the log alone.

    Updates of the incident have no say in it, so what is accepted stays accepted when further updates arrive.

    Parameters
    ----------
    incident
        Id of the incident; actions that do not name it are passed over.
    actions
        In any order, repetitions included: of several records with one id the first counts.
    """
    accepted: dict[str, InForce] = {}
    undone: dict[str, str] = {}
    rejected: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    last = ""
    for offset, action in sorted(actions, key=lambda one: one.offset):
        target = next((one for one in action.incidents if one.id == incident), None)
        if target is None or action.id in entries:
            continue
        entries[action.id] = _entry(offset, action)
        undoes = action.undoes if isinstance(action, Undo) else ""
        about = accepted[undoes].action if undoes in accepted else action
        changes = not isinstance(about, Comment | Unmask | UnmaskAnswer)
        if changes and target.expected != last:
            rejected[action.id] = "conflict"
            continue
        if undoes and (refused := _refused_undo(undoes, accepted, undone, entries)):
            rejected[action.id] = refused
            continue
        accepted[action.id] = InForce(offset, action, target)
        if undoes:
            undone[undoes] = action.id
        if changes:
            last = action.id
    history = (
        msgspec.structs.replace(entry, rejected=rejected.get(name, ""), undone_by=undone.get(name, ""))
        for name, entry in entries.items()
    )
    in_force = (
        one for name, one in accepted.items() if name not in undone and not isinstance(one.action, Undo)
    )
    return Ledger(tuple(history), tuple(in_force), last)


def _refused_undo(
    undoes: str, accepted: dict[str, InForce], undone: dict[str, str], entries: dict[str, Entry]
) -> str:
    """Why an action cannot be undone, a key of `REJECTIONS`; empty if it can."""
    if undoes not in entries:
        return "unknown_action"
    if undoes not in accepted or undoes in undone:
        return "not_in_force"
    if isinstance(accepted[undoes].action, ABOUT_NAMES):
        return "about_names"
    return "undo_of_undo" if isinstance(accepted[undoes].action, Undo) else ""


def _entry(offset: int, action: CaseAction) -> Entry:
    value, text = "", action.reason
    match action:
        case Acknowledge() | Assign():
            value = action.assignee
        case Comment():
            text = action.text
        case Snooze():
            value = action.until
        case Close():
            value = action.classification
        case Undo():
            value = action.undoes
        case UnmaskAnswer():
            value = "granted" if action.granted else "refused"
    return Entry(offset, action.id, kind_of(action), action.by, action.at, value, text, masked=action.masked)
