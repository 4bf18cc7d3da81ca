"""The `streamguard` command: subcommands are imported when they are called, so that `--help` is instant."""

from __future__ import annotations

import importlib

import click

import streamguard

COMMANDS = {
    "demo": "Show the main job on a real Kafka, in three minutes.",
    "broker": "Run a one-node Apache Kafka on this machine.",
    "topics": "Create or check StreamGuard's topics.",
    "simulate": "Make security events: habits, drift and named attacks.",
    "worker": "Score events from Kafka and publish incidents.",
    "replay": "Score events from a file or standard input.",
    "evaluate": "Measure detection on labelled events.",
}
"""Subcommand -> its line in `--help`. Each is `streamguard.cli.<name>:command`."""


class LazyGroup(click.Group):
    """A click group whose commands live in modules of their own, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"streamguard.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(streamguard.__version__, prog_name="streamguard")
def main() -> None:
    """Learn what is normal for each user; say what is not, and why."""
