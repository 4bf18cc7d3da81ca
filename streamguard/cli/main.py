"""The `streamguard` command: a subcommand's module is imported when it is called, so `--help` starts fast."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

import streamguard
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.errors import CannotWriteError, ExitCode, StreamGuardError
from streamguard.text import printable

COMMANDS = {
    "demo": ("streamguard.cli.demo", "Show StreamGuard at work on a real Kafka in three minutes."),
    "broker": ("streamguard.cli.broker", "Run a one-node Apache Kafka on this machine."),
    "doctor": ("streamguard.cli.doctor", "Check machine, Kafka and models; report problems and fixes."),
    "topics": ("streamguard.cli.topics", "Create or check StreamGuard's topics."),
    "simulate": (
        "streamguard.cli.simulate",
        "Generate security events with habits, drift and named attacks.",
    ),
    "worker": ("streamguard.agents.commands.worker", "Score events from Kafka and publish incidents."),
    "sources": (
        "streamguard.agents.commands.sources",
        "Judge each source address over all partitions.",
    ),
    "campaigns": (
        "streamguard.agents.commands.campaigns",
        "Publish one record for each attack instead of each incident.",
    ),
    "analyze": (
        "streamguard.agents.commands.analyze",
        "Analyse an incident: verdict, facts, next steps.",
    ),
    "serve": ("streamguard.serving.commands.serve", "Serve incidents in an API and on a page."),
    "incidents": (
        "streamguard.serving.commands.incidents",
        "List, show and watch incidents, and act on them.",
    ),
    "users": ("streamguard.serving.commands.users", "List users by risk, and show what is usual for one."),
    "keys": ("streamguard.serving.commands.keys", "Add, list and revoke access keys of `serve`."),
    "audit": (
        "streamguard.serving.commands.audit",
        "Verify and show who has seen the names of people in `serve`.",
    ),
    "decide": (
        "streamguard.serving.commands.decide",
        "Accept or deny a value of a user, as a signed record of the events topic.",
    ),
    "forget": ("streamguard.agents.commands.forget", "Delete what was learned about a user."),
    "retrain": ("streamguard.batch.commands.retrain", "Compute features, a model and a report from history."),
    "models": ("streamguard.cli.models", "List, verify, compare and promote models."),
    "archive": (
        "streamguard.batch.commands.archive",
        "Store a topic's events as Parquet before Kafka deletes them.",
    ),
    "replay": ("streamguard.cli.replay", "Score events from a file or standard input."),
    "evaluate": ("streamguard.cli.evaluate", "Measure detection on labelled events."),
}
"""Subcommand -> the module that defines it as `command`, and its line in `--help`."""

BROKERS = "streamguard.brokers"
"""Key of click's `Context.meta` for the brokers of a command, with which an error of a Kafka client is explained."""


class LazyGroup(SuggestingGroup):
    """A click group that imports a command's module when the command is used, and reports every error."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command. An error is printed, and the process exits with the error's code.

        An unexpected exception is printed with its traceback. click handles its own exceptions and a closed pipe,
        unless the caller asks for them with `standalone_mode=False`.
        """
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 must not end a command
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().main(*args, **kwargs)
        except StreamGuardError as error:
            _end(error)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - Python would exit with 1, the code of a check that found something
            if (known := _translated(error, None)) is not None:
                _end(known)
            _crash(error)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments. Ctrl-C exits with 130, as shells expect."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            _stop()

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Ctrl-C exits with 130, as shells expect, unless the command handles Ctrl-C itself.

        Exceptions of libraries are translated here, where the brokers of the command are known.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _stop()
        except (StreamGuardError, click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            known = _translated(error, ctx.meta.get(BROKERS))
            if known is None:
                raise
            raise known from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _translated(error: Exception, brokers: Any) -> StreamGuardError | None:
    from streamguard.cli import foreign

    return foreign.translated(error, brokers)


def _stop() -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo("stopped", err=True)
    sys.exit(ExitCode.INTERRUPTED)


def _end(error: StreamGuardError) -> NoReturn:
    """Print the error and exit with its code."""
    with contextlib.suppress(OSError):
        show(error)
    # Python would write the buffered output again at exit, and fail again.
    if isinstance(error, CannotWriteError):
        with contextlib.suppress(OSError), Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
    sys.exit(error.exit_code)


def _crash(error: Exception) -> NoReturn:
    """Print the traceback of an unexpected exception, and exit with its code."""
    with contextlib.suppress(OSError):
        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
        click.echo(f"Error: unexpected {type(error).__name__}: report this traceback", err=True)
    sys.exit(ExitCode.SOFTWARE)


def show(error: StreamGuardError) -> None:
    """Print an error, with control characters of foreign text replaced."""
    click.echo(f"Error: {printable(str(error), keep=chr(10))}", err=True)


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(streamguard.__version__, prog_name="streamguard")
def main() -> None:
    """Learn what is normal for each user, and report deviations with their reasons."""
