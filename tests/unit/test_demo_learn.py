"""Settings of the demo, and its messages about a retrain, whether or not its model became current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamguard.cli.demo.learn import judgement
from streamguard.cli.demo.page import in_a_terminal
from streamguard.cli.demo.play import _taken_over
from streamguard.cli.demo.surroundings import environment, settings_of, variables
from streamguard.models.key import key_of
from streamguard.settings.load import load


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


def test_processes_of_the_demo_have_the_settings_of_the_demo_and_its_key(tmp_path: Path) -> None:
    settings = settings_of("127.0.0.1:9092", tmp_path)
    key = Path(settings.models.key_file)

    assert load(None, variables(settings)) == settings
    assert environment(settings).items() >= variables(settings).items()
    assert len(key_of(settings.models) or b"") == 32
    assert key.parent == tmp_path and key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        settings_of("127.0.0.1:9092", tmp_path)


def test_demo_says_how_commands_reach_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of("127.0.0.1:9092", tmp_path)
    in_a_terminal(settings, "http://127.0.0.1:8080/sign-in?key=sg_abc")
    shown = capsys.readouterr().out
    assert f"export STREAMGUARD_MODELS_KEY_FILE={settings.models.key_file}" in shown
    assert "export STREAMGUARD_SERVE_KEY=sg_abc" in shown
    assert "streamguard incidents list --server http://127.0.0.1:8080\n" in shown
    in_a_terminal(settings, "")
    assert "--server" not in capsys.readouterr().out
