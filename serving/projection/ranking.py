"""Ranks entities by the risk of all their incidents; computed again for those whose incidents have changed."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

EXPONENT = 1.5
"""How fast further incidents of an entity lose weight in its score: the second counts a third, the tenth a 30th."""


def scored(incidents: str) -> str:
    """A statement whose rows are those of the table `entities`, for the entities of some incidents.

    The score is the sum of risk / i^1.5 over the incidents, the riskiest first. It follows from the incidents alone.

    Parameters
    ----------
    incidents
        What follows FROM in a statement, with the columns of the table `incidents`.
    """
    return f"""
        SELECT entity_kind AS kind, entity AS name, sum(risk / pow(place, {EXPONENT})) AS score, count(*) AS incidents,
            sum(status <> 'closed') AS open, max(severity) AS severity, max(last_ms) AS last_ms
        FROM (
            SELECT entity_kind, entity, risk, status, severity, last_ms,
                row_number() OVER (PARTITION BY entity_kind, entity ORDER BY risk DESC, id) AS place
            FROM {incidents}
        )
        GROUP BY entity_kind, entity
    """  # noqa: S608 - names of our own tables, and marks


class Ranked(NamedTuple):
    """What the row of an entity takes from one of its incidents."""

    kind: str
    name: str
    risk: float
    severity: int
    last_ms: int
    open: bool


_CHANGED = scored("changed_entities c CROSS JOIN incidents ON entity_kind = c.kind AND entity = c.name")


def note(db: sqlite3.Connection, before: Ranked | None, after: Ranked | None) -> None:
    """Note that the row of an incident is another one; None stands for no row.

    What people decide changes no score, so that it is counted at once. After everything else, `compute` has to read
    all incidents of the entity, of which there may be thousands.
    """
    if before is not None and after is not None and before[:-1] == after[:-1]:
        if before.open != after.open:
            db.execute(
                "UPDATE entities SET open = open + ? WHERE kind = ? AND name = ?",
                (after.open - before.open, after.kind, after.name),
            )
        return
    db.executemany(
        "INSERT OR IGNORE INTO changed_entities VALUES (?, ?)",
        {(one.kind, one.name) for one in (before, after) if one is not None},
    )


def compute(db: sqlite3.Connection) -> None:
    """Compute the entities whose incidents have changed; an entity without incidents has no row."""
    if db.execute("SELECT NOT EXISTS (SELECT 1 FROM changed_entities)").fetchone()[0]:
        return
    db.execute("DELETE FROM entities WHERE (kind, name) IN (SELECT kind, name FROM changed_entities)")
    db.execute(f"INSERT INTO entities {_CHANGED}")
    db.execute("DELETE FROM changed_entities")
