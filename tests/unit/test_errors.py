"""One base class of errors, one exit code for each fault; `python -m tests.unit.test_errors` writes the page."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from itertools import pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import streamguard
from streamguard import errors
from streamguard.cli.main import COMMANDS, main
from streamguard.errors import ExitCode, StreamGuardError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md"
START = "| code | name | meaning |"


def reference() -> str:
    """The table of exit codes: the meaning is the text below each member."""
    (tree,) = [
        node for node in ast.parse(inspect.getsource(errors)).body if getattr(node, "name", "") == "ExitCode"
    ]
    assert isinstance(tree, ast.ClassDef)
    meanings = {
        member.targets[0].id: " ".join(str(text.value.value).split())
        for member, text in pairwise(tree.body)
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }  # fmt: skip
    rows = [f"| {code.value} | {code.name} | {meanings[code.name]} |" for code in ExitCode]
    return "\n".join([START, "|---|---|---|", *rows]) + "\n"


def test_exit_code_page_is_current() -> None:
    page = PAGE.read_text()
    assert page[page.index(START) :] == reference()


def test_every_error_has_the_base_class() -> None:
    for _, name, _ in pkgutil.walk_packages(streamguard.__path__, "streamguard."):
        if name.endswith("__main__"):
            continue
        for error in vars(importlib.import_module(name)).values():
            if isinstance(error, type) and issubclass(error, Exception) and error.__module__ == name:
                assert issubclass(error, StreamGuardError), error
                assert isinstance(error.exit_code, ExitCode)


def command_lines() -> list[list[str]]:
    """Arguments that each command needs before it reads its settings."""
    given = {
        "forget": ["ann"],
        "archive": ["--output", "archive"],
        "replay": ["events.jsonl"],
        "evaluate": ["events.jsonl"],
        "simulate": ["--events", "1", "--output", "events.jsonl"],
    }
    found = []
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        if isinstance(command, click.Group):
            needs = {"promote": ["v"], "diff": ["a", "b"], "acls": ["worker"]}
            found += [[name, sub, *needs.get(sub, [])] for sub in command.commands]
        elif any(option.name == "config" for option in command.params):
            found.append([name, *given.get(name, [])])
    return found


@pytest.mark.parametrize("arguments", command_lines(), ids=lambda arguments: "-".join(arguments[:2]))
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[worker]\nchunk_evnts = 5\n", "did you mean chunk_events"),
        ("[worker\n", "not valid TOML"),
        (None, "cannot read the settings file"),
        ("[gate]\nleast_rows = 9\n", "gate.least_rows was renamed to gate.min_rows"),
        ('[clusters]\nengine = "spark"\n', "clusters.engine was removed"),
        ('[security]\nusername = "a"\n', "security.password_file"),
    ],
    ids=["unknown", "no-toml", "missing", "renamed", "removed", "contradiction"],
)
def test_broken_configuration_ends_every_command_with_78(
    arguments: list[str], text: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "settings.toml").write_text(text)
    ended = CliRunner().invoke(main, [*arguments, "--config", "settings.toml"])
    assert ended.exit_code == ExitCode.CONFIGURATION, ended.output
    assert reason in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("verb", ["replay", "evaluate", "retrain"])
def test_missing_input_ends_every_command_with_65(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--engine", "local", "--input", "none.jsonl"] if verb == "retrain" else ["none.jsonl"]
    ended = CliRunner().invoke(main, [verb, *arguments])
    assert ended.exit_code == ExitCode.DATA_ERROR, ended.output
    assert "none.jsonl" in ended.output


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(START)] + reference())
