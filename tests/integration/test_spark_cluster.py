"""`spark-submit batch/retrain.py` on a standalone Spark cluster has exactly the result of a run on one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from streamguard import batch
from streamguard.batch.engines.jvm import QUICK, Jvm
from streamguard.batch.job import RetrainOutcome, retrain
from streamguard.batch.planning import Request
from streamguard.settings.schema import Batch
from streamguard.testing.broker import free_port
from tests.harness import Site, events, eventually

pytestmark = pytest.mark.integration

LOOPBACK = "127.0.0.1"


def environment() -> dict[str, str]:
    return {**os.environ, **Jvm().environment, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": LOOPBACK}


def spark_program(name: str) -> str:
    return str(Jvm().spark / "bin" / name)


def submit(
    directory: Path, master: str, *arguments: str, jars: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `spark-submit batch/retrain.py` in another directory; all output of Python is on standard output."""
    flags = " ".join(QUICK)
    options = {
        "spark.executor.memory": "512m",
        "spark.ui.enabled": "false",
        "spark.executor.extraJavaOptions": flags,
    }
    command = [spark_program("spark-submit"), "--master", master, "--driver-memory", "512m"]
    command += ["--driver-java-options", flags]
    if jars:
        command += ["--jars", ",".join(Jvm().connector_jars)]
    for name, value in options.items():
        command += ["--conf", f"{name}={value}"]
    return subprocess.run(
        [*command, str(Path(batch.__file__).with_name("retrain.py")), *arguments],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


class Cluster:
    """A standalone Spark master and one worker with two cores, on loopback, from the installed PySpark."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.environ = {
            **os.environ,
            **environment(),
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": " ".join(QUICK),
            "SPARK_WORKER_DIR": str(directory / "work"),
        }
        self.master = f"spark://{LOOPBACK}:{free_port()}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        host, port = self.master.removeprefix("spark://").split(":")
        self._run("master.Master", "--host", host, "--port", port, until="I have been elected leader")
        size = ("--cores", "2", "--memory", "1g")
        self._run("worker.Worker", "--host", host, *size, self.master, until="Successfully registered")

    def _run(self, daemon: str, *arguments: str, until: str) -> None:
        command = [spark_program("spark-class"), f"org.apache.spark.deploy.{daemon}"]
        log = self._directory / f"{daemon}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--webui-port", "0", *arguments],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._processes.append(process)

        def logged() -> bool:
            text = log.read_text(errors="replace")
            assert process.poll() is None, text
            return until in text

        eventually(f"{daemon} logs: {until}", logged)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(30)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_cluster_and_single_machine_have_the_same_result(
    kafka: str, tmp_path: Path, cluster: Cluster, spark: Any
) -> None:
    site = Site(kafka, tmp_path / "site", partitions=3)
    site.produce(events(3000, 3, users=60))
    settings = msgspec.structs.replace(site.settings, batch=Batch(output=str(tmp_path / "here")))
    ours = retrain(settings, Request(), lambda _: None)

    config = site.directory / "streamguard.toml"
    run = submit(tmp_path, cluster.master, "--config", str(config), "--output", "there", "--json")
    assert run.returncode in (0, 3), run.stdout + run.stderr[-4000:]
    theirs = msgspec.json.decode(run.stdout.splitlines()[-1], type=RetrainOutcome)

    assert theirs.version == ours.version is not None
    assert (theirs.events, theirs.refused, theirs.users) == (ours.events, ours.refused, ours.users)
    history = tmp_path / theirs.directory / "history"
    names = sorted(path.name for path in history.glob("*.parquet"))
    assert len(names) == 3
    for name in names:
        assert pq.read_table(history / name).equals(pq.read_table(Path(ours.directory) / "history" / name)), (
            name
        )
    assert json.loads((history / "history.json").read_text()) == json.loads(
        (Path(ours.directory) / "history" / "history.json").read_text()
    )


def test_missing_kafka_connector_is_an_error_with_the_option_to_add(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path / "site", partitions=1)
    site.produce(events(10, 1))
    config = site.directory / "streamguard.toml"
    run = submit(tmp_path, "local[1]", "--config", str(config), "--output", "there", jars=False)
    assert run.returncode == 69
    assert "`--packages org.apache.spark:spark-sql-kafka-0-10_2.13:" in run.stdout
    assert "Traceback" not in run.stdout
