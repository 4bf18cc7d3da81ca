"""Questions about the actions of people: what they are about, which have an effect, and the audit trail."""

from __future__ import annotations

from streamguard.serving.decisions import codec
from streamguard.serving.decisions.ledger import ledger
from streamguard.serving.decisions.record import CaseAction, Target
from streamguard.serving.projection import rows
from streamguard.serving.query.answers import Audit, AuditEntry
from streamguard.serving.query.filters import Conditions, IncidentFilter
from streamguard.serving.query.reading import MAX_PAGE, Reading


class ActionQueries(Reading):
    """The actions on incidents."""

    def targets(self, wanted: IncidentFilter, limit: int) -> list[Target]:
        """The incidents of a list as an action names them, each with what is known of it now."""
        where = Conditions(wanted).rows
        found = self._rows(
            f"SELECT id, alerts, last_action FROM incidents WHERE {where.text} ORDER BY id LIMIT ?",  # noqa: S608
            *where.values,
            limit,
        )
        return [Target(id=id, seen=alerts, expected=last) for id, alerts, last in found]

    def incidents_of(self, action: str) -> set[str]:
        """The incidents that an action, or a part of it, is about."""
        found = self._rows("SELECT incident FROM actions WHERE key >= ? AND key < ?", *_keys(action))
        return {id for (id,) in found}

    def parts(self, action: str) -> list[tuple[str, CaseAction]]:
        """(incident, the action on this incident alone) of an action on a list, where it has an effect now."""
        db = self._store.reader()
        found = self._rows(
            "SELECT incident, value FROM actions WHERE key >= ? AND key < ? ORDER BY offset, incident",
            *_keys(action),
        )
        parts = {(incident, one.id): one for incident, value in found for one in [codec.decode(value)]}
        in_force = {
            (incident, one.action.id)
            for incident in {incident for incident, _ in parts}
            for one in ledger(incident, rows.actions(db, incident)).in_force
        }
        return [(incident, one) for (incident, id), one in parts.items() if (incident, id) in in_force]

    def accepted(self, action: str) -> int:
        """Number of incidents on which an action, or a part of it, has an effect."""
        db, accepted = self._store.reader(), 0
        for id in self.incidents_of(action):
            entries = ledger(id, rows.actions(db, id)).history
            accepted += any(not one.rejected and one.id.partition(".")[0] == action for one in entries)
        return accepted

    def audit(self, limit: int = 100, before: int | None = None) -> Audit:
        """Actions of people on incidents, the latest first, before an offset of the topic of decisions."""
        as_of = self._as_of()
        found = self._rows(
            "SELECT offset, incident, value FROM actions WHERE offset < ? ORDER BY offset DESC, incident LIMIT ?",
            before if before is not None else 1 << 62,
            max(1, min(limit, MAX_PAGE)),
        )
        entries = (AuditEntry(offset, incident, codec.decode(value)) for offset, incident, value in found)
        return Audit(tuple(entries), as_of)


def _keys(action: str) -> tuple[bytes, bytes]:
    """The range of keys of the records of an action, see `streamguard.serving.decisions.writer.key_of`.

    An action on many incidents has several records, with the ids `id`, `id.1` and so on.
    """
    return action.encode() + b".", action.encode() + b"0"  # "." and "/" are between these
