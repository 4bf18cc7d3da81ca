"""Counts of a list, in total and by value."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from streamguard.risk import SEVERITIES
from streamguard.serving.query.answers import Count
from streamguard.serving.query.condition import Rows
from streamguard.serving.query.filters import Conditions
from streamguard.serving.query.matches import shape_counts

MAX_FACET_VALUES = 50
"""Values of one facet, the most frequent."""
_ONE_VALUE = ("status", "kind", "assignee")
_ARRAYS = {"pattern": "patterns", "technique": "techniques"}
FACETS = ("severity", *_ONE_VALUE, *_ARRAYS)
"""What is counted."""


class _Values:
    """The values of shapes as bits of a number: those of a campaign are the bits of all its shapes."""

    def __init__(self) -> None:
        self._bits: dict[tuple[str, str], int] = {}

    def of(self, shape: sqlite3.Row) -> int:
        """The values of a shape."""
        found = 0
        for value in _values(shape):
            found |= self._bits.setdefault(value, 1 << len(self._bits))
        return found

    def counts(self, rows: Mapping[int, int]) -> dict[str, Counter[str]]:
        """By facet and value, how many rows have it, given how many rows have the same values."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in FACETS}
        known = list(self._bits)
        for values, count in rows.items():
            rest = values
            while rest:
                last = rest.bit_length() - 1
                name, value = known[last]
                counts[name][value] += count
                rest ^= 1 << last
        return counts


def counted(rows: Rows, where: Conditions) -> tuple[int, dict[str, tuple[Count, ...]]]:
    """The number of rows of a list, and by facet the number of rows with each value.

    A row may have several values of a facet, and a filter by each of them finds it: an incident has several patterns,
    and in a list with one row for a campaign, the row has the values of all its selected incidents.

    Parameters
    ----------
    rows
        Runs a statement; all statements have to read the same state.
    where
        The filter.
    """
    found = shape_counts(rows, where)
    values, alike = _Values(), Counter[int]()
    for number, count in found.incidents.items():
        alike[values.of(found.shapes[number])] += count
    of_text = dict[str, int]()
    for shapes, count in Counter(found.campaigns).items():
        own = 0
        for text in shapes.split(","):
            if text not in of_text:
                of_text[text] = values.of(found.shapes[int(text)])
            own |= of_text[text]
        alike[own] += count
    return alike.total(), {name: _ranked(counts) for name, counts in values.counts(alike).items()}


def _values(shape: sqlite3.Row) -> Iterator[tuple[str, str]]:
    yield "severity", SEVERITIES[shape["severity"]]
    for name in _ONE_VALUE:
        yield name, shape[name]
    for name, column in _ARRAYS.items():
        for value in _names(shape[column]):
            yield name, value


@lru_cache(4096)
def _names(array: str) -> tuple[str, ...]:
    """The names of a JSON array; shapes have few different ones."""
    return tuple(msgspec.json.decode(array, type=list[str]))


def _ranked(counts: Mapping[str, int]) -> tuple[Count, ...]:
    """The most frequent values, without the empty one."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Count(value, count) for value, count in ordered if value)[:MAX_FACET_VALUES]
