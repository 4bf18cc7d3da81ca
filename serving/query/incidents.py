"""Questions about incidents and campaigns: lists, one of them, counts by value, and entities by risk."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from streamguard.alerts.incident import Entity, decode, rfc3339
from streamguard.campaigns.record import decode as decode_campaign
from streamguard.risk import SEVERITIES
from streamguard.serving.decisions.ledger import Entry, ledger
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.projection import rows
from streamguard.serving.projection.rows import CURRENT
from streamguard.serving.query import cursor, facets
from streamguard.serving.query.answers import (
    CampaignAnswer,
    EarlierIncident,
    EarlierIncidents,
    Facets,
    IncidentAnswer,
    IncidentRow,
    Incidents,
    PublishedUpdate,
)
from streamguard.serving.query.condition import Condition
from streamguard.serving.query.filters import Conditions, IncidentFilter, Sort
from streamguard.serving.query.matches import json_array, numbers
from streamguard.serving.query.reading import NotFoundError, Reading

MAX_PUBLICATIONS = 2_000
"""Publications of one user that a preview looks at, the latest."""
MAX_EXPORT = 10_000
"""Rows of a table: as many as one action on a list reaches. They are read in one state of the projection, and take some
megabytes of memory."""
MAX_EARLIER = 5
"""Earlier incidents that are shown with one: a person compares a few."""
REASONS_SHOWN = 3
"""Reasons of an incident in a list."""
_COLUMNS = {"evidence": "evidence", "time": "last_ms"}


class IncidentQueries(Reading):
    """Lists of incidents, counts of a list, one incident, one campaign."""

    def page(
        self, wanted: IncidentFilter, sort: Sort = "evidence", limit: int = 50, after: str | None = None
    ) -> Incidents:
        """A page of incidents, the strongest or the latest first.

        Parameters
        ----------
        after
            The cursor of the page before; None: the first page.

        Raises
        ------
        CursorError
            If the cursor is not one of this list.
        """
        as_of = self._as_of()  # before the rows are read, so that it promises nothing that they lack
        column = _COLUMNS[sort]
        limit = max(1, min(limit, MAX_EXPORT))
        start = None if after is None else cursor.decode((wanted, sort), after)
        with self._one_state():
            found = numbers(self._rows, Conditions(wanted), sort, limit + 1, start)
            rows = self._rows(
                f"SELECT i.*, u.value FROM incidents i {CURRENT} WHERE i.number IN "  # noqa: S608
                f"(SELECT value FROM json_each(?)) ORDER BY i.{column} DESC, i.id",
                json_array(found),
            )
        following = None
        if len(rows) > limit:
            last = rows[limit - 1]
            following = cursor.encode((wanted, sort), last[column], last["id"])
        return Incidents(tuple(_row(row) for row in rows[:limit]), following, as_of)

    def facets(self, wanted: IncidentFilter) -> Facets:
        """Counts of a list, in total and by value.

        In a list with one row for a campaign, the row counts for each value that one of its selected incidents has.
        """
        as_of = self._as_of()
        with self._one_state():
            total, counts = facets.counted(self._rows, Conditions(wanted))
        return Facets(total=total, as_of=as_of, **counts)

    def incident(self, id: str) -> IncidentAnswer:
        """One incident with every publication of it, the oldest first.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        """
        as_of = self._as_of()
        found = self._rows(f"SELECT i.*, u.value FROM incidents i {CURRENT} WHERE i.id = ?", id)  # noqa: S608
        if not found:
            raise NotFoundError(f"there is no incident {id[:100]!r}: it may have expired with its records")
        updates = [
            PublishedUpdate(partition, offset, decode(value))
            for partition, offset, value in self._rows(
                "SELECT partition, offset, value FROM updates WHERE incident = ?", id
            )
        ]
        record = next(
            (
                decode_campaign(value)
                for (value,) in self._rows(
                    "SELECT c.value FROM members m JOIN campaigns c ON c.id = m.campaign WHERE m.incident = ? "
                    "ORDER BY c.id LIMIT 1",
                    id,
                )
            ),
            None,
        )
        return IncidentAnswer(
            incident=decode(found[0]["value"]),
            row=_row(found[0]),
            updates=tuple(sorted(updates, key=lambda one: (one.incident.count, one.partition, one.offset))),
            campaign=record.campaign if record is not None and record.campaign.size > 1 else None,
            decision=record.decision if record is not None else None,
            case=rows.case(
                self._store.reader(), decode(found[0]["value"]), [one.incident for one in updates]
            ),
            token=_token(as_of),
            as_of=as_of,
        )

    def earlier(self, id: str) -> EarlierIncidents:
        """How incidents before this one were closed that have the same entity, or the same strongest pattern or reason.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        """
        as_of = self._as_of()
        with self._one_state():
            own = self._rows("SELECT entity_kind, entity, kind, last_ms FROM incidents WHERE id = ?", id)
            if not own:
                raise NotFoundError(
                    f"there is no incident {id[:100]!r}: it may have expired with its records"
                )
            kind, name, reason, until = own[0]
            before = IncidentFilter(status=("closed",), until=until)
            of_entity = Conditions(msgspec.structs.replace(before, entity=(name,), kind=(kind,)))
            of_kind = Conditions(before)
            of_kind.shapes.append(Condition("kind = ?", (reason,)))
            found = [
                number
                for where in (of_entity, of_kind)
                for number in numbers(self._rows, where, "time", MAX_EARLIER, None)
            ]
            order = list(dict.fromkeys(found))[:MAX_EARLIER]
            read = self._rows(
                f"SELECT i.*, u.value FROM incidents i {CURRENT} WHERE i.number IN "  # noqa: S608
                "(SELECT value FROM json_each(?))",
                json_array(order),
            )
            earlier = [
                EarlierIncident(
                    incident=_row(row),
                    closed=self._closing(row["id"]),
                    same_entity=(row["entity_kind"], row["entity"]) == (kind, name),
                    same_kind=row["kind"] == reason,
                )
                for row in sorted(read, key=lambda row: order.index(row["number"]))
            ]
        return EarlierIncidents(tuple(earlier), as_of)

    def _closing(self, id: str) -> Entry | None:
        """The action that has closed an incident."""
        history = ledger(id, rows.actions(self._store.reader(), id)).history
        closing = (one for one in history if one.kind == "close" and not one.rejected and not one.undone_by)
        return max(closing, key=lambda one: one.offset, default=None)

    def published_for(
        self, topic: str, events: Sequence[tuple[int, int, str]]
    ) -> dict[tuple[int, int], tuple[str, ...]]:
        """Ids of the incidents that were published for some events, by the partition and offset of the event.

        Parameters
        ----------
        topic
            Name of the topic of the events.
        events
            (partition, offset, id that its sender has given it, or empty). A topic of this name that was deleted and
            created again has other events at the same places, which differ by their ids if they have any.
        """
        found: dict[tuple[int, int], tuple[str, ...]] = {}
        for partition, offset, incident in self._rows(
            "SELECT origin_partition, origin_offset, incident FROM json_each(?) AS wanted JOIN updates "
            "ON origin_partition = wanted.value ->> 0 AND origin_offset = wanted.value ->> 1 "
            "WHERE CAST(updates.value AS TEXT) ->> '$.origin.topic' = ? "
            "AND (event_id = '' OR wanted.value ->> 2 IN ('', event_id)) ORDER BY incident",
            msgspec.json.encode(events).decode(),
            topic,
        ):
            found[partition, offset] = (*found.get((partition, offset), ()), incident)
        return found

    def publications(self, user: str) -> list[tuple[bytes, str]]:
        """(JSON, classification of the incident) of each publication of a user's incidents."""
        found = self._rows(
            "SELECT u.value, i.classification FROM incidents i JOIN updates u ON u.incident = i.id "
            "WHERE i.entity = ? AND i.entity_kind = 'user' ORDER BY i.last_ms DESC LIMIT ?",
            user,
            MAX_PUBLICATIONS,
        )
        return [(value, classification) for value, classification in found]

    def campaign(self, id: str) -> CampaignAnswer:
        """One campaign.

        Raises
        ------
        NotFoundError
            If there is no such campaign, or none of its incidents is here any more, such as those of a forgotten user.
        """
        as_of = self._as_of()
        rows = self._rows(
            "SELECT value FROM campaigns c WHERE id = ? AND EXISTS "
            "(SELECT 1 FROM members m JOIN incidents i ON i.id = m.incident WHERE m.campaign = c.id)",
            id,
        )
        if not rows:
            raise NotFoundError(
                f"there is no campaign {id[:100]!r}: it may have become part of another one, whose incidents show it"
            )
        record = decode_campaign(rows[0][0])
        return CampaignAnswer(record.campaign, record.decision, as_of)


def _row(row: sqlite3.Row) -> IncidentRow:
    incident = decode(row["value"])
    return IncidentRow(
        id=row["id"],
        entity=Entity(row["entity_kind"], row["entity"]),
        severity=SEVERITIES[row["severity"]],
        risk=row["risk"],
        evidence_bits=row["evidence"],
        first_seen=rfc3339(row["first_ms"]),
        last_seen=rfc3339(row["last_ms"]),
        alerts=row["alerts"],
        technique=row["technique"] or None,
        kind=row["kind"],
        patterns=tuple(row["patterns"].split()),
        reasons=incident.reasons[:REASONS_SHOWN],
        status=row["status"],
        assignee=row["assignee"],
        classification=row["classification"],
        snoozed_until=row["snoozed_until"] or None,
        muted=bool(row["muted"]),
        last_action=row["last_action"],
        raised=bool(row["raised"]),
        campaign=row["campaign"] or None,
        campaign_incidents=row["campaign_incidents"],
        entered=row["entered"],
    )


def _token(as_of: tuple[AsOf, ...]) -> str:
    """The consistency token of the topic of decisions, which is followed last."""
    positions = as_of[-1].positions if as_of else ()
    return f"d{positions[0].offset}" if positions else "d0"
