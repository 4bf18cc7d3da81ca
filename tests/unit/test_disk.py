"""File systems with fewer abilities, and errors of the system that nobody explained where they happened."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from streamguard.cli.foreign import translated
from streamguard.cli.main import main
from streamguard.errors import ExitCode, StreamGuardError, UnavailableError
from streamguard.files import disk, lock
from streamguard.fold.features import NAMES
from streamguard.models.registry import Registry
from streamguard.models.train import train


def unsupported(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def test_directory_that_cannot_be_synced_is_no_error_but_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "fsync", unsupported)
    disk.sync(tmp_path)
    with pytest.raises(OSError, match="not supported"):
        disk.sync(tmp_path / "file")


def test_locks_of_posix_replace_missing_locks_of_bsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", unsupported)
    held = lock.acquire(tmp_path / "lock")
    code = (
        "import fcntl, sys\nfrom pathlib import Path\n"
        "def unsupported(*_):\n    raise OSError(95, 'why')\nfcntl.flock = unsupported\n"
        "from streamguard.files import lock\n"
        "try:\n    lock.acquire(Path(sys.argv[1]))\n"
        "except BlockingIOError:\n    print('held')"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lock")], capture_output=True, text=True, check=True
    )
    assert other.stdout == "held\n"
    os.close(held)


def test_registry_on_a_file_system_without_locks_and_permissions_still_promotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path, feature_names=NAMES)
    version = registry.publish(train(np.random.default_rng(0).random((40, len(NAMES)), np.float32), trees=2))
    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(os, "fchmod", unsupported)
    registry.promote(version)
    assert registry.current() == version


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(errno.EMFILE, "why", "/x"), ExitCode.CANNOT_WRITE, "LimitNOFILE"),
        (OSError(errno.EROFS, "why", "/x"), ExitCode.CANNOT_WRITE, "mount the file system for writing"),
        (FileNotFoundError(errno.ENOENT, "why", "/none/x"), ExitCode.CANNOT_WRITE, "/none does not exist"),
        (FileNotFoundError(errno.ENOENT, "why", "/none"), ExitCode.DATA_ERROR, "cannot read /none"),
        (MemoryError(), ExitCode.UNAVAILABLE, "no memory left"),
        (RecursionError(), ExitCode.DATA_ERROR, "nested too deeply"),
        (TimeoutError(), ExitCode.UNAVAILABLE, "no answer in time"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_of_the_system_have_one_sentence(error: Exception, code: ExitCode, text: str) -> None:
    known = translated(error)
    assert isinstance(known, StreamGuardError)
    assert (known.exit_code, text in str(known)) == (code, True), known


def test_file_that_exists_and_cannot_be_read_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("")
    monkeypatch.setattr(os, "access", lambda path, how: how == os.F_OK)  # root may read every file
    known = translated(PermissionError(errno.EACCES, "why", str(file)))
    assert str(known) == (
        f"cannot read {file}: Permission denied; give this user the right to read it, or give another path"
    )


def test_wrapped_error_is_found_and_an_unknown_one_is_not() -> None:
    wrapped = RuntimeError("unexpected")
    wrapped.__cause__ = ConnectionResetError(errno.ECONNRESET, "why")
    assert isinstance(translated(wrapped), UnavailableError)
    assert translated(ValueError("why")) is None
    assert translated(OSError(errno.EBADF, "why")) is None


def test_exception_of_a_library_in_a_command_ends_with_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("streamguard.kafka.topics.require", raising)
    ended = CliRunner().invoke(main, ["topics", "check", "--bootstrap-servers", "127.0.0.1:1"])
    assert ended.exit_code == ExitCode.UNAVAILABLE
    assert ended.output.startswith("Error: Kafka at 127.0.0.1:1 does not answer (no answer in time): check")


def test_terminal_without_utf_8_ends_no_command(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "streamguard.cli", "replay", "λ.jsonl"],
        cwd=tmp_path, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "iso-8859-1:strict"},
    )  # fmt: skip
    assert ended.returncode == ExitCode.DATA_ERROR
    assert b"\\u03bb.jsonl" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_settings_that_are_nested_too_deeply_are_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("a = " + "[" * 100_000)
    ended = CliRunner().invoke(main, ["topics", "check", "--config", str(tmp_path / "settings.toml")])
    assert ended.exit_code == ExitCode.CONFIGURATION, ended.output
