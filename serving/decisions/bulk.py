"""An action on many incidents as records of bounded size, and a record as actions on single incidents."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from streamguard.serving.decisions.codec import RecordError
from streamguard.serving.decisions.record import MAX_ID, MAX_INCIDENTS, CaseAction
from streamguard.text import counted

MAX_BULK_INCIDENTS = 100_000
"""Incidents of one action: a hundred records, which are written within a second."""
_MAX_SUFFIX = len(f".{MAX_BULK_INCIDENTS // MAX_INCIDENTS}")


def split(action: CaseAction) -> tuple[CaseAction, ...]:
    """Records of at most `MAX_INCIDENTS` incidents each, with the ids `id`, `id.1`, `id.2` and so on.

    The same action is split in the same way again, so a repeated request repeats its records.

    Raises
    ------
    RecordError
        If there are more than `MAX_BULK_INCIDENTS` incidents, or the id is too long for a suffix.
    """
    targets = action.incidents
    if len(targets) <= MAX_INCIDENTS:
        return (action,)
    if len(targets) > MAX_BULK_INCIDENTS:
        raise RecordError(
            "too_large",
            f"it names {counted(len(targets), 'incident')}, the maximum is {MAX_BULK_INCIDENTS:,}",
        )
    if len(action.id) > MAX_ID - _MAX_SUFFIX:
        raise RecordError(
            "not_an_action",
            f"the id of an action on so many incidents has at most {MAX_ID - _MAX_SUFFIX} characters",
        )
    return tuple(
        msgspec.structs.replace(
            action,
            id=f"{action.id}.{k}" if k else action.id,
            incidents=targets[first : first + MAX_INCIDENTS],
        )
        for k, first in enumerate(range(0, len(targets), MAX_INCIDENTS))
    )


def by_incident(action: CaseAction) -> Iterator[tuple[str, CaseAction]]:
    """(incident, the action on this incident alone), which a store keeps with the incident."""
    for target in action.incidents:
        yield target.id, msgspec.structs.replace(action, incidents=(target,))
