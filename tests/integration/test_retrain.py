"""`streamguard retrain` from the command line: Kafka and files in, a run, a model and its report out."""

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


class Place:
    """A topic and an output directory, and retrains over them."""

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
        """A retrain in a process, and a process group, of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "streamguard.cli", "retrain", *self._arguments(arguments)],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object, code: int = 0) -> Result:
        """A retrain in this process."""
        return run(self._arguments(arguments), self.environ, code)

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
        """What the latest run carries on, by partition."""
        latest = Runs(self.output).latest()
        assert latest is not None
        files = sorted((latest / "history").glob("partition-*.parquet"))
        tables = [
            pq.read_table(file, filters=[("kind", "in", ["sample", "user", "state"])]) for file in files
        ]
        return [table.drop_columns("peak").combine_chunks() for table in tables]


def run(arguments: list[str], environ: dict[str, str], code: int) -> Result:
    """Run a command in this process; what nobody expected to be raised is raised."""
    ran = CliRunner().invoke(main, ["retrain", *arguments], env=environ)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == code, (ran.exit_code, ran.stdout, ran.stderr)
    return ran


@pytest.fixture
def place(kafka: str, topics: Callable[..., str], tmp_path: Path) -> Place:
    return Place(kafka, topics("events", partitions=PARTITIONS), topics("models"), tmp_path)


def attack(start: int) -> list[bytes]:
    return [
        event(start + 1000 * k, "user3", source_ip="203.0.113.9", status="failed" if k < 59 else "success")
        for k in range(60)
    ]


def test_from_a_topic_to_a_run_and_a_model(place: Place) -> None:
    late = START + 3000 * 20_000
    place.produce([*habit(3000), b"?", None, *attack(late)])
    outcome = place.retrain()
    report = place.report()

    assert (outcome["records"], outcome["events"], outcome["refused"]) == (3062, 3060, 2)
    assert outcome["current"] and outcome["previous"] is None
    registry = Registry(place.output / "registry", feature_names=NAMES)
    assert registry.current() == outcome["version"] == report["model"]["version"]
    worst = report["incidents"][0]
    assert worst["entity"] == {"kind": "user", "value": "user3"}
    assert worst["reasons"] and worst["event"]["source_ip"] == "203.0.113.9"
    assert next(u["user"] for u in report["users"] if u["is_anomaly"]) == "user3"
    assert sum(r["records"] for r in report["ranges"]) == 3062
    run = Path(outcome["directory"])
    assert {path.name for path in run.iterdir()} == {
        "anomaly_report.json", "report.html", "training_data", "features", "history"
    }  # fmt: skip


def test_three_runs_equal_one_pass_to_the_bit(place: Place, tmp_path: Path) -> None:
    values = [*habit(2000), *attack(START + 2000 * 20_000)]
    for a, b in ((0, 700), (700, 701), (701, len(values))):
        place.produce(values[a:b])
        outcome = place.retrain()
    report, history = place.report(), place.history()
    place.output = tmp_path / "whole"
    whole = place.retrain()

    assert history == place.history()
    assert report["continues"] is not None
    assert whole["version"] == outcome["version"]
    manifests = [
        (tmp_path / name / "registry/versions" / whole["version"] / "forest.safetensors").read_bytes()
        for name in ("runs", "whole")
    ]
    assert manifests[0] == manifests[1]


def test_at_most_so_many_events_and_the_rest_the_next_time(place: Place) -> None:
    place.produce(list(habit(900)))

    assert place.retrain("--max-events", 600)["records"] == 600
    assert place.retrain()["records"] == 300
    assert place.retrain()["records"] == 0


def test_two_retrains_of_one_range_make_the_same_artifact(place: Place, tmp_path: Path) -> None:
    place.produce(list(habit(1500)))
    versions = [place.retrain("--registry", tmp_path / name, "--fresh")["version"] for name in ("a", "b")]
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "versions" / version).iterdir()}
        for name, version in zip(("a", "b"), versions, strict=True)
    ]

    assert files[0] == files[1]


def test_too_little_to_learn_from(place: Place) -> None:
    empty = place.retrain(code=3)
    assert (empty["events"], empty["version"], empty["users"]) == (0, None, 0)
    assert empty["says"] == "no model: 0 quiet events to train on, 256 are needed"
    place.produce([event(START, "ann")])
    one = place.retrain(code=3)
    assert (one["events"], one["users"]) == (1, 1)
    place.produce([event(START + 60_000 * k, "ann", source_ip="10.0.0.1") for k in range(600)])
    assert place.retrain()["users"] == 1


def test_the_gate_keeps_a_model_out_and_says_why(place: Place) -> None:
    place.produce([*habit(800), *attack(START), *attack(START + 100_000), *attack(START + 200_000)])
    refused = place.retrain("--config", _config(place, "[gate]\nmost_trimmed = 0.0\n"), code=3)

    assert not refused["current"]
    assert "(limit 0.0%)" in refused["says"]
    assert Registry(place.output / "registry", feature_names=NAMES).current() is None
    assert [check["passed"] for check in place.report()["model"]["checks"] if check["name"] == "trimmed"] == [
        False
    ]


def test_files_stand_for_a_topic(place: Place, tmp_path: Path) -> None:
    values = [*habit(1200), *attack(START + 1200 * 20_000)]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(values))
    place.produce(list(values))

    by_file = place.retrain("--input", tmp_path / "events.jsonl")
    file_history = place.history()
    by_topic = place.retrain("--fresh")

    assert by_file["version"] == by_topic["version"]
    assert file_history == place.history()


def test_a_file_without_rows_makes_no_run(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    said = place.run("--input", tmp_path / "empty.jsonl", code=65).stderr
    assert "nothing to read: there are no rows in" in said
    assert not Runs(place.output).published()


def test_times_and_offsets_cut_the_range(place: Place, tmp_path: Path) -> None:
    values = list(habit(600))
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(values))
    middle = "2025-01-06T01:40:00Z"  # 300 events of 20 s each after the first

    early = place.retrain("--input", tmp_path / "events.jsonl", "--until", middle)["records"]
    late = place.retrain("--input", tmp_path / "events.jsonl", "--since", middle)["records"]
    assert (early, late) == (300, 300)
    place.produce(values)
    assert place.retrain("--since", "0:10", "--until", "0:30,1:0,2:0", code=3)["records"] == 20


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "says"),
    [
        (["--since", "yesterday"], {}, 2, "'yesterday' is neither a time such as"),
        (["--every", "1 hour"], {}, 2, "is not a duration such as"),
        (["--every", "0h"], {}, 2, "0h is not from 1s to 30d"),
        (["--every", "31d"], {}, 2, "31d is not from 1s to 30d"),
        (["--master", "local[2]"], {}, 2, "--master is Spark's"),
        (["--output", ""], {}, 2, "a directory has a name"),
        (["--output", "/dev/null/runs"], {}, 73, "cannot write runs to /dev/null/runs: Not a directory"),
        (["--engine", "spark", "--master", "bogus[2]"], {}, 78, "'bogus[2]' is not a Spark master"),
        (["--input", "nowhere.jsonl"], {}, 65, "cannot read nowhere.jsonl"),
        (["--since", "2099-01-01"], {}, 65, "nothing to read"),
        (["--since", "9:0"], {}, 65, "partition 9: not there; there are 0, 1, 2"),
        ([], {"STREAMGUARD_KAFKA_EVENTS_TOPIC": "not-there"}, 69, "has no topic not-there"),
        ([], {"STREAMGUARD_GATE_MOST_TRIMMED": "2"}, 78, "STREAMGUARD_GATE_MOST_TRIMMED"),
        ([], {"STREAMGUARD_BATCH_COLOUR": "red"}, 78, "STREAMGUARD_BATCH_COLOUR"),
        ([], {"STREAMGUARD_BATCH_OUTPUT": ""}, 78, "$.batch.output"),
    ],
)
def test_one_sentence_and_a_code(
    place: Place, arguments: list[str], environ: dict[str, str], code: int, says: str
) -> None:
    place.environ |= environ
    ran = place.run(*arguments, code=code)

    assert says in ran.stderr


def test_a_process_ends_with_the_code(place: Place) -> None:
    said, error = (process := place.process("--input", "nowhere.jsonl")).communicate(timeout=60)

    assert (process.returncode, said) == (65, "")
    assert error == "Error: cannot read nowhere.jsonl: No such file or directory\n"


def test_two_at_once_are_refused(place: Place) -> None:
    with Runs(place.output).begin():
        assert "another run is writing" in place.run(code=75).stderr


def test_a_broken_link_to_the_latest_run_is_not_somebody_at_work(place: Place) -> None:
    place.output.mkdir()
    (place.output / "latest").symlink_to("nowhere")
    assert "which is not a run: point it to one of the runs, or remove it" in place.run(code=73).stderr


def test_again_and_again_until_stopped(place: Place) -> None:
    place.environ["STREAMGUARD_BATCH_JITTER_SECONDS"] = "0"
    place.produce(list(habit(400)))
    runs = Runs(place.output)
    series = place.process("--every", "1s")
    try:
        eventually("two runs", lambda: len(runs.published()) >= 2)
    finally:
        series.send_signal(signal.SIGTERM)
        error = series.communicate(timeout=60)[1]

    assert series.returncode == 0, error
    assert "run ended with code 0; the next one starts at 20" in error
    assert not list(place.output.glob(".*.partial"))


def test_ctrl_c_lets_the_run_and_its_processes_end(place: Place) -> None:
    place.produce(list(habit(51_000, step=3000)))
    series = place.process("--every", "1h")
    assert series.stdout is not None
    try:
        assert "51,000 offsets of 3 partitions" in next(line for line in series.stdout if "[1/5]" in line)
    finally:
        os.killpg(series.pid, signal.SIGINT)  # as a terminal does: to the pool's processes, too
        error = series.communicate(timeout=120)[1]

    assert series.returncode == 0, error
    assert error == "run ended with code 0; stopped\n"
    assert place.report()["totals"]["events"] == 51_000


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_a_single_run_that_is_ended_leaves_as_a_failed_one_does(
    place: Place, tmp_path: Path, engine: str
) -> None:
    figures = tmp_path / "retrain.prom"
    place.environ["STREAMGUARD_BATCH_METRICS_FILE"] = str(figures)
    place.produce(list(habit(51_000, step=3000)))
    single = place.process("--engine", engine)
    assert single.stdout is not None
    try:
        assert "51,000 offsets of 3 partitions" in next(line for line in single.stdout if "[1/5]" in line)
        assert "streamguard_retrain_running 1.0" in figures.read_text()
    finally:
        single.send_signal(signal.SIGTERM)
        error = single.communicate(timeout=120)[1]

    assert single.returncode == 128 + signal.SIGTERM, error
    left = figures.read_text()
    assert "streamguard_retrain_running 0.0" in left and "streamguard_retrain_success 0.0" in left
    assert 'streamguard_retrain_runs_total{result="failed"} 1.0' in left
    assert not Runs(place.output).published() and not list(place.output.glob(".*.partial"))


def test_other_runs_in_between_do_no_harm(place: Place, tmp_path: Path) -> None:
    values = list(habit(900))
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(values))
    config = _config(place, "[batch]\nkeep_runs = 1\n[detection]\nalert_risk = 80.0\n")
    place.produce(values[:500])
    first = place.retrain()
    for arguments in (("--input", tmp_path / "events.jsonl"), ("--since", "2099-01-01")):
        place.run(*arguments, code=0 if arguments[0] == "--input" else 65)
    (tmp_path / "events.csv").write_text("time,who\n1,ann\n")
    said = place.run("--input", tmp_path / "events.csv", code=65).stderr
    assert "events.csv: " in said and "only columns with the names of an event's fields" in said
    place.run("--input", tmp_path / "events.jsonl", "--config", config)
    place.produce(values[500:])

    second = place.retrain()
    assert second["records"] == 400
    assert place.report()["continues"] == first["run_id"]


def test_peer_groups_alone_are_no_failure(place: Place) -> None:
    place.produce(list(habit(400)))
    assert place.retrain("--algorithm", "kmeans")["says"] == "no forest was requested"


def test_a_damaged_history_is_named_with_what_to_do(place: Place) -> None:
    place.produce(list(habit(400)))
    file = Path(place.retrain()["directory"]) / "history/partition-0001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    said = place.run(code=65).stderr
    assert str(file) in said and "--fresh" in said
    assert place.retrain("--fresh")["records"] == 400


def test_large_records_are_read_a_few_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", 1_000_000)
    monkeypatch.setattr(sources, "_PORTION", 4)
    place.produce([event(START + k, "x", "k" * 200_000) for k in range(40)])
    topic = KafkaSource(
        Brokers(place.environ["STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS"]),
        place.environ["STREAMGUARD_KAFKA_EVENTS_TOPIC"],
    )
    (partition,) = (p for p, (_, end) in topic.bounds().items() if end)
    chunks = list(topic.records(OffsetRange(partition, 0, 40)))

    assert [offset for offsets, _ in chunks for offset in offsets.tolist()] == list(range(40))
    assert max(len(values) for _, values in chunks) <= 8


def _config(place: Place, text: str) -> Path:
    path = place.output.parent / "settings.toml"
    path.write_text(text)
    return path
