"""What the batch commands share: limits and periods, exit codes, and failures as sentences."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from streamguard.cli.chosen import Ended
from streamguard.exit_codes import MISFIT, MISSING, TAKEN, UNAVAILABLE, UNWRITABLE

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


class Limit(click.ParamType):
    """A time, or offsets by partition."""

    name = "time|offsets"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if re.fullmatch(r"\d+:\d+(,\d+:\d+)*", value):
            return {int(p): int(offset) for p, offset in (pair.split(":") for pair in value.split(","))}
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a time such as 2026-11-01T00:00Z nor offsets such as 0:1200,1:900",
                param,
                ctx,
            )
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class Period(click.ParamType):
    """A duration such as 90s, 15m, 1h or 1d, in seconds: from a second to thirty days."""

    name = "duration"
    _UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # noqa: RUF012
    _MOST = 30 * 86_400.0

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value, re.ASCII)
        if not match:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 1h or 1d", param, ctx)
        seconds = float(match[1]) * self._UNITS[match[2]]
        if not 1.0 <= seconds <= self._MOST:
            self.fail(f"{value} is not from 1s to 30d", param, ctx)
        return seconds


class Directory(click.Path):
    """Where to write."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("a directory has a name", param, ctx)
        return super().convert(value, param, ctx)


def check_master(master: str | None, engine: str) -> None:
    """A master is of Spark only."""
    if master is not None and engine == "local":
        raise click.UsageError("--master is Spark's: leave it out, or say --engine spark")


@contextmanager
def failures() -> Iterator[None]:
    """Turn what is known to go wrong into a sentence and an exit code."""
    from batch.engines.session import SparkError
    from batch.folding.stretch import PlanError
    from batch.runs import BusyError, RunsError
    from batch.source.sources import UnavailableError
    from streamguard.machine.jars import JarsUnavailableError
    from streamguard.machine.java import JavaNotFoundError
    from streamguard.models.manifest import ArtifactError
    from streamguard.settings import SettingsError
    from streamguard.state.packed import StateError

    codes: dict[type[Exception], int] = {
        PlanError: MISSING, UnavailableError: UNAVAILABLE, SparkError: UNAVAILABLE, JavaNotFoundError: UNAVAILABLE,
        JarsUnavailableError: UNAVAILABLE, BusyError: TAKEN, RunsError: UNWRITABLE, ArtifactError: MISFIT,
        StateError: MISFIT, SettingsError: MISFIT,
    }  # fmt: skip
    try:
        yield
    except tuple(codes) as error:
        raise Ended(
            str(error), next(code for kind, code in codes.items() if isinstance(error, kind))
        ) from None
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        where = error.filename or "the output"
        raise Ended(f"cannot write {where}: {os.strerror(error.errno)}", UNWRITABLE) from None


def _stop(number: int, _: object) -> None:
    """Leave what is under way as a failure does: its files are removed, and its metrics say so."""
    signal.signal(number, signal.SIG_DFL)
    click.echo("stopped: what was not finished is removed", err=True)
    sys.exit(128 + number)


def run(once: Callable[[], int], every: float, jitter: float) -> None:
    """Run once and exit with its code; or every so many seconds, where a failed run is told and the next one comes."""
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
        except click.ClickException as error:
            error.show()
            return error.exit_code

    from batch import schedule

    schedule.repeat(once_more, every, jitter, lambda text: click.echo(text, err=True))
