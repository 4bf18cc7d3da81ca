"""Runs a batch command once or in a series, handles stop signals, and reports errors of the file system."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from streamguard.cli.main import show
from streamguard.errors import ConfigurationError, ExitCode, StreamGuardError
from streamguard.files.disk import translated


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise an error of the file system as one of StreamGuard, which names the file and a remedy."""
    try:
        yield
    except OSError as error:
        if (known := translated(error)) is None:
            raise
        raise known from None


def require_packages(*names: str) -> None:
    """Check that packages of the extra `batch` are installed, before a module imports them.

    Raises
    ------
    ConfigurationError
        If one is missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"this command needs packages that are not installed ({', '.join(missing)}): install StreamGuard with the "
            "extra `batch`, such as with `pip install '.[batch]'` in its repository"
        )


def _stop(number: int, _: object) -> None:
    """End the run like an error: its unfinished files are removed, and its metrics report a failure."""
    signal.signal(number, signal.SIG_DFL)
    click.echo("stopped: unfinished files are removed", err=True)
    sys.exit(ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED)


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
