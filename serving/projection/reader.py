"""A connection that reads the projection: bounded in time for each request, with errors that say what to do."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

import msgspec

from streamguard.errors import TemporaryError

SECONDS = 3.0
"""How long the statements of one request may compute. In a million incidents the costliest question of the page takes a
quarter of a second; a longer one keeps a thread and a core from everybody else."""
CACHE_KIB = 512
"""Page cache of a connection, of which each thread has one; the cache of the operating system serves all of them."""
_STEPS = 10_000
"""Instructions of SQLite between two looks at the clock: less than a millisecond. A full-text search collects all
places of a word in one instruction, so it can exceed the limit by the time of that: a second in a million incidents."""

P = ParamSpec("P")
T = TypeVar("T")


class TooCostlyError(TemporaryError):
    """The answer would take more computing than a request may cost."""


class DamagedStoreError(TemporaryError):
    """The database is damaged; it is built again from the topics."""


class _Deadline:
    """When the statements of a request have to end: it begins with the first of them, not with the request."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at: float | None = None

    def passed(self) -> bool:
        now = time.monotonic()
        if self.at is None:
            self.at = now + self._seconds
        return now >= self.at


_deadline: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Statements within this context compute at most so long, all of them together; outside there is no limit."""
    token = _deadline.set(_Deadline(seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def waiting() -> Iterator[None]:
    """Time within this context does not count: the request waits for something else."""
    began = time.monotonic()
    try:
        yield
    finally:
        deadline = _deadline.get()
        if deadline is not None and deadline.at is not None:
            deadline.at += time.monotonic() - began


def is_damage(error: BaseException) -> bool:
    """Whether an error means that the database is damaged.

    SQLite checks the structure of its pages, and not what is stored in them: a value that cannot be decoded has been
    written over, because only valid values are stored.
    """
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        return not isinstance(error, msgspec.ValidationError)
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode to UTF-8" in str(error)


class Reader(sqlite3.Connection):
    """A read-only connection of one thread."""

    damaged: threading.Event
    """Set when the database turns out to be damaged."""

    @classmethod
    def of(cls, path: Path, damaged: threading.Event) -> Self:
        """Open a database."""
        found = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False, factory=cls
        )
        found.damaged = damaged
        found.row_factory = sqlite3.Row
        sqlite3.Connection.execute(found, "PRAGMA query_only = ON")
        found.set_progress_handler(_is_late, _STEPS)
        found.execute(f"PRAGMA cache_size = -{CACHE_KIB}")  # which reads the first page
        return found

    def execute(self, statement: str, values: Any = (), /) -> _Rows:
        """Run a statement.

        Raises
        ------
        TooCostlyError
            If the request has used its time, see `limited`; rows that are fetched later raise it, too.
        DamagedStoreError
            If the database is damaged.
        """
        return self.cursor(_Rows).execute(statement, values)

    def explained(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of SQLite with its errors as those of `execute`."""
        try:
            return call(*args, **kwargs)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise TooCostlyError(
                    f"the answer would take longer than {SECONDS:g} s to compute: narrow the question by a time "
                    "(`since`), an entity, a severity, or more and longer words in `text`"
                ) from None
            if is_damage(error):
                self.damaged.set()
                raise DamagedStoreError(
                    "the database of this server is damaged, and is built again from the topics: ask another server, "
                    "or ask again in some minutes"
                ) from None
            raise


class _Rows(sqlite3.Cursor):
    connection: Reader

    def execute(self, statement: str, values: Any = (), /) -> Self:
        return self.connection.explained(super().execute, statement, values)

    def fetchall(self) -> list[Any]:
        return self.connection.explained(super().fetchall)

    def fetchone(self) -> Any:
        return self.connection.explained(super().fetchone)

    def __next__(self) -> Any:
        return self.connection.explained(super().__next__)


def _is_late() -> bool:
    """Whether SQLite has to end the statement that it computes."""
    deadline = _deadline.get()
    return deadline is not None and deadline.passed()
