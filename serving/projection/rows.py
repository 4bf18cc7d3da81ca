"""Computes the rows of incidents again from their sets: updates, actions of people, and campaigns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from streamguard.alerts.incident import Incident, decode
from streamguard.serving.decisions import codec
from streamguard.serving.decisions.case import Case, case_of, own_mutes
from streamguard.serving.decisions.ledger import Logged, ledger
from streamguard.serving.decisions.mute import MuteInForce
from streamguard.serving.decisions.unmasking import unmaskings
from streamguard.serving.decisions.update import Update as ReducedUpdate
from streamguard.serving.projection import ranking, shapes
from streamguard.serving.projection.entry import Entry, current, entry, texts
from streamguard.serving.projection.groups import Groups
from streamguard.serving.projection.ranking import Ranked

CURRENT = (
    "JOIN updates u ON u.incident = i.id AND u.origin_partition = i.origin_partition "
    "AND u.origin_offset = i.origin_offset"
)
"""Joins the current update `u` of each incident `i`, which has its JSON."""
PseudonymOf = Callable[[str, str], str]
_mute = msgspec.json.Decoder(MuteInForce)


class _Erased(NamedTuple):
    """What the row of an incident was."""

    number: int
    shape: int
    campaign: str
    ranked: Ranked


def compute(
    db: sqlite3.Connection,
    ids: Iterable[str],
    floor: float,
    pseudonym_of: PseudonymOf,
    regrouped: Iterable[str] = (),
) -> None:
    """Replace the rows of incidents by what their sets say; an incident without updates has no row.

    Of others of their campaigns, only what depends on the campaign is changed, such as which one stands for it.

    Parameters
    ----------
    floor
        Setting `detection.floor_bits`, which decides about incidents without a campaign.
    pseudonym_of
        Returns the pseudonym of an entity, given its kind and name.
    regrouped
        Incidents of which nothing but the campaign has changed.
    """
    counting = shapes.Counting(db)
    groups = Groups(db, counting)
    whole = set(ids)
    whole |= {id for id in sorted(set(regrouped) - whole) if not groups.moved(id)}
    for id in sorted(whole):
        before, row, number = _erase(db, id), None, None
        if before is not None:
            number = before.number
            counting.leave(before.shape)
            groups.changed(before.campaign)
        values = db.execute("SELECT value FROM updates WHERE incident = ?", (id,)).fetchall()
        if values:
            updates = [decode(value) for (value,) in values]
            now = current(updates)
            row = entry(updates, now, case(db, now, updates), groups.of(id), floor)
            groups.changed(row.campaign)
            shape = counting.join(row, now)
            _write(db, (number, *row, shape, pseudonym_of(row.entity_kind, row.entity)), now)
        ranking.note(db, before and before.ranked, row and _ranked(row))
    groups.elect()
    counting.write()


def case(db: sqlite3.Connection, incident: Incident, updates: Iterable[Incident]) -> Case:
    """The case of an incident."""
    mutes = db.execute(
        "SELECT value FROM mutes WHERE entity_kind = ? AND entity = ?",
        (incident.entity.kind, incident.entity.value),
    )
    return case_of(
        incident.id,
        [ReducedUpdate.of(update) for update in updates],
        actions(db, incident.id),
        [_mute.decode(value) for (value,) in mutes],
    )


def actions(db: sqlite3.Connection, incident: str) -> list[Logged]:
    """The actions on an incident."""
    rows = db.execute("SELECT offset, value FROM actions WHERE incident = ?", (incident,))
    return [Logged(offset, codec.decode(value)) for offset, value in rows]


def refresh_mutes(db: sqlite3.Connection, incidents: Iterable[str]) -> set[str]:
    """Compute the mutes that were made from incidents again, and return all incidents that they may hide or show."""
    entities = set[tuple[str, str]]()
    for id in incidents:
        before = db.execute(
            "SELECT entity_kind, entity, value FROM mutes WHERE incident = ?", (id,)
        ).fetchall()
        mutes = own_mutes(id, ledger(id, actions(db, id)).in_force)
        values = [(one.scope.entity_kind, one.scope.entity, msgspec.json.encode(one)) for one in mutes]
        if sorted(before) == sorted(values):
            continue
        db.execute("DELETE FROM mutes WHERE incident = ?", (id,))
        db.executemany(
            "INSERT INTO mutes VALUES (?, ?, ?, ?, ?)",
            [
                (kind, name, id, one.offset, value)
                for one, (kind, name, value) in zip(mutes, values, strict=True)
            ],
        )
        entities |= {(kind, name) for kind, name, _ in [*before, *values]}
    return {
        row[0]
        for entity in entities
        for row in db.execute("SELECT id FROM incidents WHERE entity_kind = ? AND entity = ?", entity)
    }


def refresh_unmaskings(db: sqlite3.Connection, incidents: Iterable[str]) -> None:
    """Compute the requests for the names of incidents again."""
    for id in incidents:
        db.execute("DELETE FROM unmaskings WHERE incident = ?", (id,))
        db.executemany(
            "INSERT INTO unmaskings VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (id, place, one.id, one.state, one.by, one.at, one.until or "", msgspec.json.encode(one))
                for place, one in enumerate(unmaskings(id, actions(db, id)))
            ],
        )


def rename(db: sqlite3.Connection, pseudonym_of: PseudonymOf, fingerprint: str) -> None:
    """Give every incident its pseudonym again, unless those that it has are of the same key."""
    known = db.execute("SELECT value FROM about WHERE name = 'pseudonyms'").fetchone()
    if known is not None and known[0] == fingerprint:
        return
    db.create_function("pseudonym_of", 2, pseudonym_of, deterministic=True)
    db.execute("UPDATE incidents SET pseudonym = pseudonym_of(entity_kind, entity)")
    db.execute("INSERT OR REPLACE INTO about VALUES ('pseudonyms', ?)", (fingerprint,))


def _ranked(row: Entry) -> Ranked:
    return Ranked(row.entity_kind, row.entity, row.risk, row.severity, row.last_ms, row.status != "closed")


def _erase(db: sqlite3.Connection, id: str) -> _Erased | None:
    """Remove what lists and searches find of an incident, and return what it was."""
    row = db.execute(
        "SELECT number, shape, campaign, entity_kind, entity, risk, severity, last_ms, status <> 'closed' "
        "FROM incidents WHERE id = ?",
        (id,),
    ).fetchone()
    if row is None:
        return None
    number, shape, campaign, *ranked = row
    db.execute("DELETE FROM incidents WHERE number = ?", (number,))
    db.execute("DELETE FROM words WHERE rowid = ?", (number,))
    return _Erased(number, shape, campaign, Ranked(*ranked))


def _write(db: sqlite3.Connection, values: tuple[Any, ...], incident: Incident) -> None:
    marks = ", ".join("?" * len(values))
    place = db.execute(f"INSERT INTO incidents VALUES ({marks})", values).lastrowid  # noqa: S608 - marks only
    db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (place, texts(incident)))


def export(db: sqlite3.Connection) -> Iterator[bytes]:
    """The contents in a form that depends on the sets alone: two databases of the same topics have the same lines."""
    columns = ", ".join(f"i.{name}" for name in Entry._fields)
    for row in db.execute(f"SELECT {columns}, u.value FROM incidents i {CURRENT} ORDER BY i.id"):  # noqa: S608 - our own names
        yield msgspec.json.encode([*row[:-1], msgspec.Raw(row[-1])])
    for columns, table, key in (
        ("id", "campaigns", "id"),
        ("incident, offset", "actions", "incident, offset"),
        ("offset", "forgotten", "offset"),
        ("entity_kind, entity, incident, offset", "mutes", "incident, offset"),
        ("incident, place", "unmaskings", "incident, place"),
    ):
        for row in db.execute(f"SELECT {columns}, value FROM {table} ORDER BY {key}"):  # noqa: S608 - our own names
            yield msgspec.json.encode([*row[:-1], msgspec.Raw(row[-1])])
