"""Messages of the demo about a retrain, whether or not its model became current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamguard.cli.demo.learn import judgement
from streamguard.cli.demo.play import _taken_over


class Waiting:
    """A worker that records the models that it is asked to await."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def await_model(self, version: str) -> None:
        self.asked.append(version)


@pytest.mark.parametrize("current", [True, False])
def test_demo_waits_for_the_worker_only_if_the_model_is_current(current: bool) -> None:
    worker, outcome = Waiting(), {"current": current, "version": "v1", "message": "kept out: drift"}
    text = _taken_over(worker, outcome)  # type: ignore[arg-type]

    assert worker.asked == (["v1"] if current else [])
    assert ("scores with model v1" if current else "continues without a model: kept out: drift") in text


@pytest.mark.parametrize("model", [None, {"checks": [{"message": "no drift"}]}])
def test_judgement_lists_the_checks_of_the_gate(model: Any, tmp_path: Path) -> None:
    (tmp_path / "anomaly_report.json").write_text(json.dumps({"model": model}))
    text = judgement({"directory": str(tmp_path), "message": "kept out"})

    assert text.splitlines() == ["  kept out", *(["    no drift"] if model else [])]
