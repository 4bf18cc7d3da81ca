"""Exports the last retrain as Prometheus metrics: on a port, and in a file for the textfile collector."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import Counter, Gauge, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from streamguard import metrics
from streamguard.batch.runs import BusyError, Runs
from streamguard.models.gate import GROWING
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry, registry_settings
from streamguard.probes import Answer, Server
from streamguard.runs import report as batch_report
from streamguard.runs.directory import REPORT
from streamguard.settings.schema import Settings, SettingsError

if TYPE_CHECKING:
    from streamguard.batch.job import RetrainOutcome

Say = Callable[[str], None]
OnOutcome = Callable[["RetrainOutcome"], None]


class RetrainMetrics:
    """The metrics of runs, exported as the settings require.

    Parameters
    ----------
    settings
        `batch.metrics_port` is served during a series of runs. `batch.metrics_file` is written at the start and at the
        end of each run. It is read back first, so the values that a run of another process wrote are kept.
    every
        Seconds between the starts of two runs; 0 for a single run, which serves no port.
    say
        Called with a message if the file cannot be written; this alone does not fail a run.

    Raises
    ------
    SettingsError
        If the port or the file is unavailable.
    """

    def __init__(self, settings: Settings, every: float, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._file = settings.batch.metrics_file
        self.port: int | None = None
        """Port in use; None if no port is served (0 in the settings)."""
        restored = self._restore() if self._file else {}
        was_running = restored.get("streamguard_retrain_running") == 1.0
        other_running = was_running and Runs(settings.batch.output).busy
        if was_running and not other_running:
            # The earlier process was killed during its run and could not report the failure.
            metrics.RETRAIN_RUNS.labels("failed").inc()
            metrics.RETRAIN_SUCCESS.set(0)
        if not restored.get("streamguard_retrain_since_timestamp_seconds", 0.0) > 0.0:
            metrics.RETRAIN_SINCE.set(time.time())
        metrics.RETRAIN_INTERVAL.set(every or settings.batch.expected_seconds)
        metrics.RETRAIN_RUNNING.set(0)
        if self._file and not other_running:
            try:
                _replace(self._file)
            except OSError as error:
                raise SettingsError(
                    f"batch.metrics_file: cannot write {self._file}: {error.strerror}"
                ) from None
        if every and settings.batch.metrics_port:
            host, port = settings.batch.metrics_host, settings.batch.metrics_port
            try:
                server = Server(_page, host, port, settings.batch.metrics_allowed_hosts)
            except OSError as error:
                raise SettingsError(
                    f"batch.metrics_port: cannot serve metrics on {host}:{port}: {error.strerror}"
                ) from None
            server.start("metrics")
            self.port = server.port

    @contextmanager
    def run(self) -> Iterator[OnOutcome]:
        """Measure one run, which counts as failed unless its outcome is reported to the yielded function.

        If another retrain is running (`BusyError`), the file is left to that retrain.
        """
        began = time.time()
        outcomes: list[RetrainOutcome] = []
        metrics.RETRAIN_RUNNING.set(1)
        metrics.RETRAIN_START.set(began)
        self._write()
        try:
            yield outcomes.append
        except BusyError:
            metrics.RETRAIN_RUNNING.set(0)
            raise
        except BaseException:
            self._ended(began, None)
            raise
        self._ended(began, outcomes[0] if outcomes else None)

    def _ended(self, began: float, outcome: RetrainOutcome | None) -> None:
        ended = time.time()
        metrics.RETRAIN_RUNNING.set(0)
        metrics.RETRAIN_END.set(ended)
        metrics.RETRAIN_DURATION.set(ended - began)
        metrics.RETRAIN_SUCCESS.set(outcome is not None)
        if outcome is not None:
            metrics.RETRAIN_SUCCESS_TIME.set(ended)
            self._set_outcome(outcome)
        else:
            metrics.RETRAIN_RUNS.labels("failed").inc()
        self._write()

    def _set_outcome(self, outcome: RetrainOutcome) -> None:
        metrics.RETRAIN_RUNS.labels("current" if outcome.current else "not_promoted").inc()
        metrics.RETRAIN_RECORDS.set(outcome.records)
        metrics.RETRAIN_EVENTS.set(outcome.events)
        metrics.RETRAIN_REFUSED.set(outcome.refused)
        metrics.RETRAIN_ALERTED.set(outcome.alerted)
        metrics.RETRAIN_USERS.set(outcome.users)
        metrics.RETRAIN_USERS_AT_RISK.set(outcome.users_at_risk)
        metrics.RETRAIN_PROMOTED.set(math.nan if outcome.version is None else outcome.current)
        for step, seconds in outcome.seconds.items():
            metrics.RETRAIN_STEPS.labels(step).set(seconds)
        with suppress(OSError, msgspec.DecodeError):
            body = batch_report.decode((Path(outcome.directory) / REPORT).read_bytes())
            metrics.RETRAIN_ROWS.set(body.totals.training_rows)
            metrics.RETRAIN_TRIMMED.set(body.totals.trimmed_share)
            metrics.RETRAIN_GATE.set(math.nan if body.model is None else body.model.passed)
            # A run that starts a new history mostly reads another source, so drift is expected.
            if body.drift and body.continues:
                moved = [drift.psi for drift in body.drift if drift.feature not in GROWING]
                metrics.RETRAIN_DRIFT.set(max(moved, default=0.0))
            else:
                metrics.RETRAIN_DRIFT.set(math.nan)
        with suppress(ArtifactError):
            registry = Registry.of(registry_settings(self._settings))
            current = registry.current()
            if current is not None:
                metrics.RETRAIN_MODEL_PUBLISHED.set(registry.published(current))

    def _write(self) -> None:
        if self._file:
            try:
                _replace(self._file)
            except OSError as error:
                self._say(f"cannot write the metrics to {self._file}: {error.strerror}")

    def _restore(self) -> dict[str, float]:
        """Take over the values of an earlier process, and return those of its series without labels."""
        found: dict[str, float] = {}
        known = {
            d.name: d.metric for d in metrics.DECLARED if d.registry is metrics.RETRAIN and d.kind != "info"
        }
        with suppress(OSError, ValueError):
            for family in text_string_to_metric_families(Path(self._file).read_text()):
                for sample in family.samples:
                    metric = known.get(sample.name)
                    if metric is None or set(sample.labels) != set(metric._labelnames):
                        continue
                    series = metric.labels(**sample.labels) if sample.labels else metric
                    if isinstance(series, Counter):
                        series.inc(sample.value)
                    elif isinstance(series, Gauge):
                        series.set(sample.value)
                    if not sample.labels:
                        found[sample.name] = sample.value
        return found


def _replace(file: str) -> None:
    """Write the metrics, readable for every user: they contain no names, and collectors run as other users."""
    write_to_textfile(file, metrics.RETRAIN)
    Path(file).chmod(0o644)


def _page(path: str) -> Answer:
    if path == "/metrics":
        return Answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics.exposition(metrics.RETRAIN))
    return Answer(404, "text/plain; charset=utf-8", b"unknown path: use /metrics\n")
