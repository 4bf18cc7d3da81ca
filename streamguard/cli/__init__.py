"""The `streamguard` command: subcommands are imported when they are called, so that `--help` is instant."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

import streamguard

COMMANDS = {
    "demo": "Show the main job on a real Kafka, in three minutes.",
    "broker": "Run a one-node Apache Kafka on this machine.",
    "doctor": "Look at all that StreamGuard needs; say what to mend.",
    "topics": "Create or check StreamGuard's topics.",
    "simulate": "Make security events: habits, drift and named attacks.",
    "worker": "Score events from Kafka and publish incidents.",
    "forget": "Delete what was learned about a user.",
    "retrain": "Learn from history: features, a model, a report.",
    "models": "List, check, compare and promote forests.",
    "archive": "Keep a topic's events as Parquet, before Kafka forgets them.",
    "replay": "Score events from a file or standard input.",
    "evaluate": "Measure detection on labelled events.",
}
"""Subcommand -> its line in `--help`. Each is `streamguard.cli.<name>:command`."""


UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Why standard output, or the file behind it, takes no more. A pipe that nobody reads is click's matter."""


class LazyGroup(click.Group):
    """A click group whose commands live in modules of their own, imported on use."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; output that cannot be written ends it with one sentence and exit code 2."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            with contextlib.suppress(OSError):
                click.echo(f"Error: cannot write the output: {error.strerror}", err=True)
            # What is still buffered would fail again at exit.
            with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            sys.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C ends it with 130, as shells know it, where it does not end itself."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(130)

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
