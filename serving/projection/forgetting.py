"""Drops what the store has of users who are forgotten, and keeps it from being added again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import Forgotten
from streamguard.serving.projection.update import Update


def kept(db: sqlite3.Connection, topic: str, updates: Iterable[Update]) -> list[Update]:
    """The updates that are not of a user who was forgotten after them.

    Parameters
    ----------
    topic
        The alerts topic. A record about another topic of this name says nothing about it.
    """
    found = [forgotten.decode(value) for (value,) in db.execute("SELECT value FROM forgotten")]
    if found:
        row = db.execute("SELECT id FROM followed WHERE topic = ?", (topic,)).fetchone()
        found = [one for one in found if row is not None and one.topic_id == row[0]]
    return [one for one in updates if not any(_is_dropped(one, record) for record in found)]


def _is_dropped(one: Update, record: Forgotten) -> bool:
    entity = one.incident.entity
    return (
        entity.kind == "user" and record.reaches(one.partition, one.offset) and record.is_about(entity.value)
    )


def forget(db: sqlite3.Connection, key: bytes, offset: int, record: Forgotten) -> set[str]:
    """Add a record and delete what it is about; returns the incidents that change.

    Parameters
    ----------
    key, offset
        Key and offset of the record in the topic of decisions.
    """
    db.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?)", (offset, key, forgotten.encode(record)))
    touched = set(record.incidents)
    db.executemany(
        "DELETE FROM actions WHERE incident = ? AND offset < ?", [(id, offset) for id in record.incidents]
    )
    if db.execute("SELECT 1 FROM followed WHERE id = ?", (record.topic_id,)).fetchone() is None:
        return touched  # these updates are not here, and are not added when they are read
    names = db.execute("SELECT DISTINCT entity FROM incidents WHERE entity_kind = 'user'").fetchall()
    for (name,) in names:
        if record.is_about(name):
            touched |= {
                row[0]
                for row in db.execute(
                    "SELECT id FROM incidents WHERE entity_kind = 'user' AND entity = ?", (name,)
                )
            }
    for id in touched:
        places = db.execute(
            "SELECT rowid, partition, offset FROM updates WHERE incident = ?", (id,)
        ).fetchall()
        db.executemany(
            "DELETE FROM updates WHERE rowid = ?",
            [(row,) for row, partition, place in places if record.reaches(partition, place)],
        )
    return touched
