"""Runs a batch command once or in a series, handles stop signals, and reports errors of the file system."""

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
    """Raise a refused write of the file system as a `CannotWriteError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        where = error.filename or "the output"
        raise CannotWriteError(f"cannot write {where}: {os.strerror(error.errno)}") from None


def _stop(number: int, _: object) -> None:
    """End the run like an error: its unfinished files are removed, and its metrics report a failure."""
    signal.signal(number, signal.SIG_DFL)
    click.echo("stopped: unfinished files are removed", err=True)
    sys.exit(128 + number)


def run(once: Callable[[], int], every: float, jitter: float) -> None:
    """Run once and exit with the code of the run, or repeat every `every` seconds until stopped.

    In a series, the error of a failed run is reported, and the series continues.
    """
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
