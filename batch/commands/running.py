"""How a batch command runs: once or in a series, stopped by signals, with errors of the file system as messages."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from streamguard.cli.main import show
from streamguard.errors import CannotWriteError, StreamGuardError

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise what the file system refuses as a `CannotWriteError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        where = error.filename or "the output"
        raise CannotWriteError(f"cannot write {where}: {os.strerror(error.errno)}") from None


def _stop(number: int, _: object) -> None:
    """End the run as an error does: its files are removed, and its metrics report it."""
    signal.signal(number, signal.SIG_DFL)
    click.echo("stopped: unfinished files are removed", err=True)
    sys.exit(128 + number)


def run(once: Callable[[], int], every: float, jitter: float) -> None:
    """Run once and exit with its code; or every so many seconds, where a failed run is reported and the series goes on."""
    if not every:
        before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            sys.exit(once())
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def once_more() -> int:
        try:
            return once()
        except StreamGuardError as error:
            show(error)
            return error.exit_code

    from streamguard.batch import schedule

    schedule.repeat(once_more, every, jitter, lambda text: click.echo(text, err=True))
