"""Exported metrics: documented, named by the Prometheus conventions, and bounded for any traffic."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from streamguard import metrics
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.task.lag import PartitionLag
from streamguard.batch import metrics as batch_metrics
from streamguard.batch.job import RetrainOutcome
from streamguard.batch.runs import BusyError, Runs
from streamguard.history.understood import Understood
from streamguard.records.record import Record
from streamguard.runs import report as batch_report
from streamguard.runs.directory import REPORT
from streamguard.settings.schema import Batch, Detection, Settings, SettingsError
from streamguard.state.partition import PartitionState
from streamguard.testing.clock import ManualClock
from tests.batches import fold_result

DOC = Path(__file__).parents[2] / "docs" / "metrics.md"


def families(data: bytes) -> list[Metric]:
    return list(text_string_to_metric_families(data.decode()))


def series(registry: Any) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    found = families(metrics.exposition(registry))
    return {(s.name, tuple(sorted(s.labels.items()))) for family in found for s in family.samples}


def test_documentation_is_current() -> None:
    """`python -m tests.unit.test_metrics` writes the tables."""
    assert DOC.read_text().endswith(metrics.as_markdown())


@pytest.mark.parametrize("registry", [metrics.WORKER, metrics.CAMPAIGNS, metrics.RETRAIN, metrics.SERVE])
def test_exported_metrics_equal_the_declared_ones(registry: Any) -> None:
    declared = {d.name: d for d in metrics.DECLARED if d.registry is registry}
    found = {family.name: family for family in registry.collect()}
    assert {name.removesuffix("_total") for name in declared} == found.keys()
    for name, d in declared.items():
        family = found[name.removesuffix("_total")]
        assert family.documentation == d.help
        assert family.type == ("gauge" if d.kind == "info" else d.kind)


def test_names_and_units_follow_prometheus() -> None:
    for d in metrics.DECLARED:
        assert re.fullmatch(r"streamguard_[a-z0-9_]+", d.name)
        assert (d.kind == "counter") == d.name.endswith("_total")
        assert (d.kind == "info") == d.name.endswith("_info")
        assert (d.help.endswith((".", "0.", "labels.")) and d.help[0].isupper()) or d.help[0].isdigit(), (
            d.name
        )
        ends = {"seconds": "_seconds", "bytes": "_bytes", "ratio": "_ratio", "offset": "_offset"}
        if d.unit in ends:
            assert d.name.endswith(ends[d.unit]), d.name
        assert not re.search(r"_(ms|us|milliseconds|minutes|kb|mb|percent|share)(_|$)", d.name), d.name


class Acknowledging:
    """A producer that accepts every record at once."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    async def send(self, topic: str, value: bytes, key: bytes, headers: object) -> asyncio.Future[None]:
        self.keys.append(key)
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent


def test_thousands_of_users_and_addresses_add_no_series() -> None:
    """Events are folded and published as in a worker; each becomes an incident or a dead letter."""
    state = PartitionState(
        3, lambda keys: [None] * len(keys), resident=9000, detection=Detection(alert_risk=0)
    )
    publisher, producer = Publisher(Settings()), Acknowledging()
    publisher._producer = producer

    def publish(first: int, last: int) -> None:
        records = [
            Record("t", 3, i, 1, b"%d" % i, hostile(i), append_ms=60_000 * i) for i in range(first, last)
        ]
        folded = state.fold([r.value for r in records], np.arange(first, last))
        metrics.EVENTS.labels(3).inc(folded.count)
        asyncio.run(publisher._publish(records, folded))

    publish(0, 1)
    before = series(metrics.WORKER)
    for first in range(1, 3001, 60):  # so slowly that each has its own dead letter
        publish(first, first + 60)
    assert len(producer.keys) > 2500 and len(set(producer.keys)) > 1500
    assert series(metrics.WORKER) == before


def hostile(i: int) -> bytes:
    if i % 3 == 2:
        return [
            b"",
            b"[",
            b'{"user": "u%d"}' % i,
            b'{"timestamp": 1e99, "user": "a", "event_type": "x%d"}' % i,
        ][i // 3 % 4]
    event = {
        "timestamp": 1_700_000_000_000 + i * 1000,
        "user": f"user-{i}",
        "event_type": f"type-{i}" if i % 2 else "auth_attempt",
        "source_ip": f"10.{i % 250}.{i % 199}.{i % 61}",
        "status": "failed",
        "metadata": {"hostname": f"host-{i}", "geo_location": f"DE-{i}", "user_agent": f'"}}\n{i}'},
    }
    return msgspec.json.encode(event)


def test_sixteen_partitions_have_fewer_than_1500_series() -> None:
    try:
        for partition in range(16):
            for d in metrics.DECLARED:
                if d.labels == {"partition": ()}:
                    d.metric.labels(partition)
        assert len(series(metrics.WORKER)) < 1500
    finally:
        for partition in range(16):
            metrics.forget_partition(partition)
    kept = {labels for name, labels in series(metrics.WORKER) if dict(labels).get("partition") == "7"}
    assert len({name for name, labels in series(metrics.WORKER) if labels in kept}) == 4, "the four counters"


def test_profiles_are_counted_by_the_place_where_they_were_found() -> None:
    saved: dict[bytes, bytes] = {}

    def state() -> PartitionState:
        return PartitionState(
            0, lambda keys: [saved.get(key) for key in keys], resident=20, detection=Detection()
        )

    first = state()
    first.fold([hostile(0), hostile(1), hostile(0)], np.arange(3))
    assert first.profile_lookups == {"memory": 1, "disk": 0, "nowhere": 2}
    saved.update(first.changes())
    again = state()
    again.fold([hostile(0), hostile(3)], np.arange(3, 5))
    again.fold([hostile(0)], np.arange(5, 6))
    assert again.profile_lookups == {"memory": 1, "disk": 1, "nowhere": 1}


def test_lag_is_the_age_of_the_oldest_waiting_record() -> None:
    clock = ManualClock(100.0)
    lag = PartitionLag(clock)
    assert lag.seconds() == 0
    lag.observed(5, 5)
    assert lag.seconds() == 0
    lag.observed(5, 9)
    clock.advance(2)
    lag.observed(5, 12)
    assert lag.seconds() == 2, "measured since it was first seen; later records do not reduce it"
    lag.fetched(9, 40_000)
    lag.fetched(12, 70_000)
    assert lag.seconds() == 62, "measured by its record time once that is known"
    lag.observed(12, 15)
    lag.processed(9)
    assert lag.seconds() == 32
    lag.processed(12)
    clock.advance(1)
    assert lag.seconds() == 1
    lag.observed(15, 15)
    assert lag.seconds() == 0
    lag.fetched(16, 500_000)
    assert lag.seconds() == 0, "the record comes from a clock that is ahead"


# Metrics of a retrain


@pytest.fixture
def fresh() -> Iterator[None]:
    """Restore the gauges after the test."""
    kept = [
        (d.metric, d.metric.collect())
        for d in metrics.DECLARED
        if d.registry is metrics.RETRAIN and d.kind == "gauge"
    ]
    yield
    for metric, collected in kept:
        for sample in [sample for family in collected for sample in family.samples]:
            (metric.labels(**sample.labels) if sample.labels else metric).set(sample.value)  # type: ignore[attr-defined]


def outcome(directory: Path, **changes: Any) -> RetrainOutcome:
    values: dict[str, Any] = {
        "run_id": "r", "directory": str(directory), "records": 90, "events": 80, "refused": 10, "alerted": 3,
        "users": 7, "users_at_risk": 2, "version": None, "current": True, "previous": None, "message": "",
        "seconds": {"plan": 1.5, "publish": 0.5}, "refusals": {}, "repaired": 0, "repairs": {},
        "understood": Understood(),
    }  # fmt: skip
    return RetrainOutcome(**(values | changes))


def value(name: str, **labels: str) -> float:
    found = metrics.RETRAIN.get_sample_value(f"streamguard_retrain_{name}", labels)
    assert found is not None, name
    return found


def test_successful_and_failed_runs_are_counted(tmp_path: Path, fresh: None) -> None:
    file = tmp_path / "streamguard.prom"
    settings = Settings(batch=Batch(metrics_file=str(file), output=str(tmp_path / "runs")))
    exported = batch_metrics.RetrainMetrics(settings, 3600.0, print)
    assert exported.port is None
    before = value("runs_total", result="current"), value("runs_total", result="failed")
    with exported.run() as finish:
        assert value("running") == 1 and "streamguard_retrain_running 1.0" in file.read_text()
        finish(outcome(tmp_path))
    assert (value("running"), value("success"), value("interval_seconds")) == (0, 1, 3600)
    assert (value("records"), value("events"), value("refused_records"), value("alerted_events")) == (
        90,
        80,
        10,
        3,
    )
    assert value("step_duration_seconds", step="plan") == 1.5
    good = value("last_success_timestamp_seconds")
    assert good == value("last_end_timestamp_seconds") >= value("last_start_timestamp_seconds")
    with pytest.raises(RuntimeError), exported.run():
        raise RuntimeError
    assert (value("success"), value("records"), value("last_success_timestamp_seconds")) == (0, 90, good)
    assert value("last_end_timestamp_seconds") >= good
    assert value("runs_total", result="current") == before[0] + 1
    assert value("runs_total", result="failed") == before[1] + 1
    written = {s.name: s.value for family in families(file.read_bytes()) for s in family.samples}
    assert written["streamguard_retrain_last_success_timestamp_seconds"] == good
    assert not any(name.startswith(("process_", "python_")) for name in written), (
        "the node exporter has its own"
    )
    assert list(tmp_path.glob("*.prom*")) == [file]


@pytest.mark.parametrize(("continues", "drift"), [("20260101T000000000000Z-0123", 0.3), (None, math.nan)])
def test_drift_of_another_source_and_of_growing_features_is_not_exported(
    continues: str | None, drift: float, tmp_path: Path, fresh: None
) -> None:
    from tests.unit.test_batch_report import made

    report = made(fold_result(), drift={"active_days": 9.0, "hour_bits": 0.3, "source_bits": 0.1})
    body = msgspec.structs.replace(report, continues=continues)
    (tmp_path / REPORT).write_bytes(batch_report.encode(body))
    exported = batch_metrics.RetrainMetrics(Settings(batch=Batch(output=str(tmp_path / "runs"))), 0.0, print)
    with exported.run() as finish:
        finish(outcome(tmp_path))
    assert value("drift_psi") == pytest.approx(drift, nan_ok=True)


def test_values_of_another_process_are_kept(tmp_path: Path, fresh: None) -> None:
    file = tmp_path / "streamguard.prom"
    file.write_text(
        "# TYPE streamguard_retrain_runs_total counter\n"
        'streamguard_retrain_runs_total{result="failed"} 41.0\n'
        'streamguard_retrain_runs_total{of="another time"} 1.0\n'
        "streamguard_retrain_last_success_timestamp_seconds 1234.5\nnot ours 1\n"
    )
    before = value("runs_total", result="failed")
    settings = Settings(batch=Batch(metrics_file=str(file)))
    file.write_text(file.read_text().replace("not ours 1\n", ""))
    exported = batch_metrics.RetrainMetrics(settings, 0.0, print)
    assert value("runs_total", result="failed") == before + 41
    assert value("last_success_timestamp_seconds") == 1234.5
    with pytest.raises(RuntimeError), exported.run():
        raise RuntimeError
    assert "streamguard_retrain_last_success_timestamp_seconds 1234.5" in file.read_text()


def test_killed_run_counts_as_failed(tmp_path: Path, fresh: None) -> None:
    file = tmp_path / "streamguard.prom"
    settings = Settings(batch=Batch(metrics_file=str(file), expected_seconds=1800.0))
    batch_metrics.RetrainMetrics(settings, 0.0, print)
    assert value("interval_seconds") == 1800
    since = value("since_timestamp_seconds")
    before = value("runs_total", result="failed")
    at_work = file.read_text().replace("retrain_running 0.0", "retrain_running 1.0")
    file.write_text(at_work.replace("retrain_success NaN", "retrain_success 1.0"))
    batch_metrics.RetrainMetrics(settings, 0.0, print)
    assert (value("success"), value("running"), value("since_timestamp_seconds")) == (0, 0, since)
    # The counter of this process still exists, and the value of the file is added to it.
    assert value("runs_total", result="failed") == 2 * before + 1


def test_running_run_does_not_count_as_failed(tmp_path: Path, fresh: None) -> None:
    file, output = tmp_path / "streamguard.prom", tmp_path / "runs"
    settings = Settings(batch=Batch(metrics_file=str(file), output=str(output)))
    at_work = batch_metrics.RetrainMetrics(settings, 0.0, print)
    with Runs(output).begin(), at_work.run() as finish:
        failed = value("runs_total", result="failed")
        other = batch_metrics.RetrainMetrics(settings, 0.0, print)
        assert value("runs_total", result="failed") == 2 * failed, (
            "the value of the file is added in this process"
        )
        assert "streamguard_retrain_running 1.0" in file.read_text()
        with pytest.raises(BusyError), other.run():
            Runs(output).begin()
        assert value("runs_total", result="failed") == 2 * failed
        finish(outcome(tmp_path))
    assert "streamguard_retrain_running 0.0" in file.read_text() and value("success") == 1


def test_damaged_file_is_replaced_and_unwritable_file_is_reported(tmp_path: Path, fresh: None) -> None:
    file = tmp_path / "streamguard.prom"
    file.write_bytes(b"\xff{{{")
    batch_metrics.RetrainMetrics(Settings(batch=Batch(metrics_file=str(file))), 0.0, print)
    assert "streamguard_retrain_running 0.0" in file.read_text()
    with pytest.raises(SettingsError, match=r"batch\.metrics_file: cannot write .*No such file"):
        batch_metrics.RetrainMetrics(
            Settings(batch=Batch(metrics_file=str(tmp_path / "no" / "such.prom"))), 0.0, print
        )
    lines: list[str] = []
    gone = tmp_path / "gone"
    gone.mkdir()
    exported = batch_metrics.RetrainMetrics(
        Settings(batch=Batch(metrics_file=str(gone / "a.prom"))), 0.0, lines.append
    )
    (gone / "a.prom").unlink()
    gone.rmdir()
    with exported.run() as finish:
        finish(outcome(tmp_path))
    assert lines and all("cannot write the metrics to" in line for line in lines)


def test_series_serves_its_metrics_and_process_metrics(fresh: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=rf"batch\.metrics_port: cannot serve metrics on 127.0.0.1:{port}"
        ):
            batch_metrics.RetrainMetrics(Settings(batch=Batch(metrics_port=port)), 60.0, print)
        assert batch_metrics.RetrainMetrics(Settings(batch=Batch(metrics_port=port)), 0.0, print).port is None
    assert batch_metrics.RetrainMetrics(Settings(batch=Batch(metrics_port=port)), 60.0, print).port == port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert "streamguard_retrain_interval_seconds 60.0" in text
    assert "process_resident_memory_bytes" in text and "streamguard_events_total" not in text


def main() -> None:
    """Write the present tables into the document."""
    introduction, _, _ = DOC.read_text().partition("## The worker")
    DOC.write_text(introduction + metrics.as_markdown())


if __name__ == "__main__":
    main()
