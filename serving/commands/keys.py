"""`streamguard keys`: adds, lists and revokes the access keys of `streamguard serve`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.cli import options
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.errors import ConfigurationError, DataError, TemporaryError
from streamguard.files import lock
from streamguard.files.disk import cannot_write
from streamguard.serving.api import keys
from streamguard.serving.api.keys import MAX_KEYS, Key
from streamguard.serving.masking.roles import ROLES, Role
from streamguard.text import counted, printable

DAYS = 90.0
"""How long a key is valid unless --days says otherwise: three months."""
MAX_DAYS = 3650
_DAY = 86_400.0

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(cls=SuggestingGroup)
def command() -> None:
    """Add, list and revoke the access keys of `streamguard serve`.

    The file of the keys (serve.keys_file) holds their hashes only. A running server reads it again when it changes.

    \b
    Examples:
      streamguard keys add ann --role analyst --file keys.json
      streamguard keys list --file keys.json
      streamguard keys revoke ann --file keys.json

    Exit codes: 65 if a name is not valid or has no key, 73 if the file cannot be written, 75 if another command changes
    it, 78 if the settings or the file cannot be used.
    """


def _of_file(function: Command) -> Command:
    for option in (
        options.config,
        click.option(
            "--file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File of the keys.  [default: serve.keys_file of the settings]",
        ),
    ):
        function = option(function)
    return function


@command.command()
@_of_file
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default=ROLES[0],
    show_default=True,
    help="What the key allows, see docs/privacy.md: viewers, analysts and privacy officers see pseudonyms.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, MAX_DAYS, min_open=True),
    default=DAYS,
    show_default=True,
    help="How long the key is valid.",
)
@click.argument("name")
def add(config: Path | None, file: Path | None, role: Role, days: float, name: str) -> None:
    """Make a key for NAME, and print it: it cannot be printed again.

    NAME consists of letters, digits and _ . @ -; decisions that are made with the key carry it. The key alone is
    printed on standard output.

    \b
    Examples:
      streamguard keys add ann --role analyst --days 30
      streamguard keys add dashboard --file keys.json > key
    """
    path = _path(config, file)
    key, made = keys.new_key(name, role, days * _DAY)
    try:
        msgspec.convert(msgspec.to_builtins(made), Key)
    except msgspec.ValidationError:
        raise DataError(
            f"{name[:100]!r} cannot be the name of a key: write 1 to 64 letters, digits and _ . @ -"
        ) from None
    with _locked(path):
        known = [one for one in keys.read(path) if one.name != name or one.expires > time.time()]
        if any(one.name == name for one in known):
            raise DataError(
                f"{name} has a key in {path}: revoke it with `streamguard keys revoke {name}`, or choose another name"
            )
        if len(known) >= MAX_KEYS:
            raise DataError(f"{path} has {counted(len(known), 'key')}: revoke some of them")
        keys.write(path, [*known, made])
    click.echo(
        f"{name} is {role} until {_moment(made)}; this is the only time that the key is shown:", err=True
    )
    click.echo(key)


@command.command("list")
@_of_file
@options.as_json
def list_(config: Path | None, file: Path | None, as_json: bool) -> None:
    """List names, roles and ends of all keys.

    \b
    Examples:
      streamguard keys list
      streamguard keys list --file keys.json --json
    """
    path = _path(config, file)
    now = time.time()
    found = sorted(keys.read(path), key=lambda one: (one.name, one.expires))
    if as_json:
        rows = [
            {"name": one.name, "role": one.role, "expires": _moment(one), "expired": one.expires <= now}
            for one in found
        ]
        click.echo(msgspec.json.encode(rows).decode())
        return
    if not found:
        click.echo(f"no keys in {printable(str(path))}")
        return
    width = max(len("NAME"), *(len(one.name) for one in found))
    roles = max(map(len, ROLES))
    click.echo(f"{'NAME':{width}}  {'ROLE':{roles}}  EXPIRES")
    for one in found:
        ended = "  expired" if one.expires <= now else ""
        click.echo(f"{printable(one.name):{width}}  {one.role:{roles}}  {_moment(one)}{ended}")


@command.command()
@_of_file
@click.argument("name")
def revoke(config: Path | None, file: Path | None, name: str) -> None:
    """Remove the key of NAME; a running server refuses it from then on.

    \b
    Examples:
      streamguard keys revoke ann
      streamguard keys revoke ann --file keys.json
    """
    path = _path(config, file)
    with _locked(path):
        known = keys.read(path)
        kept = [one for one in known if one.name != name]
        if len(kept) == len(known):
            raise DataError(f"{name[:100]!r} has no key in {path}: `streamguard keys list` shows all names")
        keys.write(path, kept)
    click.echo(f"the key of {name} is revoked")


def _path(config: Path | None, file: Path | None) -> Path:
    settings = options.read_settings(config)
    if file is not None:
        return file
    if not settings.serve.keys_file:
        raise ConfigurationError(
            "no file of keys is set: set serve.keys_file in the settings, or give --file"
        )
    return Path(settings.serve.keys_file)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The right to change the file, which one command has at a time."""
    try:
        held = lock.acquire(path.with_name(f".{path.name}.lock"))
    except BlockingIOError:
        raise TemporaryError(f"another command changes {path}: start this one again") from None
    except OSError as error:
        raise cannot_write(path, error, "give another --file") from None
    try:
        yield
    finally:
        os.close(held)


def _moment(key: Key) -> str:
    try:
        return f"{rfc3339(round(key.expires * 1000))[:19]}Z"
    except (ValueError, OverflowError):
        return "never"
