"""Metrics of a retrain: drift is that of one source over time, never the difference between two sources."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streamguard import metrics
from streamguard.batch.job import RetrainOutcome
from streamguard.batch.metrics import RetrainMetrics
from streamguard.models.gate import GROWING
from streamguard.runs import report as batch_report
from streamguard.runs.directory import REPORT
from streamguard.runs.report import Drift
from streamguard.settings.schema import Batch, Models, Settings


@pytest.fixture
def outcome(tmp_path: Path) -> RetrainOutcome:
    (tmp_path / REPORT).write_text("{}")
    numbers = dict.fromkeys(("records", "events", "refused", "alerted", "users", "users_at_risk"), 1)
    return cast(
        RetrainOutcome,
        SimpleNamespace(**numbers, current=True, version="1" * 12, seconds={}, directory=str(tmp_path)),
    )


def exported_drift(outcome: RetrainOutcome, monkeypatch: pytest.MonkeyPatch, **body: Any) -> float:
    """The exported drift after a run whose report has these contents."""
    report = SimpleNamespace(
        totals=SimpleNamespace(training_rows=1, trimmed_share=0.0), model=None, **{"continues": None, **body}
    )
    monkeypatch.setattr(batch_report, "decode", lambda _: report)
    settings = Settings(models=Models(registry=outcome.directory), batch=Batch(output=outcome.directory))
    with RetrainMetrics(settings, 0.0, print).run() as report_outcome:
        report_outcome(outcome)
    (value,) = [sample.value for family in metrics.RETRAIN_DRIFT.collect() for sample in family.samples]
    return value


def test_drift_is_exported_for_a_run_that_continues_a_history_only(
    outcome: RetrainOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = next(iter(GROWING))
    drift = [Drift("hour_surprisal", 0.3), Drift("off_hours_share", 0.1), Drift(growing, 9.0)]
    assert exported_drift(outcome, monkeypatch, drift=drift, continues="an earlier run") == 0.3
    assert math.isnan(exported_drift(outcome, monkeypatch, drift=drift))
    assert math.isnan(exported_drift(outcome, monkeypatch, drift=None, continues="an earlier run"))
