"""Actions on a list: which are possible, whether a list is the one that was confirmed, and what was done."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from streamguard.serving.decisions.record import Target
from streamguard.serving.query.answers import BulkAnswer, BulkPreview
from streamguard.serving.query.requests import ActionRequest, ConflictError
from streamguard.text import counted


class ChangedListError(ConflictError):
    """The list does not have the incidents that a person has confirmed; `found` is what it has now."""

    def __init__(self, found: BulkPreview) -> None:
        super().__init__(
            f"the list has changed since it was confirmed, and has {counted(found.incidents, 'incident')} now: confirm "
            "it again"
        )
        self.found = found


def preview_of(targets: Sequence[Target]) -> BulkPreview:
    """What an action on some incidents would be about, whatever their order."""
    ids = "\n".join(sorted(one.id for one in targets))
    return BulkPreview(len(targets), hashlib.sha256(ids.encode()).hexdigest())


def require_many(wanted: ActionRequest) -> None:
    """Refuse an action that is about a single incident.

    Raises
    ------
    ConflictError
        If it is one.
    """
    if wanted.kind in ("mute", "undo") or (wanted.kind == "close" and wanted.duplicate_of):
        raise ConflictError(f"{wanted.kind} is about a single incident: open it and act there")


def bulk_text(answer: BulkAnswer) -> str:
    """What an action on a list did, in a sentence.

    Examples
    --------
    >>> bulk_text(BulkAnswer("a", 3, 2, "d7"))
    'done for 2 of 3 incidents; others were changed by somebody else meanwhile'
    """
    text = f"done for {answer.accepted:,} of {counted(answer.incidents, 'incident')}"
    return (
        text
        if answer.accepted == answer.incidents
        else f"{text}; others were changed by somebody else meanwhile"
    )
