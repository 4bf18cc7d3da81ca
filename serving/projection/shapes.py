"""Counts the incidents that are alike in all that lists are filtered and counted by, except names and times."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.serving.projection.entry import Entry

COLUMNS = (
    "severity", "entity_kind", "kind", "patterns", "techniques", "status", "assignee", "classification", "muted",
    "lead", "raised",
)  # fmt: skip
"""Columns of `shapes` by which two shapes differ."""
LONE = 2
"""Value of the column `lead` for an incident without others of its campaign; of others, 1 stands for the campaign."""
_NUMBER = (
    f"INSERT INTO shapes ({', '.join(COLUMNS)}, incidents) VALUES ({', '.join('?' * len(COLUMNS))}, 0) "  # noqa: S608
    "ON CONFLICT DO UPDATE SET incidents = incidents RETURNING number"
)


class Counting:
    """Counts the incidents that come and go within one transaction; the table has the counts after `write`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._changes: Counter[int] = Counter()
        self._moved: dict[tuple[int, int, bool], int] = {}

    def join(self, row: Entry, incident: Incident) -> int:
        """Count one more incident, and return the number of its shape."""
        names = {one.name for one in incident.patterns}
        techniques = {one.technique for one in incident.patterns} | (
            {row.technique} if row.technique else set()
        )
        found = row._asdict() | {"patterns": _array(names), "techniques": _array(techniques)}
        if not row.campaign:
            found["lead"] = LONE
        number = self._number(tuple(found[name] for name in COLUMNS))
        self._changes[number] += 1
        return number

    def _number(self, values: tuple[Any, ...]) -> int:
        """The number of a shape, which is added if it is new."""
        number = self._numbers.get(values)
        if number is None:
            ((number,),) = self._db.execute(_NUMBER, values).fetchall()
            self._numbers[values] = number
        return number

    def move(self, number: int, lead: bool, raised: bool, *, alone: bool) -> int:
        """Count an incident of a shape as one with another place in its campaign, and return its shape."""
        place = LONE if alone else int(lead)
        if (number, place, raised) not in self._moved:
            values = self._db.execute(
                f"SELECT {', '.join(COLUMNS)} FROM shapes WHERE number = ?",  # noqa: S608 - our own names
                (number,),
            ).fetchone()
            found = dict(zip(COLUMNS, values, strict=True)) | {"lead": place, "raised": int(raised)}
            self._moved[number, place, raised] = self._number(tuple(found.values()))
        self.leave(number)
        now = self._moved[number, place, raised]
        self._changes[now] += 1
        return now

    def leave(self, number: int) -> None:
        """Count one incident of a shape less."""
        self._changes[number] -= 1

    def write(self) -> None:
        """Write the counts; a shape that no incident has is deleted."""
        self._db.executemany(
            "UPDATE shapes SET incidents = incidents + ? WHERE number = ?",
            [(change, number) for number, change in self._changes.items() if change],
        )
        self._db.executemany(
            "DELETE FROM shapes WHERE number = ? AND incidents = 0",
            [(number,) for number, change in self._changes.items() if change <= 0],
        )


def _array(names: set[str]) -> str:
    return msgspec.json.encode(sorted(names)).decode()
