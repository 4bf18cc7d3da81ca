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
from confluent_kafka import Producer

from batch.runs import Runs
from streamguard.features import NAMES
from streamguard.models.registry import Registry
from streamguard.partitioner import partition_of
from tests.harness import eventually
from tests.streams import START, event, habit

pytestmark = pytest.mark.integration
PARTITIONS = 3


class Place:
    """A topic and an output directory, and retrains over them in processes of their own."""

    def __init__(self, bootstrap: str, topic: str, directory: Path) -> None:
        self.output = directory / "runs"
        self.environ = {
            **os.environ,
            "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "STREAMGUARD_KAFKA_EVENTS_TOPIC": topic,
            "STREAMGUARD_KAFKA_PARTITIONS": str(PARTITIONS),
        }
        self._bootstrap, self._topic = bootstrap, topic

    def produce(self, values: list[bytes | None]) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap})
        for value in values:
            user = msgspec.json.decode(value)["user"] if value and value.startswith(b'{"') else "x"
            producer.produce(self._topic, value, partition=partition_of(user.encode(), PARTITIONS))
        producer.flush()

    def command(self, *arguments: object) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "streamguard.cli",
            "retrain",
            "--engine",
            "local",
            "--output",
            self.output,
        ]
        return [str(part) for part in (*command, *arguments)]

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            self.command(*arguments),
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == code, (ran.returncode, ran.stdout, ran.stderr)
        return ran

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


@pytest.fixture
def place(kafka: str, topics: Callable[..., str], tmp_path: Path) -> Place:
    return Place(kafka, topics("events", partitions=PARTITIONS), tmp_path)


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
    worst = report["anomalies"][0]
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
        (tmp_path / name / "registry/versions" / whole["version"] / "forest.npz").read_bytes()
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
    assert "at most 0.0% may be" in refused["says"]
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
        (["--every", "0h"], {}, 2, "is not a duration such as"),
        (["--input", "nowhere.jsonl"], {}, 65, "cannot read nowhere.jsonl"),
        (["--since", "9:0"], {}, 65, "partition 9: not there; there are 0, 1, 2"),
        ([], {"STREAMGUARD_KAFKA_EVENTS_TOPIC": "not-there"}, 69, "has no topic not-there"),
        ([], {"STREAMGUARD_GATE_MOST_TRIMMED": "2"}, 78, "STREAMGUARD_GATE_MOST_TRIMMED"),
        ([], {"STREAMGUARD_BATCH_COLOUR": "red"}, 78, "STREAMGUARD_BATCH_COLOUR"),
    ],
)
def test_one_sentence_and_a_code(
    place: Place, arguments: list[str], environ: dict[str, str], code: int, says: str
) -> None:
    place.environ |= environ
    ran = place.run(*arguments, code=code)

    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_two_at_once_are_refused(place: Place) -> None:
    with Runs(place.output).begin():
        assert "another run is writing" in place.run(code=75).stderr


def test_again_and_again_until_stopped(place: Place) -> None:
    place.environ["STREAMGUARD_BATCH_JITTER_SECONDS"] = "0"
    place.produce(list(habit(400)))
    runs = Runs(place.output)
    series = subprocess.Popen(
        place.command("--every", "1s"), env=place.environ, stderr=subprocess.PIPE, text=True
    )
    try:
        eventually("two runs", lambda: len(runs.published()) >= 2)
    finally:
        series.send_signal(signal.SIGTERM)
        error = series.communicate(timeout=60)[1]

    assert series.returncode == 0, error
    assert not list(place.output.glob(".*.partial"))


def _config(place: Place, text: str) -> Path:
    path = place.output.parent / "settings.toml"
    path.write_text(text)
    return path
