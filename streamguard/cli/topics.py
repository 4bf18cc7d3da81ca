"""`streamguard topics`: creates or checks the Kafka topics."""

from __future__ import annotations

from pathlib import Path

import click

from agents import topics
from streamguard.settings import Settings, SettingsError, load


@click.group()
@click.option(
    "--settings", "path", type=click.Path(dir_okay=False, path_type=Path), help="A TOML file of settings."
)
@click.pass_context
def command(context: click.Context, path: Path | None) -> None:
    """Create or check StreamGuard's topics."""
    try:
        context.obj = load(path)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@command.command()
@click.option("--alter", is_flag=True, help="Also correct the settings of topics that are there.")
@click.pass_obj
def create(settings: Settings, alter: bool) -> None:
    """Create the topics that are missing."""
    try:
        for name in topics.create(settings, alter=alter):
            click.echo(f"created {name}")
    except topics.TopicsError as error:
        raise click.ClickException(str(error)) from None
    _report(settings)


@command.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Compare the topics with what StreamGuard needs; exit code 1 if one of them will not do."""
    _report(settings)


def _report(settings: Settings) -> None:
    try:
        problems = topics.check(settings)
    except topics.TopicsError as error:
        raise click.ClickException(str(error)) from None
    if problems:
        raise click.ClickException("\n".join(problems))
    click.echo(f"all topics are as they should be at {settings.kafka.bootstrap_servers}")
