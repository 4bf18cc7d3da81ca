"""The SQLite database of the projection: one writer, any number of readers, one transaction for each batch."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from streamguard.errors import CannotWriteError

FORMAT = 3
"""Rises when the schema or the rules of the rows change; a database of another format is built again."""
CACHE_KIB = 32_768
"""Page cache of the writer; a reader has SQLite's default."""
_NAME = "incidents.sqlite"

_log = logging.getLogger(__name__)


class Database:
    """The database.

    Parameters
    ----------
    directory
        Holds the database; created if it is missing.

    Raises
    ------
    CannotWriteError
        If the database cannot be opened or written.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / _NAME
        self._lock = threading.RLock()
        self._readers = threading.local()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._db = self._opened()
        except (OSError, sqlite3.Error) as error:
            raise CannotWriteError(
                f"the database {self.path} cannot be opened ({error}): make the directory writable, or set "
                "serve.data_dir to another one; it holds nothing that the topics do not have"
            ) from None

    def _opened(self) -> sqlite3.Connection:
        try:
            database = self._connect()
            if database.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
                return database
            database.close()
        except sqlite3.DatabaseError as error:
            _log.warning("%s is damaged, and is built again from the topics: %s", self.path, error)
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(_NAME + suffix).unlink(missing_ok=True)
        database = self._connect()
        schema = files("streamguard.serving.projection").joinpath("schema.sql").read_text()
        database.executescript(f"BEGIN; {schema} PRAGMA user_version = {FORMAT}; COMMIT;")
        return database

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # after a crash of the machine it is built again
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return database

    def close(self) -> None:
        """Close the writer; readers close with their threads."""
        with self._lock:
            self._db.close()

    def reader(self) -> sqlite3.Connection:
        """This thread's read-only connection."""
        found: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if found is None:
            found = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            found.row_factory = sqlite3.Row
            found.execute("PRAGMA query_only = ON")
            self._readers.connection = found
        return found

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The writer's connection within one transaction; an exception leaves the database as it was."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def topic_id(self, topic: str) -> str | None:
        """Kafka's id of the topic that the store follows; None before the first record."""
        with self._lock:
            row = self._db.execute("SELECT id FROM followed WHERE topic = ?", (topic,)).fetchone()
        return row[0] if row is not None else None

    def positions(self, topic: str) -> dict[int, tuple[int, int]]:
        """(offset of the next record, time of the latest one) by partition."""
        with self._lock:
            rows = self._db.execute("SELECT partition, offset, time FROM positions WHERE topic = ?", (topic,))
            return {partition: (offset, time) for partition, offset, time in rows}

    def follow(self, topic: str, id: str) -> None:
        """Begin to follow a topic; nothing that came from another topic of this name remains."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO followed VALUES (?, ?)", (topic, id))
            db.execute("DELETE FROM positions WHERE topic = ?", (topic,))

    @staticmethod
    def move(db: sqlite3.Connection, topic: str, positions: Mapping[int, tuple[int, int]]) -> None:
        """Set the positions that a transaction reaches."""
        db.executemany(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
            [(topic, partition, *place) for partition, place in positions.items()],
        )
