"""Ranks entities by the risk of all their incidents; computed again for those whose incidents have changed."""

from __future__ import annotations

import sqlite3

EXPONENT = 1.5
"""How fast further incidents of an entity lose weight in its score: the second counts a third, the tenth a 30th."""
_COMPUTED = """
    INSERT INTO entities
    SELECT entity_kind, entity, sum(risk / pow(place, ?)), count(*), sum(status <> 'closed'), max(severity),
        max(last_ms)
    FROM (
        SELECT entity_kind, entity, risk, status, severity, last_ms,
            row_number() OVER (PARTITION BY entity_kind, entity ORDER BY risk DESC, id) AS place
        FROM changed_entities c CROSS JOIN incidents ON entity_kind = c.kind AND entity = c.name
    )
    GROUP BY entity_kind, entity
"""


def compute(db: sqlite3.Connection) -> None:
    """Compute the entities whose incidents have changed; an entity without incidents has no row.

    The score is the sum of risk / i^1.5 over the incidents, the riskiest first. It follows from the incidents alone.
    """
    if db.execute("SELECT NOT EXISTS (SELECT 1 FROM changed_entities)").fetchone()[0]:
        return
    db.execute("DELETE FROM entities WHERE (kind, name) IN (SELECT kind, name FROM changed_entities)")
    db.execute(_COMPUTED, (EXPONENT,))
    db.execute("DELETE FROM changed_entities")
