"""A worker follows its registry's pointer and keeps what works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents import model
from agents.metrics import REGISTRY
from agents.model import ModelWatch


class Shelf:
    """A registry of names."""

    def __init__(self) -> None:
        self.pointer: str | None = None
        self.bad: set[str] = set()
        self.loads: list[str] = []

    def current(self) -> str | None:
        return self.pointer

    def load(self, version: str) -> str:
        self.loads.append(version)
        if version in self.bad:
            raise ValueError("digest differs")
        return f"forest {version}"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()

    def registry(*_: Any, **__: Any) -> Shelf:
        return shelf

    monkeypatch.setattr(model, "Registry", registry)
    return shelf


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
    failures = REGISTRY.get_sample_value("streamguard_model_load_failures_total") or 0.0
    watch.poll()
    watch.poll()
    assert watch.forest == "forest one"
    assert shelf.loads == ["one", "two"]
    assert REGISTRY.get_sample_value("streamguard_model_load_failures_total") == failures + 1

    shelf.pointer = "three"
    watch.poll()
    assert watch.forest == "forest three"
    assert REGISTRY.get_sample_value("streamguard_model_info", {"version": "three"}) == 1
    assert REGISTRY.get_sample_value("streamguard_model_info", {"version": "one"}) is None


def test_without_a_registry_nothing_is_polled(shelf: Shelf) -> None:
    watch = ModelWatch("")
    watch.start()
    assert watch.forest is None
