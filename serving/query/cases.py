"""What people do with incidents: it is written to the topic of decisions, and answered when the projection has it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from streamguard.errors import TemporaryError
from streamguard.serving.decisions.bulk import split
from streamguard.serving.decisions.record import (
    CaseAction,
    Target,
    new_id,
)
from streamguard.serving.decisions.transaction import Record
from streamguard.serving.decisions.wording import refusal
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.projection.reader import waiting
from streamguard.serving.query.actions import ActionQueries
from streamguard.serving.query.answers import BulkAnswer, BulkPreview, IncidentAnswer
from streamguard.serving.query.bulk import ChangedListError, preview_of, require_many
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.requests import ActionRequest, ConflictError, action_of
from streamguard.serving.query.undoing import undoing

WAIT_SECONDS = 2.0
"""How long an answer waits for the own projection; it has an action within a tenth of a second."""
_STEP_SECONDS = 0.005
MAX_BULK = 10_000
"""Incidents of one action over a list; a person who means more narrows the list."""
MAX_UNSURE = 32
"""Actions on lists that a server remembers after Kafka has not acknowledged them: 32 take at most 50 MB."""


class NotUpToBoundError(TemporaryError):
    """The projection has not reached what the request requires."""


class CaseDesk:
    """Acts on incidents; every method may be called from any thread.

    Parameters
    ----------
    incidents, actions
        Answers about incidents, and about what people have done.
    writer
        Writes actions to Kafka.
    position
        Returns the offset up to which the projection has the topic of decisions.
    """

    def __init__(
        self,
        incidents: IncidentQueries,
        actions: ActionQueries,
        writer: ActionWriter,
        position: Callable[[], int],
    ) -> None:
        self._incidents = incidents
        self._actions = actions
        self._writer = writer
        self._position = position
        self._bulk = threading.Lock()
        self._unsure: dict[str, CaseAction] = {}
        """Actions on lists, by id, of which it is not known whether they are written."""

    def act(
        self, id: str, wanted: ActionRequest, by: str, action_id: str = "", *, masked: bool = False
    ) -> IncidentAnswer:
        """Act on one incident, and answer when the projection has the action.

        Parameters
        ----------
        by
            Who acts.
        action_id
            Id of the action; a repeated request with the same id acts once. Empty: a new id.
        masked
            Whether who acts sees pseudonyms only.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        ConflictError
            If somebody else has acted before.
        NotUpToBoundError
            If the action is written, and the projection does not have it in time.
        """
        found = self._incidents.incident(id)
        done = next((entry for entry in found.case.history if action_id and entry.id == action_id), None)
        if done is not None:
            if done.rejected:
                raise ConflictError(refusal(done.rejected, found.case))
            return found
        if wanted.duplicate_of:
            self._require_other(wanted.duplicate_of)
        target = Target(
            id=id,
            seen=found.row.alerts if wanted.seen is None else wanted.seen,
            expected=found.case.last_action if wanted.expected is None else wanted.expected,
        )
        action = action_of(wanted, (target,), by, action_id or new_id(), found, masked)
        with waiting():
            offset = self._writer.write(action)
        self.wait_for(offset + 1)
        answer = self._incidents.incident(id)
        entry = next((one for one in answer.case.history if one.id == action.id), None)
        if entry is not None and entry.rejected:
            raise ConflictError(refusal(entry.rejected, answer.case))
        return answer

    def _require_other(self, id: str) -> None:
        """Refuse an incident as the one that is repeated, if there is none of this id."""
        try:
            self._incidents.incident(id)
        except NotFoundError:
            raise ConflictError(
                f"the incident {id[:100]!r}, which this one repeats, does not exist: copy the id from its page",
                "duplicate_of",
            ) from None

    def note(self, id: str, text: str, by: str, action_id: str, record: Record) -> int:
        """Write a record of another topic together with a comment on the incident, and return the record's offset.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        UnavailableError
            If Kafka does not acknowledge both in time.
        """
        found = self._incidents.incident(id)
        target = Target(id=id, seen=found.row.alerts, expected=found.case.last_action)
        comment = action_of(
            ActionRequest(kind="comment", text=text), (target,), by, action_id, None, masked=False
        )
        with waiting():
            own, (offset,) = self._writer.write_together([comment], [record])
        with contextlib.suppress(NotUpToBoundError):  # both are written, and the answer has to say so
            self.wait_for(own + 1)
        return offset

    def act_on_list(
        self,
        filter: IncidentFilter,
        wanted: ActionRequest,
        by: str,
        action_id: str = "",
        *,
        confirmed: str = "",
        masked: bool = False,
    ) -> BulkAnswer:
        """Act on all incidents of a list, as the projection has them now.

        Parameters
        ----------
        action_id
            Id of the action. A repeated request with the same id acts on the incidents of the first one, and once.
        confirmed
            Fingerprint of the list that a person has confirmed, see `preview_list`; empty: none has.

        Raises
        ------
        ConflictError
            If the list has more than `MAX_BULK` incidents, or the action needs a single incident.
        ChangedListError
            If the list does not have the incidents that were confirmed.
        NotUpToBoundError
            If the action is written, and the projection does not have it in time; or if other actions on lists are
            being written.
        """
        require_many(wanted)
        with waiting():
            free = self._bulk.acquire(timeout=WAIT_SECONDS)
        if not free:
            raise NotUpToBoundError("another action on a list is being written: ask again in a moment")
        try:
            if action_id and (done := self._done(action_id)):
                return done
            action = self._unsure.get(action_id) or self._on_list(
                filter, wanted, by, action_id, confirmed, masked=masked
            )
            if action is None:
                return BulkAnswer("", 0, 0, "")
            if action_id:  # until it is known to be written, a repeated request is about the same incidents
                self._unsure[action_id] = action
                if len(self._unsure) > MAX_UNSURE:
                    del self._unsure[next(iter(self._unsure))]
            with waiting():
                last, _ = self._writer.write_together(split(action))
            self._unsure.pop(action_id, None)
        finally:
            self._bulk.release()
        self.wait_for(last + 1)
        accepted = self._actions.accepted(action.id)
        return BulkAnswer(action.id, len(action.incidents), accepted, f"d{last + 1}")

    def undo_on_list(
        self, action: str, by: str, reason: str = "", action_id: str = "", *, masked: bool = False
    ) -> BulkAnswer:
        """Undo an action on a list, on every incident on which it still has an effect.

        Parameters
        ----------
        action_id
            Id of the undo; a repeated request with the same id acts once. Empty: a new id.

        Raises
        ------
        NotFoundError
            If there is no such action.
        ConflictError
            If it is undone, or is an action that stays.
        NotUpToBoundError
            As `act_on_list`.
        """
        if action_id and (done := self._done(action_id)):
            return done
        if not self._actions.incidents_of(action):
            raise NotFoundError(f"there is no action {action[:100]!r}")
        parts = self._actions.parts(action)
        if not parts:
            raise ConflictError("the action has no effect any more")
        records = undoing(parts, by, action_id or new_id(), reason, masked=masked)
        with waiting():
            last, _ = self._writer.write_together(records)
        self.wait_for(last + 1)
        return BulkAnswer(records[0].id, len(parts), self._actions.accepted(records[0].id), f"d{last + 1}")

    def preview_list(self, filter: IncidentFilter, wanted: ActionRequest) -> BulkPreview:
        """What an action on a list would be about, as the projection has the list now.

        Raises
        ------
        ConflictError
            As `act_on_list`.
        """
        require_many(wanted)
        return preview_of(self._targets(filter))

    def _on_list(
        self,
        filter: IncidentFilter,
        wanted: ActionRequest,
        by: str,
        action_id: str,
        confirmed: str,
        *,
        masked: bool,
    ) -> CaseAction | None:
        """The action on the incidents that the list has now; None if it has none."""
        targets = self._targets(filter)
        if confirmed and (found := preview_of(targets)).fingerprint != confirmed:
            raise ChangedListError(found)
        return action_of(wanted, tuple(targets), by, action_id or new_id(), None, masked) if targets else None

    def _targets(self, filter: IncidentFilter) -> list[Target]:
        targets = self._actions.targets(filter, MAX_BULK + 1)
        if len(targets) > MAX_BULK:
            raise ConflictError(f"the list has more than {MAX_BULK:,} entries: narrow it by a filter")
        return targets

    def _done(self, action_id: str) -> BulkAnswer | None:
        """The answer to an action that is in the topic; None if it is not."""
        if not self._actions.incidents_of(action_id):
            with waiting():
                end = self._writer.end()
            self.wait_for(end)
        ids = self._actions.incidents_of(action_id)
        if not ids:
            return None
        return BulkAnswer(action_id, len(ids), self._actions.accepted(action_id), f"d{self._position()}")

    def wait_for(self, offset: int) -> None:
        """Wait until the projection has the topic of decisions up to an offset.

        Raises
        ------
        NotUpToBoundError
            If it takes longer than `WAIT_SECONDS`.
        """
        ends = time.monotonic() + WAIT_SECONDS
        with waiting():
            while self._position() < offset:
                if time.monotonic() > ends:
                    raise NotUpToBoundError(
                        f"this server has decisions up to offset {self._position():,}, and {offset:,} are required: "
                        "ask again in a moment; what was written is not lost"
                    )
                time.sleep(_STEP_SECONDS)
