"""Commands that do not exist are refused with the names that were perhaps meant; help has examples and exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from streamguard.cli.main import COMMANDS, main
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.errors import ExitCode


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (["incidnts"], "incidents"),
        (["Users"], "users"),
        (["incidents", "lst"], "list"),
        (["incidents", "comments"], "comment"),
        (["users", "timelime"], "timeline"),
        (["models", "promot"], "promote"),
        (["decide", "expect"], "expected"),
    ],
)
def test_mistyped_command_is_refused_with_a_suggestion(words: list[str], suggested: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == ExitCode.USAGE
    assert f"No such command {words[-1]!r}. Did you mean {suggested!r}" in result.stderr


def test_command_that_is_like_none_has_no_suggestion() -> None:
    for name in ("zzz", "x" * 5000):
        result = CliRunner().invoke(main, ["incidents", name])
        assert result.exit_code == ExitCode.USAGE and "No such command" in result.stderr
        assert "Did you mean" not in result.stderr and len(result.stderr) < 500


def test_every_group_suggests_commands() -> None:
    found = [main.get_command(click.Context(main), name) for name in COMMANDS]
    groups = [one for one in found if isinstance(one, click.Group)]
    assert len(groups) >= 7
    assert all(isinstance(one, SuggestingGroup) for one in groups)


def commands_of_serving() -> Iterator[tuple[str, ...]]:
    """The words of every command that asks the serving layer or belongs to it."""
    for name in ("serve", "incidents", "users", "keys", "audit", "decide"):
        found = main.get_command(click.Context(main), name)
        yield (name,)
        if isinstance(found, click.Group):
            yield from ((name, verb) for verb in found.commands)


@pytest.mark.parametrize("words", [*commands_of_serving()], ids=" ".join)
def test_help_has_examples_and_exit_codes(words: tuple[str, ...]) -> None:
    text = CliRunner().invoke(main, [*words, "--help"], prog_name="streamguard").stdout
    assert f"streamguard {' '.join(words)} " in text.partition("Examples:")[2] or len(words) == 1
    assert "Examples:" in text
    assert len(re.findall(r"^ *Exit codes: ", text, re.MULTILINE)) == 1
    if words[-1] in ("list", "show", "events", "timeline", "watch", "verify"):
        assert "--json" in text
