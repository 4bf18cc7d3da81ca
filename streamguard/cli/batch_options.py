"""What the batch commands share: limits and periods, exit codes, and failures as sentences."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from streamguard.cli.chosen import MISFIT, Ended

PLAN, UNAVAILABLE, BUSY = 65, 69, 75


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
    """A duration such as 90s, 15m, 1h or 1d, in seconds."""

    name = "duration"
    _UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value)
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 1h or 1d", param, ctx)
        return float(match[1]) * self._UNITS[match[2]]


@contextmanager
def failures() -> Iterator[None]:
    """Turn what is known to go wrong into a sentence and an exit code."""
    from batch.runs import RunsError
    from batch.session import SparkError
    from batch.sources import UnavailableError
    from batch.stretch import PlanError
    from streamguard.jars import JarsUnavailableError
    from streamguard.java import JavaNotFoundError
    from streamguard.models.manifest import ArtifactError
    from streamguard.packed import StateError

    codes: dict[type[Exception], int] = {
        PlanError: PLAN, UnavailableError: UNAVAILABLE, SparkError: UNAVAILABLE, JavaNotFoundError: UNAVAILABLE,
        JarsUnavailableError: UNAVAILABLE, RunsError: BUSY, ArtifactError: MISFIT, StateError: MISFIT,
    }  # fmt: skip
    try:
        yield
    except tuple(codes) as error:
        raise Ended(
            str(error), next(code for kind, code in codes.items() if isinstance(error, kind))
        ) from None


def run(once: Callable[[], int], every: float, jitter: float) -> None:
    """Run once and exit with its code; or every so many seconds, where a failed run is told and the next one comes."""
    if not every:
        sys.exit(once())

    def once_more() -> int:
        try:
            return once()
        except click.ClickException as error:
            error.show()
            return error.exit_code

    from batch import schedule

    schedule.repeat(once_more, every, jitter)
