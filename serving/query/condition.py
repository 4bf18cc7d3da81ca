"""A condition in SQL with its values, and how conditions are joined."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

Rows = Callable[..., list[sqlite3.Row]]
"""Runs a statement with values."""


class Condition(NamedTuple):
    """A condition in SQL with marks, and the values for the marks."""

    text: str
    values: tuple[Any, ...] = ()


def both(*conditions: Condition) -> Condition:
    """The condition that all of some conditions hold.

    Examples
    --------
    >>> both(Condition("a = ?", (1,)), Condition("b < ?", (2,)))
    Condition(text='a = ? AND b < ?', values=(1, 2))
    """
    text = " AND ".join(one.text for one in conditions) or "1"
    return Condition(text, tuple(value for one in conditions for value in one.values))
