"""What the demo says of a retrain, whether or not its model became current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamguard.cli.demo.learn import judgement
from streamguard.cli.demo.play import _taken_over


class Waiting:
    """A worker that is asked to take a model over."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def await_model(self, version: str) -> None:
        self.asked.append(version)


@pytest.mark.parametrize("current", [True, False])
def test_the_worker_is_waited_for_only_if_there_is_something_to_wait_for(current: bool) -> None:
    worker, outcome = Waiting(), {"current": current, "version": "v1", "says": "kept out: drift"}
    said = _taken_over(worker, outcome)  # type: ignore[arg-type]

    assert worker.asked == (["v1"] if current else [])
    assert ("scores with model v1" if current else "continues without a model: kept out: drift") in said


@pytest.mark.parametrize("model", [None, {"checks": [{"says": "no drift"}]}])
def test_a_judgement_is_what_the_gate_said(model: Any, tmp_path: Path) -> None:
    (tmp_path / "anomaly_report.json").write_text(json.dumps({"model": model}))
    said = judgement({"directory": str(tmp_path), "says": "kept out"})

    assert said.splitlines() == ["  kept out", *(["    no drift"] if model else [])]
