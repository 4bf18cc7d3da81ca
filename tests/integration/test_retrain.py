"""`streamguard retrain` on the command line: from Kafka or files to a run with a model and a report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from streamguard.batch.folding.fold_file import PEAKS
from streamguard.batch.runs import Runs
from streamguard.batch.source import sources
from streamguard.batch.source.offset_range import OffsetRange
from streamguard.batch.source.sources import KafkaSource
from streamguard.cli.main import main
from streamguard.fold.features import NAMES
from streamguard.history.partitioner import partition_of
from streamguard.kafka.connection import Brokers
from streamguard.models.registry import Registry
from tests.harness import eventually
from tests.streams import START, event, habit

pytestmark = pytest.mark.integration
PARTITIONS = 3


class RetrainEnvironment:
    """A topic, an output directory, and methods that produce events and run retrains."""

    def __init__(self, bootstrap: str, topic: str, models: str, directory: Path) -> None:
        self.output = directory / "runs"
        self.environ = {
            **os.environ,
            "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "STREAMGUARD_KAFKA_EVENTS_TOPIC": topic,
            "STREAMGUARD_KAFKA_MODELS_TOPIC": models,
            "STREAMGUARD_KAFKA_PARTITIONS": str(PARTITIONS),
        }
        self._bootstrap, self._topic = bootstrap, topic

    def produce(self, values: list[bytes | None]) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap})
        for value in values:
            user = msgspec.json.decode(value)["user"] if value and value.startswith(b'{"') else "x"
            producer.produce(self._topic, value, partition=partition_of(user.encode(), PARTITIONS))
        producer.flush()

    def process(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a retrain in a new process and a new process group."""
        return subprocess.Popen(
            [sys.executable, "-m", "streamguard.cli", "retrain", *self._arguments(arguments)],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object, code: int = 0) -> Result:
        """Run a retrain in this process."""
        return run(["retrain", *self._arguments(arguments)], self.environ, code)

    def _arguments(self, arguments: tuple[object, ...]) -> list[str]:
        return [str(part) for part in ("--engine", "local", "--output", self.output, *arguments)]

    def retrain(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        outcome: dict[str, Any] = json.loads(self.run("--json", *arguments, code=code).stdout)
        return outcome

    def report(self) -> dict[str, Any]:
        latest = Runs(self.output).latest()
        assert latest is not None
        report: dict[str, Any] = json.loads((latest / "anomaly_report.json").read_bytes())
        return report

    def history(self) -> list[Any]:
        """The history of the latest run that the next run continues, by partition."""
        latest = Runs(self.output).latest()
        assert latest is not None
        files = sorted((latest / "history").glob("partition-*.parquet"))
        tables = [
            pq.read_table(file, filters=[("kind", "in", ["sample", "user", "state"])]) for file in files
        ]
        return [table.drop_columns(list(PEAKS)).combine_chunks() for table in tables]


def run(arguments: list[str], environ: dict[str, str], code: int) -> Result:
    """Run a `streamguard` command in this process and assert its exit code; unexpected exceptions are raised."""
    ran = CliRunner().invoke(main, arguments, env=environ)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == code, (ran.exit_code, ran.stdout, ran.stderr)
    return ran


@pytest.fixture
def env(kafka: str, topics: Callable[..., str], tmp_path: Path) -> RetrainEnvironment:
    return RetrainEnvironment(kafka, topics("events", partitions=PARTITIONS), topics("models"), tmp_path)


def attack(start: int) -> list[bytes]:
    """59 failed logins of a user from a new address, then a successful one."""
    return [
        event(start + 1000 * k, "user3", source_ip="203.0.113.9", status="failed" if k < 59 else "success")
        for k in range(60)
    ]


def test_retrain_of_a_topic_publishes_a_run_and_promotes_a_model(env: RetrainEnvironment) -> None:
    late = START + 3000 * 20_000
    env.produce([*habit(3000), b"?", None, *attack(late)])
    outcome = env.retrain()
    report = env.report()

    assert (outcome["records"], outcome["events"], outcome["refused"]) == (3062, 3060, 2)
    assert outcome["current"] and outcome["previous"] is None
    registry = Registry(env.output / "registry", feature_names=NAMES)
    assert registry.current() == outcome["version"] == report["model"]["version"]
    worst = report["incidents"][0]
    assert worst["entity"] == {"kind": "user", "value": "user3"}
    assert worst["reasons"] and worst["event"]["source_ip"] == "203.0.113.9"
    assert next(u["user"] for u in report["users"] if u["at_risk"]) == "user3"
    assert sum(r["records"] for r in report["ranges"]) == 3062
    run = Path(outcome["directory"])
    assert {path.name for path in run.iterdir()} == {
        "anomaly_report.json", "report.html", "training_data", "features", "history"
    }  # fmt: skip


def test_three_consecutive_runs_equal_one_run_exactly(env: RetrainEnvironment, tmp_path: Path) -> None:
    values = [*habit(2000), *attack(START + 2000 * 20_000)]
    for a, b in ((0, 700), (700, 701), (701, len(values))):
        env.produce(values[a:b])
        outcome = env.retrain()
    report, history = env.report(), env.history()
    env.output = tmp_path / "whole"
    whole = env.retrain()

    assert history == env.history()
    assert report["continues"] is not None
    assert whole["version"] == outcome["version"]
    forests = [
        (tmp_path / name / "registry/versions" / whole["version"] / "forest.safetensors").read_bytes()
        for name in ("runs", "whole")
    ]
    assert forests[0] == forests[1]


def test_max_events_limits_a_run_and_the_next_run_reads_the_rest(env: RetrainEnvironment) -> None:
    env.produce(list(habit(900)))

    assert env.retrain("--max-events", 600)["records"] == 600
    assert env.retrain()["records"] == 300
    assert env.retrain()["records"] == 0


def test_two_retrains_of_the_same_range_write_the_same_artifact(
    env: RetrainEnvironment, tmp_path: Path
) -> None:
    env.produce(list(habit(1500)))
    versions = [env.retrain("--registry", tmp_path / name, "--fresh")["version"] for name in ("a", "b")]
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "versions" / version).iterdir()}
        for name, version in zip(("a", "b"), versions, strict=True)
    ]

    assert files[0] == files[1]


def test_too_few_events_publish_a_run_without_a_model(env: RetrainEnvironment) -> None:
    empty = env.retrain(code=3)
    assert (empty["events"], empty["version"], empty["users"]) == (0, None, 0)
    assert empty["message"] == "no model: 0 quiet events to train on (minimum 256)"
    env.produce([event(START, "ann")])
    one = env.retrain(code=3)
    assert (one["events"], one["users"]) == (1, 1)
    env.produce([event(START + 60_000 * k, "ann", source_ip="10.0.0.1") for k in range(600)])
    assert env.retrain()["users"] == 1


def test_gate_rejects_a_model_and_reports_the_failed_check(env: RetrainEnvironment) -> None:
    env.produce([*habit(800), *attack(START), *attack(START + 100_000), *attack(START + 200_000)])
    refused = env.retrain("--config", _config(env, "[gate]\nmax_trimmed = 0.0\n"), code=3)

    assert not refused["current"]
    assert "(limit 0.0%)" in refused["message"]
    assert Registry(env.output / "registry", feature_names=NAMES).current() is None
    assert [check["passed"] for check in env.report()["model"]["checks"] if check["name"] == "trimmed"] == [
        False
    ]


def test_file_and_topic_with_the_same_events_train_the_same_model(
    env: RetrainEnvironment, tmp_path: Path
) -> None:
    values = [*habit(1200), *attack(START + 1200 * 20_000)]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(values))
    env.produce(list(values))

    by_file = env.retrain("--input", tmp_path / "events.jsonl")
    file_history = env.history()
    by_topic = env.retrain("--fresh")

    assert by_file["version"] == by_topic["version"]
    assert file_history == env.history()


def test_file_without_rows_is_an_error_and_publishes_no_run(env: RetrainEnvironment, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    empty = tmp_path / "empty.jsonl"
    assert f"nothing to read: {empty} has no rows" in env.run("--input", empty, code=65).stderr
    assert not Runs(env.output).published()


def test_since_and_until_limit_the_range_by_time_and_by_offset(
    env: RetrainEnvironment, tmp_path: Path
) -> None:
    values = list(habit(600))
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(values))
    middle = "2025-01-06T01:40:00Z"  # 300 events of 20 s each after the first

    early = env.retrain("--input", tmp_path / "events.jsonl", "--until", middle)["records"]
    late = env.retrain("--input", tmp_path / "events.jsonl", "--since", middle)["records"]
    assert (early, late) == (300, 300)
    env.produce(values)
    assert env.retrain("--since", "0:10", "--until", "0:30,1:0,2:0", code=3)["records"] == 20


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "message"),
    [
        (["--since", "yesterday"], {}, 2, "'yesterday' is not a time: write"),
        (["--every", "1 hour"], {}, 2, "is not a duration: write"),
        (["--every", "0h"], {}, 2, "0h is out of range: at least 1s and at most 30d"),
        (["--every", "31d"], {}, 2, "31d is out of range: at least 1s and at most 30d"),
        (["--master", "local[2]"], {}, 2, "--master needs the engine spark"),
        (["--output", ""], {}, 2, "the path of the directory must not be empty"),
        (["--output", "/dev/null/runs"], {}, 73, "cannot write runs to /dev/null/runs: Not a directory"),
        (["--engine", "spark", "--master", "bogus[2]"], {}, 78, "'bogus[2]' is not a Spark master"),
        (["--input", "nowhere.jsonl"], {}, 65, "cannot read nowhere.jsonl"),
        (["--since", "2099-01-01"], {}, 65, "nothing to read"),
        (["--since", "9:0"], {}, 65, "partition 9 does not exist; the partitions are 0, 1, 2"),
        ([], {"STREAMGUARD_KAFKA_EVENTS_TOPIC": "not-there"}, 78, "has no topic not-there"),
        ([], {"STREAMGUARD_GATE_MOST_TRIMMED": "2"}, 78, "STREAMGUARD_GATE_MOST_TRIMMED"),
        ([], {"STREAMGUARD_BATCH_COLOUR": "red"}, 78, "STREAMGUARD_BATCH_COLOUR"),
        ([], {"STREAMGUARD_BATCH_OUTPUT": ""}, 78, "$.batch.output"),
    ],
)
def test_wrong_option_or_setting_ends_with_a_message_and_an_exit_code(
    env: RetrainEnvironment, arguments: list[str], environ: dict[str, str], code: int, message: str
) -> None:
    env.environ |= environ
    ran = env.run(*arguments, code=code)

    assert message in ran.stderr


def test_process_exits_with_the_code_of_the_error(env: RetrainEnvironment) -> None:
    output, error = (process := env.process("--input", "nowhere.jsonl")).communicate(timeout=60)

    assert (process.returncode, output) == (65, "")
    assert error == "Error: cannot read nowhere.jsonl: No such file or directory\n"


def test_second_run_on_the_same_output_directory_exits_with_75(env: RetrainEnvironment) -> None:
    with Runs(env.output).begin():
        assert "another run is writing" in env.run(code=75).stderr


def test_broken_link_to_the_latest_run_is_replaced(env: RetrainEnvironment) -> None:
    env.produce(list(habit(400)))
    env.output.mkdir()
    (env.output / "latest").symlink_to("nowhere")
    env.run("--algorithm", "kmeans")
    (run,) = Runs(env.output).published()
    assert (env.output / "latest").resolve().name == run


def test_every_repeats_runs_until_sigterm(env: RetrainEnvironment) -> None:
    env.environ["STREAMGUARD_BATCH_JITTER_SECONDS"] = "0"
    env.produce(list(habit(400)))
    runs = Runs(env.output)
    series = env.process("--every", "1s")
    try:
        eventually("two runs", lambda: len(runs.published()) >= 2)
    finally:
        series.send_signal(signal.SIGTERM)
        error = series.communicate(timeout=60)[1]

    assert series.returncode == 0, error
    assert "run ended with code 0; the next one starts at 20" in error
    assert not list(env.output.glob(".*.partial"))


def test_ctrl_c_ends_the_series_after_the_current_run(env: RetrainEnvironment) -> None:
    env.produce(list(habit(51_000, step=3000)))
    series = env.process("--every", "1h")
    assert series.stdout is not None
    try:
        assert "51,000 offsets of 3 partitions" in next(line for line in series.stdout if "[1/5]" in line)
    finally:
        os.killpg(
            series.pid, signal.SIGINT
        )  # as a terminal does, which also signals the processes of the pool
        error = series.communicate(timeout=120)[1]

    assert series.returncode == 0, error
    assert error == "run ended with code 0; stopped\n"
    assert env.report()["totals"]["events"] == 51_000


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_single_run_ended_by_sigterm_exports_a_failure_and_publishes_nothing(
    env: RetrainEnvironment, tmp_path: Path, engine: str
) -> None:
    figures = tmp_path / "retrain.prom"
    env.environ["STREAMGUARD_BATCH_METRICS_FILE"] = str(figures)
    env.produce(list(habit(51_000, step=3000)))
    single = env.process("--engine", engine)
    assert single.stdout is not None
    try:
        assert "51,000 offsets of 3 partitions" in next(line for line in single.stdout if "[1/5]" in line)
        assert "streamguard_retrain_running 1.0" in figures.read_text()
    finally:
        single.send_signal(signal.SIGTERM)
        error = single.communicate(timeout=120)[1]

    assert single.returncode == 128 + signal.SIGTERM, error
    exported = figures.read_text()
    assert "streamguard_retrain_running 0.0" in exported and "streamguard_retrain_success 0.0" in exported
    assert 'streamguard_retrain_runs_total{result="failed"} 1.0' in exported
    assert not Runs(env.output).published() and not list(env.output.glob(".*.partial"))


def test_retrain_continues_the_topic_after_runs_over_other_input(
    env: RetrainEnvironment, tmp_path: Path
) -> None:
    values = list(habit(900))
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(values))
    config = _config(env, "[batch]\nkeep_runs = 1\n[detection]\nalert_risk = 76.0\n")
    env.produce(values[:500])
    first = env.retrain()
    for arguments in (("--input", tmp_path / "events.jsonl"), ("--since", "2099-01-01")):
        env.run(*arguments, code=0 if arguments[0] == "--input" else 65)
    (tmp_path / "events.csv").write_text("time,who\n1,ann\n")
    error = env.run("--input", tmp_path / "events.csv", code=65).stderr
    assert "events.csv: no column maps to timestamp: name a column so" in error
    env.run("--input", tmp_path / "events.jsonl", "--config", config)
    env.produce(values[500:])

    second = env.retrain()
    assert second["records"] == 400
    assert env.report()["continues"] == first["run_id"]


def test_retrain_with_peer_groups_only_succeeds_without_a_forest(env: RetrainEnvironment) -> None:
    env.produce(list(habit(400)))
    assert env.retrain("--algorithm", "kmeans")["message"] == "no forest was requested"


def test_damaged_history_is_an_error_with_the_file_and_a_remedy(env: RetrainEnvironment) -> None:
    env.produce(list(habit(400)))
    file = Path(env.retrain()["directory"]) / "history/partition-0001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    error = env.run(code=65).stderr
    assert str(file) in error and "--fresh" in error
    assert env.retrain("--fresh")["records"] == 400


def test_large_records_are_read_in_small_chunks(
    env: RetrainEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", 1_000_000)
    env.produce([event(START + k, "x", "k" * 200_000) for k in range(40)])
    topic = KafkaSource(
        Brokers(env.environ["STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS"]),
        env.environ["STREAMGUARD_KAFKA_EVENTS_TOPIC"],
    )
    (partition,) = (p for p, (_, end) in topic.bounds().items() if end)
    chunks = list(topic.records(OffsetRange(partition, 0, 40)))

    assert [offset for chunk in chunks for offset in chunk.offsets.tolist()] == list(range(40))
    assert max(len(chunk.values) for chunk in chunks) <= 8


def _config(env: RetrainEnvironment, text: str) -> Path:
    path = env.output.parent / "settings.toml"
    path.write_text(text)
    return path
