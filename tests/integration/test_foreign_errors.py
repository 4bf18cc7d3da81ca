"""No verb ends with a traceback or an undocumented code, whatever Kafka, the disk and the settings answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamguard.cli.main import main
from streamguard.errors import ExitCode
from streamguard.kafka import topics
from streamguard.testing.broker import LocalKafka, free_port

pytestmark = pytest.mark.integration

UNRESOLVED = "kafka-0.invalid:9092"
"""The domain `invalid` never resolves (RFC 6761)."""

VERBS = {
    "topics-create": ["topics", "create"],
    "topics-check": ["topics", "check"],
    "simulate": ["simulate", "--events", "5"],
    "forget": ["forget", "ann"],
    "retrain": ["retrain", "--engine", "local", "--output", "runs"],
    "archive": ["archive", "--engine", "local", "--output", "archive"],
}
"""Every verb that needs Kafka and ends by itself, but `doctor`, `worker` and `models`."""


@pytest.fixture(scope="module", params=["unresolved", "closed"])
def misleading(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Servers of a Kafka that answers, and the address that it advertises, where nothing answers."""
    address = UNRESOLVED if request.param == "unresolved" else f"127.0.0.1:{free_port()}"
    directory = tmp_path_factory.mktemp("kafka")
    with LocalKafka(directory) as kafka:
        made = CliRunner().invoke(main, ["topics", "create", "--bootstrap-servers", kafka.bootstrap_servers])
        assert made.exit_code == 0, made.output
    with LocalKafka(directory, settings={"advertised.listeners": f"PLAINTEXT://{address}"}) as kafka:
        yield kafka.bootstrap_servers, address


def in_process(arguments: list[str]) -> tuple[int, str]:
    ended = CliRunner().invoke(main, arguments)
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    assert "Traceback" not in ended.output
    assert ended.exit_code in set(ExitCode)
    return ended.exit_code, ended.output


def worker(*arguments: str, directory: Path) -> tuple[int, dict[str, object]]:
    """Exit code and last line of a worker: a worker changes signals and logging, so it has a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "streamguard.cli", "worker", "--metrics-port", "0", *arguments],
        cwd=directory, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in ended.stderr
    last: dict[str, object] = json.loads(ended.stderr.splitlines()[-1])
    assert last["exit_code"] == ended.returncode
    return ended.returncode, last


@pytest.mark.parametrize("arguments", VERBS.values(), ids=VERBS)
def test_unreachable_advertised_listener_is_named_by_every_verb(
    arguments: list[str], misleading: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    servers, address = misleading
    code, output = in_process([*arguments, "--bootstrap-servers", servers])
    assert code == ExitCode.UNAVAILABLE, output
    error = output.splitlines()[-1]
    assert f"1 broker that it advertises cannot be reached from here: 1 at {address} (" in error
    assert "advertised.listeners" in error


def test_unreachable_advertised_listener_is_named_by_the_worker_in_its_last_line(
    misleading: tuple[str, str], tmp_path: Path
) -> None:
    servers, address = misleading
    code, last = worker("--bootstrap-servers", servers, directory=tmp_path)
    assert (code, last["reason"], last["level"]) == (ExitCode.UNAVAILABLE, "unavailable", "critical")
    assert f"1 at {address}" in str(last["message"])


def test_unreachable_advertised_listener_is_a_finding_of_the_doctor(
    misleading: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    servers, address = misleading
    code, output = in_process(["doctor", "--json", "--bootstrap-servers", servers])
    assert code == ExitCode.FOUND
    (found,) = [one for one in json.loads(output)["findings"] if one["check"] == "broker"]
    assert (found["status"], f"1 at {address}" in found["found"]) == ("fail", True)
    assert "advertised.listeners" in found["remedy"]


@pytest.mark.parametrize("arguments", VERBS.values(), ids=VERBS)
def test_port_without_a_broker_ends_every_verb_with_69(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(topics, "_TIMEOUT", 1.0)
    monkeypatch.setattr("streamguard.batch.source.sources._PATIENCE", 1.0)
    code, output = in_process([*arguments, "--bootstrap-servers", f"127.0.0.1:{free_port()}"])
    assert code == ExitCode.UNAVAILABLE, output
    assert "streamguard broker" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--config", "file/below"], ExitCode.CONFIGURATION, "cannot read the settings file"),
        (["--data-dir", "file/below"], ExitCode.CANNOT_WRITE, "Not a directory"),
        (["--bootstrap-servers", "127.0.0.1:1"], ExitCode.UNAVAILABLE, "no Kafka answers"),
        (["--bootstrap-servers", UNRESOLVED], ExitCode.UNAVAILABLE, "no Kafka answers"),
    ],
    ids=lambda value: value[0].strip("-") + value[1][-2:] if isinstance(value, list) else None,
)
def test_last_line_of_a_worker_that_does_not_start_has_reason_and_code(
    arguments: list[str], code: ExitCode, text: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ended, last = worker(*arguments, directory=tmp_path)
    assert (ended, last["reason"]) == (code, code.name.lower())
    assert text in str(last["message"])
