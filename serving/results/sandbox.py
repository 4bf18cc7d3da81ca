"""Reads the Parquet files of one directory with a DuckDB that can open no other file and whose settings are locked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamguard.errors import TemporaryError
from streamguard.text import counted

MAX_MEMORY = "128MB"
"""Memory of one database: pages of a million users, single users and totals take 60 MB in all."""
THREADS = 2
"""Threads of one database: answers of the server share the machine with everything else."""
QUERY_SECONDS = 10.0
"""Time after which a query is interrupted, so that a very large archive does not occupy a thread of the server."""
MAX_ROWS = 10_000
"""Rows that one query may return; every query has a smaller LIMIT, or groups by partition."""

Row = dict[str, Any]


class UnreadableError(TemporaryError):
    """The files cannot be read; the message says why.

    Attributes
    ----------
    busy
        Whether the files may be whole, but the answer needs too much time or memory.
    """

    def __init__(self, message: str, *, busy: bool = False) -> None:
        super().__init__(message)
        self.busy = busy


class ParquetSandbox:
    """A DuckDB in memory that reads the files of one directory.

    No file outside of the directory can be opened, no extension is loaded, and no setting can be changed any more, by
    whatever SQL. The SQL is nevertheless always a constant of this package: values enter it as bound parameters only.

    Parameters
    ----------
    directory
        The directory; links are resolved.
    """

    def __init__(self, directory: Path) -> None:
        import duckdb

        self.directory = directory.resolve()
        self._database = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": MAX_MEMORY,
                "threads": THREADS,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        quoted = str(self.directory).replace("'", "''")
        # The order matters: after the first of the last two, no directory can be allowed any more.
        for statement in (
            "SET TimeZone = 'UTC'",
            "SET temp_directory = ''",
            f"SET allowed_directories = ['{quoted}']",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            self._database.execute(statement)

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[Row]:
        """The rows of a query as dictionaries, at most `MAX_ROWS`; several threads may ask at the same time.

        Parameters
        ----------
        sql
            A constant of this package.
        parameters
            Values of the `$name` in it.

        Raises
        ------
        UnreadableError
            If a file is missing or damaged, or the query needs more than `MAX_MEMORY` or `QUERY_SECONDS`.
        """
        import duckdb

        with self._database.cursor() as cursor:
            timer = threading.Timer(QUERY_SECONDS, cursor.interrupt)
            timer.daemon = True
            timer.start()
            try:
                cursor.execute(sql, dict(parameters))
                names = [column[0] for column in cursor.description or ()]
                found = cursor.fetchmany(MAX_ROWS)
            except duckdb.InterruptException:
                seconds = counted(int(QUERY_SECONDS), "second")
                raise UnreadableError(
                    f"reading {self.directory} took more than {seconds}: ask for less", busy=True
                ) from None
            except duckdb.OutOfMemoryException:
                raise UnreadableError(
                    f"reading {self.directory} needs more than {MAX_MEMORY} of memory: ask for less",
                    busy=True,
                ) from None
            except duckdb.Error as error:
                raise UnreadableError(
                    f"files of {self.directory} cannot be read ({str(error).partition(chr(10))[0]})"
                ) from None
            finally:
                timer.cancel()
        return [dict(zip(names, row, strict=True)) for row in found]

    def close(self) -> None:
        """Release the memory; queries that are running are interrupted."""
        self._database.close()
