"""Options and option types that several subcommands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from streamguard.cli.main import BROKERS
from streamguard.duration import seconds_of, written
from streamguard.kafka.connection import Brokers
from streamguard.settings.load import load, override
from streamguard.settings.schema import Settings

config = click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file in TOML."
)
bootstrap_servers = click.option(
    "--bootstrap-servers", help="Addresses of Kafka brokers: host:port[,host:port]."
)
log_format = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="json",
    show_default=True,
    help="Form of log lines.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class Duration(click.ParamType):
    """A duration such as `90s`, `15m`, `2h` or `30d`, converted to seconds.

    Parameters
    ----------
    minimum, maximum
        Limits in seconds.

    Examples
    --------
    >>> Duration().convert("1.5h", None, None)
    5400.0
    """

    name = "duration"

    def __init__(self, minimum: float = 0.001, maximum: float = float("inf")) -> None:
        self._minimum = minimum
        self._maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        seconds = seconds_of(value)
        if seconds is None:
            self.fail(f"{value!r} is not a duration: write 90s, 15m, 2h or 30d", param, ctx)
        if not self._minimum <= seconds <= self._maximum:
            limits = f"at least {written(self._minimum)}"
            if self._maximum < float("inf"):
                limits += f" and at most {written(self._maximum)}"
            self.fail(f"{value} is out of range: {limits}", param, ctx)
        return seconds


class Time(click.ParamType):
    """A date or an RFC 3339 time, converted to epoch milliseconds. A time without a UTC offset is in UTC.

    Examples
    --------
    >>> Time().convert("1970-01-02", None, None)
    86400000
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time: write 2025-01-06 or 2025-01-06T08:00:00Z", param, ctx)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class Limit(Time):
    """A time, or an offset for each partition."""

    name = "time|offsets"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and re.fullmatch(r"\d+:\d+(,\d+:\d+)*", value, re.ASCII):
            return {int(p): int(offset) for p, offset in (pair.split(":") for pair in value.split(","))}
        if isinstance(value, str) and re.fullmatch(r"[\d:,]+", value, re.ASCII):
            self.fail(
                f"{value!r} is not a list of offsets: write PARTITION:OFFSET,... such as 0:1200,1:900",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


class Directory(click.Path):
    """The path of a directory; an empty path is refused."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path of the directory must not be empty", param, ctx)
        return super().convert(value, param, ctx)


def read_settings(config: Path | None, **sections: dict[str, Any]) -> Settings:
    """Read settings from the file, the environment and the command line; later sources take precedence.

    Parameters
    ----------
    config
        Path of a TOML file; None means defaults.
    sections
        Values of the command line, by section. None means that the option was not given.

    Raises
    ------
    SettingsError
        If a name or a value is not valid, or the settings of a secured Kafka contradict each other.
    """
    settings = override(load(config), **sections)
    brokers = Brokers.of(settings)
    if (context := click.get_current_context(silent=True)) is not None:
        context.meta[BROKERS] = brokers
    return settings


def check_master(master: str | None, engine: str) -> None:
    """Refuse a Spark master for an engine that does not use Spark.

    Raises
    ------
    UsageError
        If a master is given for the engine `local`.
    """
    if master is not None and engine == "local":
        raise click.UsageError("--master needs the engine spark: remove --master, or choose --engine spark")
