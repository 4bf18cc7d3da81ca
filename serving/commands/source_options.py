"""Options that select what the commands ask, and the choice that follows from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from streamguard.cli import options
from streamguard.errors import ConfigurationError
from streamguard.files.disk import cannot_read
from streamguard.serving.commands.source import Source

KEY_VARIABLE = "STREAMGUARD_SERVE_KEY"
"""Variable of the environment with the access key; other users of the machine could read it on a command line."""
MAX_KEY_FILE_BYTES = 4096

Command = TypeVar("Command", bound=Callable[..., Any])


def of_server_or_kafka(command: Command) -> Command:
    """Add the options that select a server, or another Kafka than that of the settings."""
    for option in (
        options.config,
        options.bootstrap_servers,
        click.option(
            "--key-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"File with the access key of the server.  [default: the variable {KEY_VARIABLE}]",
        ),
        click.option("--server", metavar="URL", help="Ask a running `streamguard serve` instead of Kafka."),
    ):
        command = option(command)
    return command


def of_file(command: Command) -> Command:
    """Add the option that selects a file."""
    return click.option(
        "--file",
        help="Read incidents from JSON lines that `streamguard replay --json` has written; - reads standard input.",
    )(command)


def refused_file(command: Command) -> Command:
    """Add an option that selects a file, and refuse it: a file can only be read."""

    def refuse(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(
                "a file can only be read, because other people would not see the action: act on a server (--server) or "
                "on Kafka, without --file"
            )

    return click.option("--file", hidden=True, expose_value=False, callback=refuse)(command)


@contextmanager
def opened(
    config: Path | None,
    bootstrap_servers: str | None,
    server: str | None,
    key_file: Path | None,
    file: str | None,
) -> Iterator[Source]:
    """What the options select: a server, a file, or the topics.

    Raises
    ------
    StreamGuardError
        If it cannot be asked.
    """
    settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
    given = [name for name, value in (("--server", server), ("--file", file)) if value is not None]
    if bootstrap_servers is not None:
        given.append("--bootstrap-servers")
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} select different sources: give one of them")
    if key_file is not None and server is None:
        raise click.UsageError("--key-file is the key of a server: give --server, too")
    if server is not None:
        from streamguard.serving.commands import from_server

        yield from_server.source(server, access_key(key_file))
    elif file is not None:
        from streamguard.serving.commands import from_file

        with from_file.opened(file, settings.detection.floor_bits) as found:
            yield found
    else:
        from streamguard.serving.commands import from_topics

        with from_topics.opened(settings) as found:
            yield found


def access_key(path: Path | None) -> str:
    """The access key of a file, or of the environment.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    if path is None:
        if key := os.environ.get(KEY_VARIABLE, "").strip():
            return key
        raise ConfigurationError(
            f"a server is asked with an access key: set {KEY_VARIABLE}, or give the file that holds it with --key-file"
        )
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_FILE_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        raise cannot_read(path, error) from None
