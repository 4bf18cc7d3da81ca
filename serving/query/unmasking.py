"""Who may see names: asks for the names of one incident, answers such requests, and says to whom they are shown now."""

from __future__ import annotations

import msgspec

from streamguard.serving.decisions.record import VERSION, Target, Unmask, UnmaskAnswer, new_id
from streamguard.serving.decisions.unmasking import State, Unmasking
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.projection.reader import waiting
from streamguard.serving.query.answers import Unmaskings
from streamguard.serving.query.cases import CaseDesk, NotUpToBoundError
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.reading import MAX_PAGE, NotFoundError, Reading
from streamguard.serving.query.requests import ConflictError, now

_decode = msgspec.json.Decoder(Unmasking).decode


class NameQueries(Reading):
    """Questions about requests for names."""

    def listed(self, states: tuple[State, ...] = (), limit: int = 100, asker: str = "") -> Unmaskings:
        """Requests in some states, the latest first; with an asker, only those of this person."""
        as_of = self._as_of()
        marks = ", ".join("?" * len(states))
        conditions = [f"state IN ({marks})"] if states else []
        conditions += ["person = ?"] if asker else []
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        found = self._rows(
            f"SELECT value FROM unmaskings {where}ORDER BY at DESC, incident, place LIMIT ?",  # noqa: S608 - marks only
            *states,
            *([asker] if asker else []),
            max(1, min(limit, MAX_PAGE)),
        )
        return Unmaskings(tuple(_decode(value) for (value,) in found), as_of)

    def of_incident(self, id: str) -> tuple[Unmasking, ...]:
        """The requests for the names of an incident, in the order of the log."""
        found = self._rows("SELECT value FROM unmaskings WHERE incident = ? ORDER BY place", id)
        return tuple(_decode(value) for (value,) in found)

    def request(self, id: str) -> Unmasking:
        """A request.

        Raises
        ------
        NotFoundError
            If there is no such request.
        """
        found = self._rows("SELECT value FROM unmaskings WHERE id = ? ORDER BY incident LIMIT 1", id)
        if not found:
            raise NotFoundError(f"there is no request for names {id[:100]!r}")
        return _decode(found[0][0])

    def shown_of(self, incident: str, person: str) -> bool:
        """Whether the names of an incident are shown to a person now."""
        return bool(
            self._rows(
                "SELECT 1 FROM unmaskings WHERE incident = ? AND person = ? AND until > ? LIMIT 1",
                incident, person, now(),
            )
        )  # fmt: skip

    def shown_user(self, user: str, person: str) -> bool:
        """Whether an incident of a user is unmasked for a person now, so that the profile may be opened."""
        return bool(
            self._rows(
                "SELECT 1 FROM unmaskings m JOIN incidents i ON i.id = m.incident "
                "WHERE m.person = ? AND m.until > ? AND i.entity_kind = 'user' AND i.entity = ? LIMIT 1",
                person, now(), user,
            )
        )  # fmt: skip


class UnmaskDesk:
    """Asks for names and answers such requests; every method may be called from any thread.

    Parameters
    ----------
    incidents, names
        Answers about incidents, and about requests.
    cases
        Waits until the projection has what was written.
    writer
        Writes to the topic of decisions.
    """

    def __init__(
        self, incidents: IncidentQueries, names: NameQueries, cases: CaseDesk, writer: ActionWriter
    ) -> None:
        self._incidents, self._names, self._cases, self._writer = incidents, names, cases, writer

    def ask(self, incident: str, reason: str, by: str, *, masked: bool) -> Unmasking:
        """Ask for the names of an incident; an open request of the same person, or a grant that holds, is the answer.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        RecordError
            If there is no reason.
        """
        found = self._incidents.incident(incident)
        for one in self._names.of_incident(incident):
            if one.by == by and (one.state == "open" or (one.until is not None and one.until > now())):
                return one
        made = Unmask(
            version=VERSION,
            id=new_id(),
            incidents=(Target(id=incident, seen=found.row.alerts, expected=found.case.last_action),),
            by=by,
            at=now(),
            reason=reason,
            masked=masked,
            severity=found.row.severity,
        )
        return self._written(made, made.id)

    def answer(self, request: str, granted: bool, reason: str, by: str, *, masked: bool) -> Unmasking:
        """Grant or refuse a request; of an incident that was unmasked at once, agree to it or end it.

        Raises
        ------
        NotFoundError
            If there is no such request.
        ConflictError
            If it is the own one, or is answered.
        """
        known = self._names.request(request)
        if known.by == by:
            raise ConflictError("you have asked for these names yourself: somebody else has to answer")
        if not known.answered_by:
            made = UnmaskAnswer(
                version=VERSION,
                id=new_id(),
                incidents=(Target(id=known.incident, seen=0),),
                by=by,
                at=now(),
                reason=reason,
                masked=masked,
                request=request,
                granted=granted,
            )
            known = self._written(made, request)
        if known.answered_by != by or (known.state == "granted") != granted:
            raise ConflictError(
                f"{known.answered_by} has answered at {known.answered_at[:16]} UTC: {known.state}"
            )
        return known

    def _written(self, made: Unmask | UnmaskAnswer, request: str) -> Unmasking:
        with waiting():
            offset = self._writer.write(made)
        self._cases.wait_for(offset + 1)
        try:
            return self._names.request(request)
        except NotFoundError:
            raise NotUpToBoundError("the request is written, and not to be seen yet: look again") from None
