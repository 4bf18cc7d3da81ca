"""`streamguard topics`: creates or checks the Kafka topics, and prints the commands that grant access."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from streamguard.cli import options
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.kafka import topics
from streamguard.kafka.acls import Part, acls_of
from streamguard.settings.schema import Settings


@click.group(cls=SuggestingGroup)
def command() -> None:
    """Create or check StreamGuard's topics, and print the access rights of each part."""


def _connection(function: Callable[..., None]) -> Callable[..., None]:
    return options.config(options.bootstrap_servers(function))


@command.command()
@_connection
@click.option("--alter", is_flag=True, help="Correct the settings of existing topics, too.")
def create(config: Path | None, bootstrap_servers: str | None, alter: bool) -> None:
    """Create the missing topics."""
    settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
    for name in topics.create(settings, alter=alter):
        click.echo(f"created {name}")
    _report(settings)


@command.command()
@_connection
def check(config: Path | None, bootstrap_servers: str | None) -> None:
    """Compare the topics with the requirements of StreamGuard.

    The command prints every deviation with its remedy. A deviation from a recommended value is a warning. Exit codes:
    69 if Kafka is unavailable, 78 if a topic deviates from a required value.
    """
    _report(options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers}))


@command.command()
@_connection
@click.argument("part", type=click.Choice(get_args(Part)))
@click.argument("user", default="User:NAME")
def acls(config: Path | None, bootstrap_servers: str | None, part: Part, user: str) -> None:
    """Print the commands that grant USER the access rights of PART.

    USER is a Kafka principal with its type, such as User:NAME or User:CN=NAME. The command does not connect to
    Kafka.
    """
    if ":" not in user:
        raise click.BadParameter(f"a principal needs a type: write User:{user}", param_hint="USER")
    settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
    for acl in acls_of(settings)[part]:
        click.echo(acl.command(user, settings.kafka.bootstrap_servers))


def _report(settings: Settings) -> None:
    for deviation in topics.require(settings):
        click.echo(f"Warning: {deviation}", err=True)
    click.echo(f"all topics at {settings.kafka.bootstrap_servers} are as required")
