"""Actions on an incident in words: what was done, what an undo has undone, and why one has no effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from streamguard.serving.decisions.case import Case
from streamguard.serving.decisions.ledger import REJECTIONS, Entry
from streamguard.text import shortened

MAX_NAME = 200
"""Characters of a name or of an id in the words."""


def deeds(case: Case) -> Mapping[str, str]:
    """What each action in the history of a case was, by its id."""
    ends = {one.id: one.scope.until for one in case.own_mutes}
    return {one.id: deed(one, case.history, ends.get(one.id, "")) for one in case.history}


def deed(entry: Entry, history: Iterable[Entry] = (), until: str = "") -> str:
    """What an action was, without who did it and why.

    Parameters
    ----------
    history
        The actions on the incident, among which an undo finds what it undoes.
    until
        When a mute ends, if it is in force.

    Examples
    --------
    >>> close = Entry(1, "a", "close", "carl", "2026-11-30T08:00:00.000Z", "false_positive", "a test")
    >>> deed(close)
    'close as false positive'
    >>> deed(Entry(2, "b", "undo", "ann", "2026-11-30T09:00:00.000Z", "a", ""), (close,))
    'undo of what carl did at 2026-11-30 08:00 UTC: close as false positive'
    """
    value = shortened(entry.value, MAX_NAME)
    match entry.kind:
        case "acknowledge":
            return f"acknowledge, assigned to {value}" if value else "acknowledge"
        case "assign":
            return f"assign to {value}" if value else "assign to no person"
        case "close":
            return f"close as {_plain(value)}"
        case "snooze":
            return f"snooze until {_minute(entry.value)} UTC"
        case "mute":
            return f"mute until {_minute(until)} UTC" if until else "mute"
        case "undo":
            undone = next((one for one in history if one.id == entry.value), None)
            if undone is None or undone.kind == "undo":  # neither has an effect
                return f"undo of the action {value}" if undone is None else "undo of an undo"
            by = shortened(undone.by, MAX_NAME)
            return f"undo of what {by} did at {_minute(undone.at)} UTC: {deed(undone)}"
        case "unmask":
            return "ask for names"
        case "unmask_answer":
            return f"answer to a request for names: {value}"
    return _plain(entry.kind)


def effect(entry: Entry, history: Iterable[Entry]) -> str:
    """Why an action has no effect, or by whom it was undone; empty if it is in force.

    Examples
    --------
    >>> close = Entry(1, "a", "close", "carl", "2026-11-30T08:00:00.000Z", "", "", undone_by="b")
    >>> effect(close, (close, Entry(2, "b", "undo", "ann", "2026-11-30T09:00:00.000Z", "a", "")))
    'undone by ann'
    """
    if entry.rejected:
        return f"no effect: {REJECTIONS[entry.rejected]}"
    if not entry.undone_by:
        return ""
    undo = next((one for one in history if one.id == entry.undone_by), None)
    return "undone" if undo is None else f"undone by {shortened(undo.by, MAX_NAME)}"


def refusal(rejected: str, case: Case) -> str:
    """Why an action was rejected, and what to do, for the person who has just tried it.

    Parameters
    ----------
    rejected
        Key of `REJECTIONS`.
    """
    last = next((one for one in reversed(case.history) if one.id == case.last_action), None)
    done = (
        f"{last.by} has done {last.kind} at {last.at[:16].replace('T', ' ')} UTC"
        if last
        else "nothing was done"
    )
    reasons = {
        "conflict": f"{done}: look at the incident again, and repeat the action if it is still right",
        "unknown_action": "there is no such action on this incident",
        "not_in_force": "the action has no effect any more",
        "undo_of_undo": "an undo cannot be undone: repeat the action instead",
        "about_names": "a request for names, or an answer to one, cannot be undone",
    }
    return reasons[rejected]


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
