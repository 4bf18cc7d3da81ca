"""`streamguard archive` on a real topic: killed runs, expired records, both engines, and retrains from the archive."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from streamguard.batch.archive import archive
from streamguard.batch.job import RetrainOutcome, retrain
from streamguard.batch.planning import Request
from streamguard.batch.source.archive_source import ArchiveSource
from streamguard.batch.source.offset_plan import plan
from streamguard.batch.source.sources import KafkaSource
from streamguard.kafka.connection import Brokers
from streamguard.runs.archive_manifest import ArchiveManifest, read
from streamguard.settings.load import load
from streamguard.settings.schema import Batch, Settings
from tests.harness import Site, events, eventually
from tests.integration.test_retrain import PARTITIONS, RetrainEnvironment, attack, run
from tests.streams import START, event, habit

pytestmark = pytest.mark.integration


@pytest.fixture
def env(kafka: str, topics: Callable[..., str], tmp_path: Path) -> RetrainEnvironment:
    return RetrainEnvironment(kafka, topics("events", partitions=PARTITIONS), "models", tmp_path)


def command(directory: Path, *arguments: object) -> list[str]:
    command = [sys.executable, "-m", "streamguard.cli", "archive", "--engine", "local", "--output", directory]
    return [str(part) for part in (*command, "--json", *arguments)]


def archived(env: RetrainEnvironment, directory: Path, *arguments: object, code: int = 0) -> Any:
    """Run the command; return its JSON, or the last line of standard error if the exit code is not 0."""
    ran = run(command(directory, *arguments)[3:], env.environ, code)
    return ran.stderr.splitlines()[-1] if code else msgspec.json.decode(ran.stdout)


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def alive(process: int) -> bool:
    """Whether a process runs; a zombie process does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def manifest(directory: Path) -> ArchiveManifest:
    """The manifest of an archive, which must exist."""
    found = read(directory)
    assert found is not None
    return found


def rows(directory: Path) -> list[pa.Table]:
    """The rows of an archive, by partition."""
    files = manifest(directory).files
    return [
        pa.concat_tables(
            pq.read_table(directory / f.path, partitioning=None) for f in files if f.partition == p
        )
        for p in sorted({f.partition for f in files})
    ]


def test_topic_archive_and_a_mix_of_both_train_the_same_model(
    env: RetrainEnvironment, tmp_path: Path
) -> None:
    kept = tmp_path / "archive"
    values = [
        *habit(2000),
        b"?",
        None,
        event(START, "user1", auth_details={}),
        *attack(START + 2000 * 20_000),
    ]

    def trained(name: str, **request: str) -> RetrainOutcome:
        env.output = tmp_path / name
        environ = {
            **env.environ,
            "STREAMGUARD_BATCH_ENGINE": "local",
            "STREAMGUARD_BATCH_OUTPUT": str(env.output),
        }
        return retrain(load(environ=environ), Request(**request), lambda text: None)

    env.produce(values[:1200])
    assert archived(env, kept)["records"] == 1200
    trained("both", input=str(kept))
    env.produce(values[1200:1700])
    assert trained("both").records == 500
    env.produce(values[1700:])
    assert archived(env, kept)["records"] == len(values) - 1200
    both = trained("both", input=str(kept))
    history = env.history()
    assert both.records == len(values) - 1700
    for name, request in (("topic", {}), ("archive", {"input": str(kept)})):
        outcome = trained(name, **request)
        assert (outcome.version, outcome.records) == (both.version, len(values))
        assert env.history() == history
    assert archived(env, kept)["records"] == 0


def present(directory: Path, pattern: str) -> list[Path]:
    """The files of a directory in which a process creates and renames directories meanwhile."""
    try:
        return list(directory.glob(pattern))
    except FileNotFoundError:
        return []


def test_killed_run_leaves_the_archive_unchanged(env: RetrainEnvironment, tmp_path: Path) -> None:
    kept, whole = tmp_path / "archive", tmp_path / "whole"
    env.produce(list(habit(60_000, step=3000)))
    archived(env, kept, "--max-events", 1000)
    before = manifest(kept)
    for pattern in (".partial/**/*.part", ".partial/**/*.json"):
        with subprocess.Popen(command(kept), env=env.environ, stdout=subprocess.PIPE) as process:
            eventually(f"{pattern} exists", lambda pattern=pattern: present(kept, pattern))
            started = children(process.pid)
            process.send_signal(signal.SIGKILL)
        assert started
        eventually("all child processes have exited", lambda started=started: not any(map(alive, started)))
        assert manifest(kept) == before
    assert archived(env, kept)["records"] == 59_000
    archived(env, whole)

    assert rows(kept) == rows(whole)
    named = {kept / file.path for file in manifest(kept).files}
    assert set(kept.rglob("*.parquet")) == named
    assert not (kept / ".partial").exists()


def test_records_that_expired_before_archiving_are_an_error(
    env: RetrainEnvironment, kafka: str, tmp_path: Path
) -> None:
    env.produce(list(habit(300)))
    archived(env, tmp_path / "a", "--max-events", 30)
    topic = env.environ["STREAMGUARD_KAFKA_EVENTS_TOPIC"]
    admin = AdminClient({"bootstrap.servers": kafka})
    for deleted in admin.delete_records([TopicPartition(topic, 1, 40)]).values():
        deleted.result()

    error = archived(env, tmp_path / "a", code=65)
    assert "partition 1: the archive ended at offset 10, but the topic begins at 40 now: 30 records" in error
    assert "--output with a new directory" in error
    assert archived(env, tmp_path / "b")["records"] == 260


def test_spark_and_local_engine_write_the_same_archive(kafka: str, spark: Any, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path / "site", partitions=3)
    made = [(partition % 2, value) for partition, value in events(5000, 2)]
    site.produce(made[:2000])
    site.produce([(0, None), (1, b"\xff\xfe"), (2, b"")])
    parts = [made[a : a + 100] for a in range(2000, 4000, 100)]
    site.produce_in_transactions([(k % 3 != 1, part) for k, part in enumerate(parts)])
    site.produce(made[4000:])
    outcomes = {}
    for name in ("spark", "local"):
        for max_records in (1500, None):
            settings = Settings(kafka=site.settings.kafka, batch=Batch(engine=name))
            outcomes[name] = archive(settings, tmp_path / name, lambda text: None, max_records=max_records)

    assert rows(tmp_path / "spark") == rows(tmp_path / "local")
    assert outcomes["spark"].ends == outcomes["local"].ends
    source = KafkaSource(Brokers(kafka), site.settings.kafka.events_topic)
    kept = ArchiveSource(str(tmp_path / "spark"), manifest(tmp_path / "spark"))
    assert kept.bounds() == source.bounds() and kept.identity() == source.identity()
    for offset_range in plan(kept, None):
        ours, theirs = (
            [
                np.concatenate(parts).tolist()
                for parts in zip(
                    *((c.offsets, c.append_ms) for c in origin.records(offset_range)), strict=True
                )
            ]
            for origin in (kept, source)
        )
        assert ours == theirs


def test_spark_and_local_engine_fold_an_archive_to_the_same_files(
    kafka: str, spark: Any, tmp_path: Path
) -> None:
    from streamguard.batch.engines import local
    from streamguard.batch.engines import spark as engine

    site = Site(kafka, tmp_path / "site", partitions=2)
    site.produce(events(3000, 2))
    settings = Settings(kafka=site.settings.kafka, batch=Batch(engine="local"))
    archive(settings, tmp_path / "archive", lambda text: None)
    kept = ArchiveSource(str(tmp_path / "archive"), manifest(tmp_path / "archive"))
    for name in ("spark", "local"):
        (tmp_path / name).mkdir()
    engine.fold(kept, plan(kept, None), settings, tmp_path / "spark", lambda offset_range: None, spark)
    local.fold(kept, plan(kept, None), settings, tmp_path / "local", lambda offset_range: None)

    for p in range(2):
        ours, theirs = (
            pq.read_table(tmp_path / n / f"partition-{p:04d}.parquet") for n in ("spark", "local")
        )
        assert ours.equals(theirs)
