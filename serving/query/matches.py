"""Finds the incidents of a filter: along the order of the list, or by what the filter names, whichever reads less."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from streamguard.events.event_time import DAY_MS
from streamguard.risk import SEVERITIES
from streamguard.serving.projection.shapes import LONE
from streamguard.serving.query import grouping
from streamguard.serving.query.condition import Condition, Rows, both
from streamguard.serving.query.filters import Conditions, Sort

GATHERED = 10_000
"""A list of at most so many incidents is read as a whole and sorted. A longer one is read along its order: in a million
incidents, it has one among a hundred, so that a page is found after a few thousand."""


def numbers(
    rows: Rows, where: Conditions, sort: Sort, limit: int, after: tuple[float, str] | None
) -> list[int]:
    """The numbers of the first incidents of a list.

    Parameters
    ----------
    rows
        Runs a statement; all statements have to read the same state.
    where
        The filter.
    limit
        How many incidents.
    after
        Sort key and id of the incident that comes before them; None: the list begins.
    """
    shape = both(*where.shapes)
    shapes = rows(f"SELECT number, severity, incidents, lead FROM shapes WHERE {shape.text}", *shape.values)  # noqa: S608
    if where.grouped and where.lead_decides:
        shapes = [row for row in shapes if row["lead"]]
    chosen = where.numbered
    column = "evidence" if sort == "evidence" else "last_ms"
    start = [] if after is None else [_after(column, *after)]
    of_shape = _any_of([row["number"] for row in shapes])
    narrowed = where.shapes or where.grouped
    rest = [*where.window, *chosen, *start]
    if where.grouped and not where.lead_decides:
        rest.append(grouping.shown(both(of_shape, *where.window, *chosen)))
    if _few(rows, where, sum(row["incidents"] for row in shapes)):
        # A chosen incident is found by its number; otherwise the index by shape has all that is read.
        parts = [("NOT INDEXED" if chosen else "INDEXED BY incidents_by_shape", both(of_shape, *rest))]
    elif sort == "time":
        parts = [("INDEXED BY incidents_by_time", both(*([of_shape] if narrowed else []), *rest))]
    else:
        parts = []
        for severity in range(len(SEVERITIES)):
            own = [row["number"] for row in shapes if row["severity"] == severity]
            if own:
                of_these = [_any_of(own)] if narrowed else []
                condition = both(Condition("severity = ?", (severity,)), *of_these, *rest)
                parts.append(("INDEXED BY incidents_by_severity", condition))
    found: list[tuple[float, str, int]] = []
    for index, condition in parts:
        statement = (
            f"SELECT {column}, id, number FROM incidents {index} WHERE {condition.text} "  # noqa: S608
            f"ORDER BY {column} DESC, id LIMIT ?"
        )
        found += [(-key, id, number) for key, id, number in rows(statement, *condition.values, limit)]
    return [number for _, _, number in sorted(found)[:limit]]


class Counted(NamedTuple):
    """The rows of a list.

    Attributes
    ----------
    shapes
        By number, the shapes that rows may have.
    incidents
        By number of the shape, how many rows are single incidents.
    campaigns
        Of each row that is a campaign, the numbers of the shapes of its selected incidents, separated by commas.
    """

    shapes: dict[int, sqlite3.Row]
    incidents: Mapping[int, int]
    campaigns: Sequence[str] = ()


def shape_counts(rows: Rows, where: Conditions) -> Counted:
    """The rows of a list, counted by shape."""
    shape = both(*where.shapes)
    shapes = {
        row["number"]: row
        for row in rows(f"SELECT * FROM shapes WHERE {shape.text}", *shape.values)  # noqa: S608
    }
    if not where.grouped:
        return Counted(shapes, _counted(rows, where, shapes))
    lone = {number: row for number, row in shapes.items() if row["lead"] == LONE}
    members = shapes.keys() - lone.keys()
    if not members:
        return Counted(shapes, _counted(rows, where, lone))
    matching = both(_any_of(sorted(members)), *where.window, *where.numbered)
    most = sum(shapes[number]["incidents"] for number in members)
    campaigns = grouping.campaign_shapes(rows, matching, most, chosen=bool(where.chosen))
    return Counted(shapes, _counted(rows, where, lone), campaigns)


def _counted(rows: Rows, where: Conditions, shapes: Mapping[int, sqlite3.Row]) -> dict[int, int]:
    """The incidents of some shapes, by shape."""
    whole = {number: row["incidents"] for number, row in shapes.items()}
    if not (where.window or where.chosen):
        return whole
    if where.chosen:
        counts = _by_shape(rows, "NOT INDEXED", both(*where.numbered, *where.window))
        return {number: count for number, count in counts.items() if number in shapes}
    outside = _mostly_inside(rows, where)
    counts = Counter[int]()
    for condition in where.outside if outside else [both(*where.window)]:
        counts += _by_shape(rows, "INDEXED BY incidents_by_shape", both(_any_of([*shapes]), condition))
    found = {number: whole[number] - counts[number] for number in whole} if outside else counts
    return {number: count for number, count in found.items() if count}


def _by_shape(rows: Rows, index: str, condition: Condition) -> Counter[int]:
    """Numbers of incidents by shape."""
    statement = f"SELECT shape, count(*) FROM incidents {index} WHERE {condition.text} GROUP BY shape"  # noqa: S608
    return Counter(dict(map(tuple, rows(statement, *condition.values))))


def _mostly_inside(rows: Rows, where: Conditions) -> bool:
    """Whether most incidents are in a window of time, to a day, so that counting those outside is faster."""
    since = 0 if where.since is None else where.since // DAY_MS
    until = where.until // DAY_MS if where.until is not None else 1 << 40
    ((inside, total),) = rows(
        "SELECT sum(CASE WHEN day BETWEEN ? AND ? THEN incidents END), sum(incidents) FROM days", since, until
    )
    return bool((inside or 0) > (total or 0) / 2)


def json_array(values: Sequence[int]) -> str:
    """Numbers as JSON, which one mark of a statement takes."""
    return msgspec.json.encode(values).decode()


def _few(rows: Rows, where: Conditions, of_shapes: int) -> bool:
    """Whether the list has at most `GATHERED` incidents, about."""
    for one in where.chosen:
        ((count,),) = rows(f"SELECT count(*) FROM ({one.text} LIMIT {GATHERED + 1})", *one.values)  # noqa: S608
        if count <= GATHERED:
            return True
    if where.chosen or not where.window:
        return not where.chosen and of_shapes <= GATHERED
    window = both(*where.window)
    ((inside,),) = rows(
        f"SELECT count(*) FROM (SELECT 1 FROM incidents WHERE {window.text} LIMIT {GATHERED + 1})",  # noqa: S608
        *window.values,
    )
    return int(inside) <= GATHERED or of_shapes <= GATHERED


def _any_of(shapes: list[int]) -> Condition:
    return Condition("shape IN (SELECT value FROM json_each(?))", (json_array(shapes),))


def _after(column: str, key: float, id: str) -> Condition:
    """The condition that a row comes after another one, in descending order of a column."""
    return Condition(f"{column} <= ? AND ({column} < ? OR id > ?)", (key, key, id))
