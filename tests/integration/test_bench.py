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

EXACT = {
    "forest": ["rows of "],
    "memory": ["peak;"],
    "swap": ["swaps", "events lost", "alerts that do not name"],
    "fuzz": ["records unaccounted for"],
}
"""First words of those figures of a benchmark that do not depend on the speed of the machine."""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_reports_plausible_figures(name: str, tmp_path: Path) -> None:
    ran = bench("--quick", "--json", str(tmp_path / "figures.json"), name)
    assert ran.returncode == 0, ran.stderr
    reported: dict[str, list[dict[str, Any]]] = json.loads((tmp_path / "figures.json").read_bytes())[
        "figures"
    ]
    figures = [Figure(**figure) for figure in reported.pop(name)]
    assert not reported
    assert any(figure.wanted for figure in figures), f"{name} has no figure with a limit"
    for figure in figures:
        assert figure.what
        assert math.isfinite(figure.reached) and figure.reached >= 0, figure
        may_be_zero = any(word in figure.what for word in ("fetching", "for a swap"))
        if figure.unit in ("us", "ms", "s", "MB") and not may_be_zero:
            assert figure.reached > 0, figure
    for what in EXACT.get(name, ()):
        (exact,) = [figure for figure in figures if figure.what.startswith(what)]
        assert exact.met, exact


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
