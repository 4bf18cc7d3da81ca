"""Drops what the store has of users who are forgotten, and keeps it from being added again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import lru_cache

from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import Forgotten
from streamguard.serving.projection.update import Update

MAX_NAMES = 16_384
"""Users of whom an index remembers which records are about them: 1 MB of names."""


class ForgottenUsers:
    """Records of users who are forgotten, by the hash of the name.

    The records about one topic have one salt, so a name is hashed once, whatever their number. Records of earlier
    versions have a salt each, and a name is hashed with each of them, once for as long as the name is remembered.

    Parameters
    ----------
    records
        Those about the alerts topic that is followed.
    """

    def __init__(self, records: Iterable[Forgotten]) -> None:
        self._of: dict[str, dict[str, list[Forgotten]]] = {}
        for one in records:
            self._of.setdefault(one.salt, {}).setdefault(one.digest, []).append(one)
        self._about = lru_cache(MAX_NAMES)(self._looked_up)

    @classmethod
    def read(cls, db: sqlite3.Connection, topic_id: str | None) -> ForgottenUsers:
        """The records that the store has.

        Parameters
        ----------
        topic_id
            Kafka's id of the alerts topic. A record about another topic of this name says nothing about it.
        """
        found = (forgotten.decode(value) for (value,) in db.execute("SELECT value FROM forgotten"))
        return cls([one for one in found if one.topic_id == topic_id])

    def kept(self, updates: Iterable[Update]) -> list[Update]:
        """The updates that are not of a user who was forgotten after them."""
        return [one for one in updates if not (self._of and self._is_dropped(one))]

    def _is_dropped(self, one: Update) -> bool:
        entity = one.incident.entity
        return entity.kind == "user" and any(
            record.reaches(one.partition, one.offset) for record in self._about(entity.value)
        )

    def _looked_up(self, user: str) -> tuple[Forgotten, ...]:
        return tuple(
            record
            for salt, by_digest in self._of.items()
            for record in by_digest.get(forgotten.digest_of(user, salt), ())
        )


def forget(db: sqlite3.Connection, records: Iterable[tuple[bytes, int, Forgotten]]) -> set[str]:
    """Add records and delete what they are about; returns the incidents that change.

    Parameters
    ----------
    records
        (key, offset, record), with key and offset of the record in the topic of decisions.
    """
    touched = set[str]()
    names: dict[str, dict[str, str]] = {}
    for key, offset, record in records:
        db.execute(
            "INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?)", (offset, key, forgotten.encode(record))
        )
        touched.update(record.incidents)
        db.executemany(
            "DELETE FROM actions WHERE incident = ? AND offset < ?", [(id, offset) for id in record.incidents]
        )
        if db.execute("SELECT 1 FROM followed WHERE id = ?", (record.topic_id,)).fetchone() is None:
            continue  # these updates are not here, and are not added when they are read
        if record.salt not in names:
            names[record.salt] = _names(db, record.salt)
        touched |= _drop(db, record, names[record.salt].get(record.digest))
    return touched


def _names(db: sqlite3.Connection, salt: str) -> dict[str, str]:
    """The users who have incidents, by the hash of the name."""
    rows = db.execute("SELECT DISTINCT entity FROM incidents WHERE entity_kind = 'user'")
    return {forgotten.digest_of(name, salt): name for (name,) in rows}


def _drop(db: sqlite3.Connection, record: Forgotten, user: str | None) -> set[str]:
    """Delete the updates of a user, and of the incidents that a record names, up to the record."""
    own = set(record.incidents)
    if user is not None:
        own |= {
            row[0]
            for row in db.execute(
                "SELECT id FROM incidents WHERE entity_kind = 'user' AND entity = ?", (user,)
            )
        }
    for id in own:
        places = db.execute(
            "SELECT rowid, partition, offset FROM updates WHERE incident = ?", (id,)
        ).fetchall()
        db.executemany(
            "DELETE FROM updates WHERE rowid = ?",
            [(row,) for row, partition, place in places if record.reaches(partition, place)],
        )
    return own
