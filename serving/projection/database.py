"""The SQLite database of the projection: one writer, any number of readers, one transaction for each batch."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

from streamguard.errors import CannotWriteError, TemporaryError
from streamguard.serving.projection.reader import DamagedStoreError, Reader, is_damage

FORMAT = 6
"""Rises when the schema or the rules of the rows change; a database of another format is built again."""
CACHE_KIB = 32_768
"""Page cache of the writer."""
_NAME = "incidents.sqlite"

_log = logging.getLogger(__name__)


class RebuiltError(TemporaryError):
    """The database was replaced since this thread has begun to fill it."""


class Database:
    """The database.

    Parameters
    ----------
    directory
        Holds the database; created if it is missing.

    Attributes
    ----------
    damaged
        Set when a part of the file turned out to be damaged; `begin` clears it.
    generation
        Number of times that it was built again while it was open.

    Raises
    ------
    CannotWriteError
        If the database cannot be opened or written.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / _NAME
        self._lock = threading.RLock()
        self._own = threading.local()
        self.damaged = threading.Event()
        self.generation = 0
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
        return self._created()

    def _created(self) -> sqlite3.Connection:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(_NAME + suffix).unlink(missing_ok=True)
        database = self._connect()
        schema = files("streamguard.serving.projection").joinpath("schema.sql").read_text()
        database.executescript(f"BEGIN; {schema} PRAGMA user_version = {FORMAT}; COMMIT;")
        return database

    def begin(self) -> None:
        """Begin to fill the database in this thread; a damaged one is replaced by an empty one before.

        Whatever this thread writes afterwards is refused if another thread has replaced the database meanwhile: its
        topic has to be read from its beginning then.
        """
        with self._lock:
            if self.damaged.is_set():
                _log.warning("%s is damaged, and is built again from the topics", self.path)
                with suppress(sqlite3.Error):
                    self._db.close()
                self._db = self._created()
                self.generation += 1
                self.damaged.clear()
            self._own.generation = self.generation

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

    def reader(self) -> Reader:
        """This thread's read-only connection."""
        found: tuple[int, Reader] | None = getattr(self._own, "reader", None)
        if found is None or found[0] != self.generation:
            if found is not None:
                found[1].close()
            found = self.generation, Reader.of(self.path, self.damaged)
            self._own.reader = found
        return found[1]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The writer's connection within one transaction; an exception leaves the database as it was.

        Raises
        ------
        DamagedStoreError
            If the file is damaged.
        RebuiltError
            If the database was replaced since this thread has begun to fill it.
        """
        with self._lock:
            if getattr(self._own, "generation", self.generation) != self.generation:
                raise RebuiltError(f"{self.path} was built again: its topics are read from their beginnings")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                if is_damage(error):
                    self.damaged.set()
                    raise DamagedStoreError(f"{self.path} is damaged ({error})") from error
                raise

    def topic_id(self, topic: str) -> str | None:
        """Kafka's id of the topic that the store follows; None before the first record."""
        with self.transaction() as db:
            row = db.execute("SELECT id FROM followed WHERE topic = ?", (topic,)).fetchone()
        return row[0] if row is not None else None

    def positions(self, topic: str) -> dict[int, tuple[int, int]]:
        """(offset of the next record, time of the latest one) by partition."""
        with self.transaction() as db:
            rows = db.execute("SELECT partition, offset, time FROM positions WHERE topic = ?", (topic,))
            return {partition: (offset, time) for partition, offset, time in rows}

    def follow(self, topic: str, id: str, clear: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Begin to follow a topic from its beginning.

        Parameters
        ----------
        id
            Kafka's id of the topic.
        clear
            Forgets what came from the former topic of this name, in the same transaction.
        """
        with self.transaction() as db:
            if clear is not None:
                clear(db)
            db.execute("INSERT OR REPLACE INTO followed VALUES (?, ?)", (topic, id))
            db.execute("DELETE FROM positions WHERE topic = ?", (topic,))

    @staticmethod
    def move(db: sqlite3.Connection, topic: str, positions: Mapping[int, tuple[int, int]]) -> None:
        """Set the positions that a transaction reaches."""
        db.executemany(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
            [(topic, partition, *place) for partition, place in positions.items()],
        )
