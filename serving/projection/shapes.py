"""Counts the incidents that are alike in all that lists are filtered and counted by, except names and times."""

from __future__ import annotations

import sqlite3

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.serving.projection.entry import Entry

COLUMNS = (
    "severity", "entity_kind", "kind", "patterns", "techniques", "status", "assignee", "classification", "muted",
    "lead", "raised",
)  # fmt: skip
"""Columns of `shapes` by which two shapes differ."""
_JOIN = (
    f"INSERT INTO shapes ({', '.join(COLUMNS)}, incidents) VALUES ({', '.join('?' * len(COLUMNS))}, 1) "  # noqa: S608
    "ON CONFLICT DO UPDATE SET incidents = incidents + 1 RETURNING number"
)


def join(db: sqlite3.Connection, row: Entry, incident: Incident) -> int:
    """Count one more incident, and return the number of its shape."""
    names = {one.name for one in incident.patterns}
    techniques = {one.technique for one in incident.patterns} | ({row.technique} if row.technique else set())
    values = row._asdict() | {"patterns": _array(names), "techniques": _array(techniques)}
    ((number,),) = db.execute(_JOIN, [values[name] for name in COLUMNS]).fetchall()
    return int(number)


def leave(db: sqlite3.Connection, number: int) -> None:
    """Count one incident of a shape less; a shape that no incident has is deleted."""
    db.execute("UPDATE shapes SET incidents = incidents - 1 WHERE number = ?", (number,))
    db.execute("DELETE FROM shapes WHERE number = ? AND incidents = 0", (number,))


def _array(names: set[str]) -> str:
    return msgspec.json.encode(sorted(names)).decode()
