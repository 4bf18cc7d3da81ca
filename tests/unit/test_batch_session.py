"""Start of Spark: the Java wrapper, flags by Java version, loopback addresses, and spark-submit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from streamguard.batch.engines import class_archive, session
from streamguard.batch.engines.jvm import QUICK, Jvm
from streamguard.jvm.spark_connector import spark_connector
from streamguard.settings.schema import Spark


def fake_java(path: Path, version: str) -> Path:
    """A `java` that prints its version, or otherwise its arguments, one on each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    print_version = f"""[ "$1" != -version ] || {{ echo 'openjdk version "{version}"' >&2; exit; }}"""
    path.write_text(f"#!/bin/sh\n{print_version}\nprintf '%s\\n' \"$@\"\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "streamguard"


@pytest.fixture
def jvm(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jvm:
    return with_java(tmp_path, monkeypatch, "17.0.2")


def with_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> Jvm:
    home = tmp_path / f"it's java {version}"
    fake_java(home / "bin" / "java", version)
    monkeypatch.setenv("JAVA_HOME", str(home))
    jvm = Jvm()
    jars = spark_connector(jvm.version).directory
    jars.mkdir(parents=True, exist_ok=True)
    for name in ("b.jar", "a.jar"):
        (jars / name).touch()
    return jvm


def started(jvm: Jvm, *arguments: str) -> list[str]:
    java = Path(jvm.environment["JAVA_HOME"], "bin", "java")
    run = subprocess.run([java, *arguments], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def test_java_is_started_without_the_missing_module(jvm: Jvm) -> None:
    given = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "-cp", "a b:c*", "Main", "$HOME", ""]
    assert started(jvm, *given) == ["-Xmx1g", "-cp", "a b:c*", "Main", "$HOME", ""]
    opened = "--add-opens=java.base/sun.security.action=ALL-UNNAMED"
    assert started(jvm, opened) == [opened]


def test_new_java_gets_no_flags_for_removed_packages(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jvm = with_java(tmp_path, monkeypatch, "25.0.1")
    assert started(jvm, "--add-opens=java.base/sun.security.action=ALL-UNNAMED", "Main") == ["Main"]


@pytest.mark.parametrize(
    ("version", "make", "use"),
    [
        ("17.0.2", "-XX:ArchiveClassesAtExit", "-XX:SharedArchiveFile"),
        ("21.0.2", "-XX:ArchiveClassesAtExit", "-XX:SharedArchiveFile"),
        ("25.0.1", "-XX:AOTCacheOutput", "-XX:AOTCache"),
    ],
)
def test_class_archive_is_used_once_it_exists(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, make: str, use: str
) -> None:
    jvm = with_java(tmp_path, monkeypatch, version)
    assert jvm.start_flags() == [*QUICK]
    assert f"{make}={jvm.archive}" in jvm.archiving_flags(jvm.archive)
    jvm.archive.parent.mkdir(parents=True)
    jvm.archive.touch()
    assert f"{use}={jvm.archive}" in jvm.start_flags()


def test_two_java_versions_use_different_archives(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    javas = [with_java(tmp_path, monkeypatch, version) for version in ("17.0.2", "17.0.3")]
    assert javas[0].archive != javas[1].archive


def test_local_master_stays_on_loopback(jvm: Jvm, tmp_path: Path) -> None:
    asked = session.driver(Spark(master="local[3]", driver_memory="2g"), tmp_path, jvm, ["-XX:+Quick"])
    assert asked["spark.master"] == "local[3]"
    assert asked["spark.driver.memory"] == "2g"
    assert asked["spark.driver.host"] == asked["spark.driver.bindAddress"] == "127.0.0.1"
    assert asked["spark.ui.enabled"] == "false"
    assert [Path(jar).name for jar in asked["spark.driver.extraClassPath"].split(":")] == ["a.jar", "b.jar"]
    assert asked["spark.driver.extraJavaOptions"].endswith(" -XX:+Quick")
    assert (tmp_path / "log4j2.properties").read_text().startswith("status = error")


def test_cluster_gets_jars_and_no_driver_address(jvm: Jvm, tmp_path: Path) -> None:
    settings = Spark(master="spark://10.0.0.1:7077", executor_memory="3g")
    asked = session.driver(settings, tmp_path, jvm, ["-XX:+Quick"])
    assert [Path(jar).name for jar in asked["spark.jars"].split(",")] == ["a.jar", "b.jar"]
    assert asked["spark.executor.memory"] == "3g"
    assert "spark.driver.host" not in asked
    assert "-XX:+Quick" not in asked["spark.driver.extraJavaOptions"]


def test_tasks_use_utc_and_the_configured_batch_size() -> None:
    asked = session.workers(Spark(batch_rows=123))
    assert asked["spark.sql.session.timeZone"] == "UTC"
    assert asked["spark.sql.execution.arrow.maxRecordsPerBatch"] == "123"
    assert not any(name.startswith(("spark.master", "spark.driver", "spark.jars")) for name in asked)


def test_spark_submit_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    assert not session.submitted()
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    assert session.submitted()


def test_root_cause_of_a_spark_error_has_no_stack_trace() -> None:
    assert session.root_cause(RuntimeError("\n  first line \n\tat java.lang.Thread")) == "first line"
    assert session.root_cause(RuntimeError()) == "RuntimeError"


def test_environment_is_restored_after_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "mine")
    monkeypatch.delenv("SPARK_HOME", raising=False)
    before = dict(os.environ)
    with session._environment({"JAVA_HOME": "theirs", "SPARK_HOME": "theirs"}):
        assert os.environ["JAVA_HOME"] == os.environ["SPARK_HOME"] == "theirs"
        assert "PYSPARK_PYTHON" in os.environ
    assert dict(os.environ) == before


def test_missing_java_is_reported_and_no_archive_is_built(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("streamguard.jvm.java.importlib.util.find_spec", lambda name: None)
    assert class_archive.main() == 1
    assert "Spark starts slower" in capsys.readouterr().err
