"""One base class of errors, one exit code for each fault; `python -m tests.unit.test_errors` writes the page."""

from __future__ import annotations

import ast
import errno
import importlib
import importlib.util
import inspect
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError, KafkaException

import streamguard
from streamguard import errors
from streamguard.agents.errors import is_disk_failure
from streamguard.batch.commands.running import disk_errors, run
from streamguard.batch.source import sources
from streamguard.batch.source.offset_range import OffsetRange
from streamguard.batch.source.sources import KafkaSource
from streamguard.cli.main import COMMANDS, main
from streamguard.errors import (
    CannotWriteError,
    ConfigurationError,
    ExitCode,
    StreamGuardError,
    UnavailableError,
)
from streamguard.files.caches import cache_directory
from streamguard.fold.features import NAMES
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.kafka.topics import TopicsMismatchError
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.load import load

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
        "analyze": ["--incident", "3-7-1"],
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
            needs = {"promote": ["v"], "diff": ["a", "b"], "acls": ["worker"], "revoke": ["v"]}
            needs |= {
                "incidents": {
                    "show": ["3-7-1"],
                    "events": ["3-7-1"],
                    "ack": ["3-7-1"],
                    "assign": ["3-7-1", "ann"],
                    "comment": ["3-7-1", "text"],
                    "snooze": ["3-7-1", "--for", "1h"],
                    "close": ["3-7-1", "--as", "undetermined", "--reason", "r"],
                    "mute": ["3-7-1", "--for", "7d", "--reason", "r", "--yes"],
                    "undo": ["3-7-1"],
                },
                "users": {"show": ["ann"], "timeline": ["ann"]},
                "keys": {"add": ["ann"]},
            }.get(name, {})
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


UNWRITABLE = "file/below"
"""Nothing can be created below a regular file, not even by root."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["retrain", "--engine", "local", "--input", "events.jsonl", "--output", UNWRITABLE],
        ["retrain", "--engine", "local", "--input", "events.jsonl", "--registry", UNWRITABLE],
        ["archive", "--engine", "local", "--output", UNWRITABLE],
        ["simulate", "--events", "1", "--output", f"{UNWRITABLE}.jsonl"],
        ["worker", "--data-dir", UNWRITABLE],
        ["broker", "--data", UNWRITABLE],
        ["replay", "events.jsonl", "--output", f"{UNWRITABLE}.jsonl"],
    ],
    ids=lambda arguments: "-".join([arguments[0], arguments[-2].strip("-")]),
)
def test_unwritable_output_ends_every_command_with_73(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = CliRunner().invoke(
        main, ["simulate", "--events", "50", "--output", str(tmp_path / "events.jsonl")]
    )
    assert made.exit_code == ExitCode.OK, made.output
    # A worker changes the signals and the logging of its process, so every command has a process of its own.
    ended = subprocess.run(
        [sys.executable, "-m", "streamguard.cli", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == ExitCode.CANNOT_WRITE, ended.stderr
    assert "file" in ended.stderr and "Not a directory" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_registry_that_cannot_be_written_ends_models_with_73(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path, feature_names=NAMES)
    rows = np.random.default_rng(0).random((40, len(NAMES)), np.float32)
    versions = [registry.publish(train(rows, seed=seed, trees=2)) for seed in (0, 1)]
    for version in versions:
        registry.promote(version)
    before = (tmp_path / "current").read_bytes()

    def refused(handle: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refused)
    arguments = [verb, versions[0]] if verb == "promote" else [verb]
    ended = CliRunner().invoke(main, ["models", *arguments, "--registry", str(tmp_path)])
    assert ended.exit_code == ExitCode.CANNOT_WRITE, ended.output
    assert f"cannot write {tmp_path / 'current'}: Read-only file system; mount" in ended.output
    assert "--registry" in ended.output
    assert (tmp_path / "current").read_bytes() == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR])
def test_errors_of_the_disk_are_the_same_everywhere(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(code, os.strerror(code), "/x")
    assert is_disk_failure(error)
    with pytest.raises(CannotWriteError, match="cannot write /x: ") as raised, disk_errors():
        raise error

    monkeypatch.setitem(main.params[0].__dict__, "callback", _raises(error))
    ended = CliRunner().invoke(main, ["--version"])
    assert (ended.exit_code, ended.output) == (ExitCode.CANNOT_WRITE, f"Error: {raised.value}\n")


def _raises(error: BaseException) -> Callable[..., None]:
    def raising(*_: object) -> None:
        raise error

    return raising


def test_unexpected_exception_ends_with_70_and_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", _raises(KeyError("why")))
    ended = CliRunner().invoke(main, ["doctor"])
    assert ended.exit_code == ExitCode.SOFTWARE
    assert "Traceback" in ended.stderr and "KeyError: 'why'" in ended.stderr
    assert ended.stderr.endswith("Error: unexpected KeyError: report this traceback\n")
    assert not ended.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (SystemExit(5), 5),
        (click.UsageError("why"), ExitCode.USAGE),
        (click.Abort(), 1),
        (BrokenPipeError(errno.EPIPE, "why"), 1),
    ],
    ids=lambda one: type(one).__name__,
)
def test_exceptions_that_click_or_python_handles_have_no_traceback(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib, "import_module", _raises(error))
    ended = CliRunner().invoke(main, ["doctor"])
    assert ended.exit_code == code
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["retrain", "--engine", "local"], "pyarrow"),
        (["retrain", "--engine", "local"], "sklearn"),
        (["retrain"], "pyspark"),
        (["archive", "--output", "archive"], "pyarrow"),
        (["archive", "--output", "archive"], "pyspark"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_missing_package_of_the_extra_ends_with_78(
    arguments: list[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == missing else found(name, *more)
    )
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == ExitCode.CONFIGURATION, ended.output
    assert f"({missing}): install StreamGuard with the extra `batch`" in ended.output


def test_temporary_cache_that_cannot_be_used_is_an_error_with_73(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", _raises(RuntimeError("no home directory")))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert cache_directory("x").parent.parent == tmp_path
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    (tmp_path / f"streamguard-{user + 1}").mkdir()
    with pytest.raises(CannotWriteError, match="belongs to another user: set XDG_CACHE_HOME"):
        cache_directory("x")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(CannotWriteError, match=r"Not a directory.*set XDG_CACHE_HOME"):
        cache_directory("x")


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_missing_topic_is_a_configuration_error_for_every_reader_and_writer(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = SimpleNamespace(topics={"events": SimpleNamespace(error=KafkaError(code))})
    monkeypatch.setattr("streamguard.kafka.producer.metadata", lambda *_: answered)
    monkeypatch.setattr(
        "streamguard.batch.source.sources.metadata", _raises(KafkaException(KafkaError(code)))
    )
    brokers = Brokers("127.0.0.1:9")
    missing = code == KafkaError.UNKNOWN_TOPIC_OR_PART
    wanted = TopicsMismatchError if missing else UnavailableError
    with pytest.raises(wanted, match="has no topic.*topics create" if missing else "topic"):
        EventProducer(brokers, "events").check()
    with pytest.raises(wanted, match="has no topic.*topics create" if missing else "topic"):
        KafkaSource(brokers, "events").identity()


def test_kafka_that_cannot_be_read_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_PATIENCE", 0.0)
    with pytest.raises(UnavailableError, match="cannot be read at offset 0 of events"):
        next(iter(KafkaSource(Brokers("127.0.0.1:9"), "events").records(OffsetRange(0, 0, 5))))


def test_renamed_setting_in_the_environment_is_explained() -> None:
    with pytest.raises(
        ConfigurationError, match=r"LEAST_ROWS: .*renamed to gate\.min_rows: use the new name"
    ):
        load(environ={"STREAMGUARD_GATE_LEAST_ROWS": "9"})


@pytest.mark.parametrize("place", ["repository", "wheel"])
def test_file_for_spark_submit_adds_no_directory_of_modules_to_the_path(place: str, tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "batch" / "retrain.py"
    if place == "wheel":
        (tmp_path / "streamguard" / "batch").mkdir(parents=True)
        copy = tmp_path / "streamguard" / "batch" / "retrain.py"
        copy.write_bytes(file.read_bytes())
        file = copy
    code = (
        "import runpy, sys\nfrom pathlib import Path\n"
        "file = Path(sys.argv[1])\nsys.argv = [str(file), '--help']\n"
        "sys.path.insert(0, str(file.parent))\n"
        "try:\n    runpy.run_path(str(file), run_name='__main__')\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print(*sys.path, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(file)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Replay history" in done.stdout
    path = done.stdout.splitlines()
    assert str(file.parent) not in path
    assert place == "repository" or str(file.parents[1]) not in path


def test_unsupported_scikit_learn_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sklearn.ensemble.IsolationForest.score_samples", lambda self, rows: np.zeros(len(rows))
    )
    with pytest.raises(ConfigurationError, match=r"install the version that constraints\.txt names"):
        train(np.random.default_rng(0).random((40, 3), np.float32), trees=2)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_stopped_run_ends_with_the_code_of_the_signal(number: signal.Signals, code: int) -> None:
    def once() -> int:
        signal.raise_signal(number)
        return ExitCode.OK

    with pytest.raises(SystemExit) as ended:
        run(once, 0.0, 0.0)
    assert ended.value.code == code


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(START)] + reference())
