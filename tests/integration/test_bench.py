"""Every benchmark runs in its small version and reports figures. Limits of speed need an idle machine: not checked."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import NAMES
from bench.detection import labelled
from bench.figures import Figure, table
from tests import logins

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Figures of all benchmarks."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    ran = bench("--quick", "--json", str(file))
    assert ran.returncode == 0, ran.stderr
    figures: dict[str, list[dict[str, Any]]] = json.loads(file.read_bytes())["figures"]
    return figures


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_benchmark_reports_finite_numbers(report: dict[str, list[dict[str, Any]]]) -> None:
    assert set(report) == set(NAMES)
    for name, figures in report.items():
        assert any(figure["wanted"] for figure in figures), f"{name} has no figure with a limit"
        for figure in figures:
            assert figure["what"]
            assert math.isfinite(figure["reached"]) and figure["reached"] >= 0, figure


def test_figures_of_time_and_memory_are_positive(report: dict[str, list[dict[str, Any]]]) -> None:
    for figures in report.values():
        for figure in figures:
            may_be_zero = any(word in figure["what"] for word in ("fetching", "for a swap"))
            if figure["unit"] in ("us", "ms", "s", "MB") and not may_be_zero:
                assert figure["reached"] > 0, figure


def test_forest_scores_equal_those_of_scikit_learn(report: dict[str, list[dict[str, Any]]]) -> None:
    assert report["forest"][-1]["reached"] == 0


def test_memory_stays_within_the_bound_of_the_settings(report: dict[str, list[dict[str, Any]]]) -> None:
    peak = Figure(**report["memory"][-1])
    assert peak.met, peak


def test_unknown_benchmark_is_an_error_with_its_name() -> None:
    ran = bench("speed")
    assert ran.returncode == 2
    assert "there is no benchmark speed: choose from forest," in ran.stderr


def test_table_shows_which_limit_was_missed() -> None:
    lines = table(
        [Figure("fast", 12.0, "us", "<= 15"), Figure("slow", 16.0, "us", "<= 15"), Figure("count", 3.0)]
    )
    assert [line.split()[-1] for line in lines.splitlines()] == ["verdict", "reached", "MISSED", "3"]


def test_labelled_file_has_the_figures_of_evaluate(tmp_path: Path) -> None:
    figures = {f.what: f.reached for f in labelled(logins.write_csv(tmp_path / "logins.csv", logins.rows()))}
    assert figures["campaigns caught of 2"] == 2
    assert figures["verdict: roc auc"] > 0.9
