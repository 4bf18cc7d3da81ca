"""`streamguard topics`: creates or checks the Kafka topics, and says who has to be allowed what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from agents import topics
from agents.rights import Part, rights
from streamguard.cli.chosen import Ended, chosen
from streamguard.exit_codes import UNAVAILABLE
from streamguard.settings import Settings


@click.group()
def command() -> None:
    """Create or check StreamGuard's topics, and say who has to be allowed what."""


def _of_settings(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option("--bootstrap-servers", help="Kafka brokers, host:port[,host:port].")(function)
    return click.option(
        "--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML)."
    )(function)


@command.command()
@_of_settings
@click.option("--alter", is_flag=True, help="Also correct the settings of topics that are there.")
def create(config: Path | None, bootstrap_servers: str | None, alter: bool) -> None:
    """Create the topics that are missing."""
    settings = chosen(config, kafka={"bootstrap_servers": bootstrap_servers})
    try:
        for name in topics.create(settings, alter=alter):
            click.echo(f"created {name}")
    except topics.TopicsError as error:
        raise Ended(str(error), UNAVAILABLE) from None
    _report(settings)


@command.command()
@_of_settings
def check(config: Path | None, bootstrap_servers: str | None) -> None:
    """Compare the topics with what StreamGuard needs.

    Ends with 1 if one of them will not do, 69 if Kafka is not to be had; every wrong setting is named with its remedy.
    """
    _report(chosen(config, kafka={"bootstrap_servers": bootstrap_servers}))


@command.command()
@_of_settings
@click.argument("part", type=click.Choice(get_args(Part)))
@click.argument("user", default="User:NAME")
def acls(config: Path | None, bootstrap_servers: str | None, part: Part, user: str) -> None:
    """Print the commands that allow USER (User:NAME, User:CN=NAME) what PART needs; Kafka is not asked."""
    if ":" not in user:
        raise click.BadParameter(f"a principal has a type: User:{user}", param_hint="USER")
    settings = chosen(config, kafka={"bootstrap_servers": bootstrap_servers})
    for right in rights(settings)[part]:
        click.echo(right.command(user, settings.kafka.bootstrap_servers))


def _report(settings: Settings) -> None:
    try:
        problems = topics.check(settings)
    except topics.TopicsError as error:
        raise Ended(str(error), UNAVAILABLE) from None
    if problems:
        raise click.ClickException("\n".join(problems))
    click.echo(f"all topics are as they should be at {settings.kafka.bootstrap_servers}")
