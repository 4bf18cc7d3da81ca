"""A store that lasts as long as a command."""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from streamguard.errors import CannotWriteError, ExitCode
from streamguard.serving.projection.store import Store


@contextmanager
def temporary(floor: float) -> Iterator[Store]:
    """A store in a temporary directory, which is removed at the end, also after SIGTERM.

    Raises
    ------
    CannotWriteError
        If it cannot be written.
    """
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with TemporaryDirectory(prefix="streamguard-incidents-") as directory:
            store = Store(Path(directory), floor)
            try:
                yield store
            finally:
                store.reader().close()
                store.close()
    except sqlite3.OperationalError as error:
        raise CannotWriteError(
            f"the temporary store cannot be used ({error}): free disk space, or set TMPDIR to a directory with more"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(ExitCode.TERMINATED)
