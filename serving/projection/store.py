"""The projection: what the topics hold, as sets, and the rows that follow from them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from streamguard.campaigns.record import CampaignRecord
from streamguard.decisions.forgotten import Forgotten
from streamguard.decisions.forgotten_users import ForgottenUsers
from streamguard.serving.decisions import codec
from streamguard.serving.decisions.bulk import by_incident
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.projection import forgetting, ranking, rows
from streamguard.serving.projection.database import Database
from streamguard.serving.projection.entry import event_id
from streamguard.serving.projection.groups import put_campaign
from streamguard.serving.projection.reader import DamagedStoreError
from streamguard.serving.projection.update import Update

Positions = Mapping[int, tuple[int, int]]
"""By partition, the offset of the next record and the time of the latest one."""


class Store(Database):
    """The projection, in its database.

    An incident is a function of the set of its updates, of the actions of people and of its campaign. Each method adds
    to one of these sets and computes again what depends on it, in one transaction with the positions in the topic. So
    neither the order nor repetitions matter, and a store that is built again equals one that has followed the topics.

    Parameters
    ----------
    directory
        Holds the database; created if it is missing.
    floor
        Setting `detection.floor_bits`, which decides about incidents without a campaign.
    pseudonym_of
        Returns the pseudonym of an entity, given its kind and name; without it, no incident is found by one.
    fingerprint
        Differs for other pseudonyms.

    Raises
    ------
    CannotWriteError
        If the database cannot be opened or written.

    Attributes
    ----------
    loading
        Topics that are being read from their beginnings. Entities are ranked once all of them are read (`loaded`): one
        that has thousands of incidents would otherwise be computed for each of them.
    """

    def __init__(
        self,
        directory: Path,
        floor: float,
        pseudonym_of: rows.PseudonymOf = lambda _kind, _name: "",
        fingerprint: str = "",
    ) -> None:
        super().__init__(directory)
        self.loading: set[str] = set()
        self._floor, self._pseudonym_of = floor, pseudonym_of
        self._forgotten: tuple[tuple[int, str | None], ForgottenUsers] | None = None
        # A damaged database is replaced before the first topic is followed.
        with contextlib.suppress(DamagedStoreError), self.transaction() as db:
            rows.rename(db, pseudonym_of, fingerprint)

    def loaded(self, topic: str) -> None:
        """Note that a topic was read to its end, and after the last one rank the entities."""
        if topic not in self.loading:
            return
        self.loading.discard(topic)
        if not self.loading:
            with self.transaction() as db:
                ranking.compute(db)

    def add_updates(self, topic: str, updates: Iterable[Update], positions: Positions) -> None:
        """Add updates of incidents; of two with the same origin, the one that was published last counts.

        Updates that are to be forgotten are not added.
        """
        with self.transaction() as db:
            updates = forgetting.kept(updates, self._forgotten_users(db, topic))
            db.executemany(
                "INSERT INTO updates VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET partition = "
                "excluded.partition, offset = excluded.offset, value = excluded.value, event_id = excluded.event_id "
                "WHERE (excluded.partition, excluded.offset) > (partition, offset)",
                [
                    (
                        one.incident.id, one.incident.origin.partition, one.incident.origin.offset, one.partition,
                        one.offset, one.value, event_id(one.incident.event),
                    )
                    for one in updates
                ],
            )  # fmt: skip
            self._compute(db, {one.incident.id for one in updates})
            self.move(db, topic, positions)

    def drop_before(self, starts: Mapping[int, int]) -> bool:
        """Forget the updates that the topic has no longer; return whether there were any.

        Parameters
        ----------
        starts
            By partition, the first offset that the topic has.
        """
        with self.transaction() as db:
            touched = {
                row[0]
                for place in starts.items()
                for row in db.execute(
                    "SELECT incident FROM updates WHERE partition = ? AND offset < ?", place
                )
            }
            db.executemany("DELETE FROM updates WHERE partition = ? AND offset < ?", starts.items())
            self._compute(db, touched)
        return bool(touched)

    def clear_updates(self, db: sqlite3.Connection) -> None:
        """Forget every update, within a transaction."""
        for table in ("updates", "incidents", "shapes", "words", "entities", "changed_entities"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own tables

    def put_campaigns(
        self,
        topic: str,
        changes: Mapping[str, CampaignRecord | None],
        positions: Positions,
        values: Mapping[str, bytes],
    ) -> None:
        """Replace campaigns by their latest records, or delete them where the record is None."""
        with self.transaction() as db:
            touched = set[str]()
            for id, record in changes.items():
                touched |= put_campaign(db, id, record, values.get(id))
            self._compute(db, (), touched)
            self.move(db, topic, positions)

    def clear_campaigns(self, db: sqlite3.Connection) -> None:
        """Forget every campaign, within a transaction."""
        touched = {row[0] for row in db.execute("SELECT incident FROM members")}
        db.execute("DELETE FROM campaigns")
        db.execute("DELETE FROM members")
        self._compute(db, (), touched)

    def add_actions(
        self,
        topic: str,
        actions: Iterable[tuple[bytes, Logged]],
        deleted: Iterable[bytes],
        positions: Positions,
        forgotten: Iterable[tuple[bytes, int, Forgotten]] = (),
    ) -> None:
        """Add actions of people with the keys of their records, and forget those of deleted records.

        Parameters
        ----------
        actions
            (key, action with its offset).
        deleted
            Keys of records that were deleted after these.
        forgotten
            (key, offset, record) of users who are forgotten.
        """
        with self.transaction() as db:
            self._forgotten = None
            touched = set[str]()
            for key, (offset, action) in actions:
                for incident, own in by_incident(action):
                    values = (incident, offset, key, codec.encode(own))
                    db.execute("INSERT OR IGNORE INTO actions VALUES (?, ?, ?, ?)", values)
                    touched.add(incident)
            for key in deleted:
                touched |= {
                    row[0] for row in db.execute("SELECT incident FROM actions WHERE key = ?", (key,))
                }
                db.execute("DELETE FROM actions WHERE key = ?", (key,))
                db.execute("DELETE FROM forgotten WHERE key = ?", (key,))
            touched |= forgetting.forget(db, forgotten)
            rows.refresh_unmaskings(db, touched)
            touched |= rows.refresh_mutes(db, touched)
            self._compute(db, touched)
            self.move(db, topic, positions)

    def clear_actions(self, db: sqlite3.Connection) -> None:
        """Forget every action, within a transaction."""
        self._forgotten = None
        touched = {row[0] for row in db.execute("SELECT DISTINCT incident FROM actions")}
        db.execute("DELETE FROM actions")
        db.execute("DELETE FROM forgotten")
        rows.refresh_unmaskings(db, touched)
        touched |= rows.refresh_mutes(db, touched)
        self._compute(db, touched)

    def _forgotten_users(self, db: sqlite3.Connection, topic: str) -> ForgottenUsers:
        """Who is forgotten, read again after a change: within a transaction, as every change is."""
        row = db.execute("SELECT id FROM followed WHERE topic = ?", (topic,)).fetchone()
        id = row[0] if row is not None else None
        if self._forgotten is None or self._forgotten[0] != (self.generation, id):
            self._forgotten = (self.generation, id), forgetting.forgotten_users(db, id)
        return self._forgotten[1]

    def export(self) -> Iterator[bytes]:
        """Lines that depend on the sets alone, see `rows.export`."""
        return rows.export(self.reader())

    def _compute(
        self, db: sqlite3.Connection, incidents: Iterable[str], regrouped: Iterable[str] = ()
    ) -> None:
        """Compute what follows from the sets of incidents, and of those whose campaigns alone have changed."""
        rows.compute(db, incidents, self._floor, self._pseudonym_of, regrouped)
        if not self.loading:
            ranking.compute(db)
