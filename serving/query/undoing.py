"""The records that undo an action on a list, on every incident on which it has an effect."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamguard.serving.decisions.record import ABOUT_NAMES, VERSION, CaseAction, Target, Undo
from streamguard.serving.query.requests import ConflictError, now


def undoing(
    parts: Sequence[tuple[str, CaseAction]], by: str, id: str, reason: str, *, masked: bool
) -> list[Undo]:
    """One record for each record of the action, with the ids `id`, `id.1` and so on.

    Each incident is expected as the action has left it: if somebody has acted since, the undo has no effect there.

    Parameters
    ----------
    parts
        (incident, the action on this incident alone).
    by
        Who undoes it.
    id
        Id of the undo.
    reason
        Why, for other people.
    masked
        Whether this person sees pseudonyms only.

    Raises
    ------
    ConflictError
        If it is an action that stays.
    """
    if any(isinstance(action, (Undo, *ABOUT_NAMES)) for _, action in parts):
        raise ConflictError("an undo, and a request for names or an answer to one, cannot be undone")
    by_record: dict[str, list[Target]] = {}
    for _, action in parts:
        (target,) = action.incidents
        by_record.setdefault(action.id, []).append(msgspec.structs.replace(target, expected=action.id))
    return [
        Undo(
            version=VERSION,
            id=f"{id}.{k}" if k else id,
            incidents=tuple(targets),
            by=by,
            at=now(),
            reason=reason,
            masked=masked,
            undoes=undone,
        )
        for k, (undone, targets) in enumerate(by_record.items())
    ]
