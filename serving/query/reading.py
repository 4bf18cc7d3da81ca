"""How questions read the projection: in any thread, with what the answer says about its source."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from streamguard.errors import DataError
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.projection.store import Store

MAX_PAGE = 200
"""Rows of one page."""


class NotFoundError(DataError):
    """There is nothing of this id."""


class Reading:
    """Reads the projection; every method may be called from any thread.

    Parameters
    ----------
    store
        The projection.
    as_of
        Returns how far the projection is. It is asked before the rows are read, so that it promises nothing that they
        lack.
    """

    def __init__(self, store: Store, as_of: Callable[[], tuple[AsOf, ...]]) -> None:
        self._store = store
        self._as_of = as_of

    def _rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        return self._store.reader().execute(statement, values).fetchall()

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        """Statements within this context read the same state, whatever is written meanwhile."""
        reader = self._store.reader()
        reader.execute("BEGIN")
        try:
            yield
        finally:
            reader.execute("ROLLBACK")
