"""Which campaign each incident is part of, and which incident stands for a campaign in a list."""

from __future__ import annotations

import sqlite3

from streamguard.campaigns.record import CampaignRecord, decode
from streamguard.serving.projection.entry import Membership, membership
from streamguard.serving.projection.shapes import Counting

_STRONGEST = (
    "SELECT number FROM incidents INDEXED BY incidents_by_campaign WHERE campaign = ? AND campaign <> '' {} "
    "ORDER BY evidence DESC, id DESC LIMIT 1"
)
_OPEN = _STRONGEST.format("AND status <> 'closed' AND NOT muted")
_LEAD = f"SELECT coalesce(({_OPEN}), ({_STRONGEST.format('')}))"
"""The incident that stands for a campaign: an open one that is not hidden, the strongest."""


class Groups:
    """The campaigns of incidents within one transaction; the rows say which incidents lead them after `elect`.

    What the row of an incident has of its campaign is changed in place. So neither an update of one of a thousand
    incidents, nor a record of their campaign that says nothing else of them, has the others computed.

    Parameters
    ----------
    db
        The database.
    counting
        Counts the shapes.
    """

    def __init__(self, db: sqlite3.Connection, counting: Counting) -> None:
        self._db, self._counting = db, counting
        self._records: dict[str, CampaignRecord] = {}
        self._changed = set[str]()

    def of(self, incident: str) -> Membership | None:
        """The campaign of an incident, which does not lead it before `elect`; None while no campaign of it is known."""
        row = self._db.execute(
            "SELECT c.id, c.value FROM members m JOIN campaigns c ON c.id = m.campaign WHERE m.incident = ? "
            "ORDER BY c.id LIMIT 1",
            (incident,),
        ).fetchone()
        if row is None:
            return None
        name, value = row
        if name not in self._records:
            self._records[name] = decode(value)
        return membership(self._records[name])

    def changed(self, campaign: str) -> None:
        """Note that the row of an incident of a campaign has changed; an empty id stands for none."""
        self._changed.add(campaign)

    def moved(self, incident: str) -> bool:
        """Change what the row of an incident has of its campaign; False if the incident has to be computed again."""
        row = self._db.execute(
            "SELECT number, shape, campaign, campaign_incidents, entered, raised, lead FROM incidents WHERE id = ?",
            (incident,),
        ).fetchone()
        if row is None:
            return True
        now = self.of(incident)
        if now is None:
            return False
        number, shape, campaign, *counts, raised, lead = row
        if counts != [now.incidents, now.entered]:
            self._db.execute(
                "UPDATE incidents SET campaign_incidents = ?, entered = ? WHERE number = ?",
                (now.incidents, now.entered, number),
            )
        leads = now.lead or (campaign == now.campaign and bool(lead))
        if (campaign, bool(raised), bool(lead)) != (now.campaign, now.raised, leads):
            self._db.execute(
                "UPDATE incidents SET campaign = ?, raised = ?, lead = ?, shape = ? WHERE number = ?",
                (
                    now.campaign, now.raised, leads,
                    self._counting.move(shape, leads, now.raised, alone=not now.campaign), number,
                ),
            )  # fmt: skip
            self._changed |= {campaign, now.campaign}
        return True

    def elect(self) -> None:
        """Have one incident of each campaign that has changed stand for it."""
        for campaign in sorted(self._changed - {""}):
            ((lead,),) = self._db.execute(_LEAD, (campaign, campaign)).fetchall()
            former = self._db.execute(
                "SELECT number FROM incidents WHERE campaign = ? AND campaign <> '' AND lead = 1", (campaign,)
            ).fetchall()
            for number in {number for (number,) in former} ^ ({lead} - {None}):
                shape, raised = self._db.execute(
                    "SELECT shape, raised FROM incidents WHERE number = ?", (number,)
                ).fetchone()
                self._db.execute(
                    "UPDATE incidents SET lead = ?, shape = ? WHERE number = ?",
                    (number == lead, self._counting.move(shape, number == lead, raised, alone=False), number),
                )


def put_campaign(
    db: sqlite3.Connection, id: str, record: CampaignRecord | None, value: bytes | None
) -> set[str]:
    """Replace the record of a campaign, or delete it if it is None; return the incidents for which that says something.

    Parameters
    ----------
    value
        The record as JSON.
    """
    former = db.execute("SELECT value FROM campaigns WHERE id = ?", (id,)).fetchone()
    before = {row[0] for row in db.execute("SELECT incident FROM members WHERE campaign = ?", (id,))}
    after = set[str]() if record is None else set(record.campaign.incidents)
    db.executemany(
        "DELETE FROM members WHERE incident = ? AND campaign = ?",
        [(incident, id) for incident in before - after],
    )
    db.executemany("INSERT INTO members VALUES (?, ?)", [(incident, id) for incident in after - before])
    if record is None:
        db.execute("DELETE FROM campaigns WHERE id = ?", (id,))
    else:
        db.execute("INSERT OR REPLACE INTO campaigns VALUES (?, ?)", (id, value))
    same = record is not None and former is not None and membership(record) == membership(decode(former[0]))
    return before ^ after if same else before | after
