"""A worker follows its registry's pointer and keeps what works."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents import model
from agents.metrics import REGISTRY
from agents.model import ModelWatch
from streamguard.models.manifest import ArtifactError


class Shelf:
    """A registry of names."""

    def __init__(self) -> None:
        self.pointer: str | None = None
        self.bad: set[str] = set()
        self.trouble: Exception | None = None
        self.loads: list[str] = []

    def current(self) -> str | None:
        return self.pointer

    def load(self, version: str) -> str:
        self.loads.append(version)
        if self.trouble is not None:
            raise self.trouble
        if version in self.bad:
            raise ArtifactError("digest differs")
        return f"forest {version}"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()

    def registry(*_: Any, **__: Any) -> Shelf:
        return shelf

    monkeypatch.setattr(model, "Registry", registry)
    return shelf


def failures() -> float:
    return REGISTRY.get_sample_value("streamguard_model_load_failures_total") or 0.0


def test_the_pointer_is_followed_and_a_bad_model_changes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    watch = ModelWatch(str(tmp_path))
    watch.poll()
    assert watch.forest is None
    shelf.pointer = "one"
    watch.poll()
    watch.poll()
    assert watch.forest == "forest one"
    assert shelf.loads == ["one"]

    shelf.pointer, shelf.bad = "two", {"two"}
    before = failures()
    watch.poll()
    watch.poll()
    assert watch.forest == "forest one"
    assert shelf.loads == ["one", "two"]
    assert failures() == before + 1

    shelf.pointer = "three"
    watch.poll()
    assert watch.forest == "forest three"
    assert REGISTRY.get_sample_value("streamguard_model_info", {"version": "three"}) == 1
    assert REGISTRY.get_sample_value("streamguard_model_info", {"version": "one"}) is None


def test_a_disk_that_fails_for_a_while_is_asked_again(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    watch = ModelWatch("registry")
    shelf.pointer = "one"
    before = failures()
    for trouble in (OSError(5, "Input/output error"), OSError(5, "Input/output error")):
        shelf.trouble = trouble
        watch.poll()
    assert watch.forest is None
    assert failures() == before + 1
    assert len(caplog.messages) == 1 and "model one" in caplog.text
    shelf.trouble = None
    watch.poll()
    assert watch.forest == "forest one"


def test_what_the_registry_could_not_read_is_asked_again(tmp_path: Path) -> None:
    """The real registry: a version whose files come late."""
    version = "0123456789ab"
    (tmp_path / "versions" / version).mkdir(parents=True)
    (tmp_path / "current").write_text(version)
    watch = ModelWatch(str(tmp_path))
    watch.poll()
    assert watch._refused is None
    (tmp_path / "versions" / version / "manifest.json").write_text("{")
    watch.poll()
    assert watch._refused == version


def test_a_broken_pointer_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pointer = tmp_path / "current"
    watch = ModelWatch(str(tmp_path))
    with caplog.at_level(logging.ERROR):
        for content in ("nonsense", "nonsense", "other nonsense", "other nonsense"):
            pointer.write_text(content)
            watch.poll()
        pointer.unlink()
        watch.poll()
        pointer.write_text("other nonsense")
        watch.poll()
    assert len(caplog.messages) == 3
    assert "pointer" in caplog.messages[0] and str(pointer) in caplog.messages[0]


def test_without_a_model_there_is_no_time_of_its_loading() -> None:
    code = (
        "from agents import metrics\nfrom prometheus_client import generate_latest\n"
        "print(generate_latest(metrics.REGISTRY).decode())"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "streamguard_model_loaded_timestamp_seconds NaN" in text


def test_without_a_registry_nothing_is_polled(shelf: Shelf) -> None:
    watch = ModelWatch("")
    watch.start()
    assert watch.forest is None
