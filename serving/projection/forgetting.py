"""Drops what the store has of users who are forgotten, and keeps it from being added again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import Forgotten
from streamguard.decisions.forgotten_users import ForgottenUsers
from streamguard.serving.projection.update import Update


def forgotten_users(db: sqlite3.Connection, topic_id: str | None) -> ForgottenUsers:
    """The users who are forgotten, as the store has them.

    Parameters
    ----------
    topic_id
        Kafka's id of the alerts topic. A record about another topic of this name says nothing about it.
    """
    found = (forgotten.decode(value) for (value,) in db.execute("SELECT value FROM forgotten"))
    return ForgottenUsers([one for one in found if one.topic_id == topic_id])


def kept(updates: Iterable[Update], users: ForgottenUsers) -> list[Update]:
    """The updates that are not of a user who was forgotten after them."""
    return [
        one
        for one in updates
        if one.incident.entity.kind != "user"
        or not users.has(one.incident.entity.value, one.partition, one.offset)
    ]


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
