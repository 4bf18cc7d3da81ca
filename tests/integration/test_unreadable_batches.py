"""Batches that cannot be read: worker, retrain and archive refuse the same offsets, and have the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from streamguard.batch.archive import archive
from streamguard.batch.engines import local, readable
from streamguard.batch.engines import spark as spark_engine
from streamguard.batch.source.archive_source import ArchiveSource
from streamguard.batch.source.offset_plan import check_read, plan
from streamguard.batch.source.offset_range import Counts, OffsetRange, partition_file
from streamguard.batch.source.sources import KafkaSource, Source
from streamguard.errors import ExitCode
from streamguard.events.event import UNREADABLE
from streamguard.runs import archive_manifest
from streamguard.settings.schema import Batch
from streamguard.testing.broker import LocalKafka
from tests import wire
from tests.harness import Site, events
from tests.integration.test_dead_letters import accounted
from tests.integration.test_hash_key import without_identity
from tests.integration.test_retrain import run
from tests.integration.test_wire import refused

pytestmark = pytest.mark.integration
POISONED, HONEST = 0, 1
VALUES = [value for _, value in events(900, 1)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Partition 0 has unreadable batches first, last and in between; partition 1 unusual batches that can be read.

    One batch of partition 0 is damaged on the broker's disk. A worker has folded both partitions.
    """
    with LocalKafka() as broker:
        site = Site(broker.bootstrap_servers, tmp_path_factory.mktemp("site"), partitions=2)
        topic = site.names["events"]
        unreadable = 0
        with wire.RawProducer(broker.bootstrap_servers) as producer:
            for k, kind in enumerate(wire.POISON):
                made = wire.poison(kind, VALUES[2 * k : 2 * k + 2])
                partition = POISONED if refused(made) else HONEST
                error, _ = producer.send(topic, partition, made)
                unreadable += error == 0 and partition == POISONED
            for codec in (wire.GZIP, wire.LZ4, wire.ZSTD):
                producer.accepted(topic, POISONED, wire.bomb(codec, 80 << 20))
            damaged = wire.batch([wire.record(i, value) for i, value in enumerate(VALUES[40:43])])
            producer.accepted(topic, POISONED, damaged)
            (log,) = (broker.directory / "data" / f"{topic}-{POISONED}").glob("*.log")
            with log.open("r+b") as file:
                file.seek(log.stat().st_size - 1)
                file.write(b"?")
            site.produce((k % 2, value) for k, value in enumerate(VALUES[50:]))
            producer.accepted(topic, POISONED, wire.poison("xerial-twice"))
        assert unreadable > 5
        worker = site.start().await_ready()
        site.await_caught_up(workers=[worker])
        assert worker.terminate() == 0, worker.tail()
        yield site
        site.close()


def fold(
    source: Source, ranges: list[OffsetRange], site: Site, directory: Path, spark: Any = None
) -> dict[int, Counts]:
    directory.mkdir()
    if spark is None:
        local.fold(source, ranges, site.settings, directory, lambda _: None)
    else:
        spark_engine.fold(source, ranges, site.settings, directory, lambda _: None, spark)
    found = {}
    for offset_range in ranges:
        rows = pq.read_table(partition_file(directory, offset_range.partition), columns=["value"])
        found[offset_range.partition] = msgspec.json.decode(rows["value"][0].as_py(), type=Counts)
    check_read(source, found.values())
    return found


def states(directory: Path) -> dict[int, dict[bytes, bytes]]:
    found = {}
    for partition in (POISONED, HONEST):
        rows = pq.read_table(partition_file(directory, partition)).to_pylist()
        found[partition] = {row["key"]: row["value"] for row in rows if row["kind"] == "state"}
    return found


def by_worker(site: Site) -> dict[int, dict[bytes, bytes]]:
    """State of each partition in the changelog."""
    return without_identity(
        {
            partition: {r.key: r.value for r in records if r.key is not None and not r.key.startswith(b"\0")}
            for partition, records in site.changelog().items()
        }
    )


def unreadable_offsets(site: Site) -> int:
    """Number of offsets for which the worker has written dead letters of this reason."""
    return sum(
        int(letter.headers.get("sg.count", b"1"))
        for letter in site.read("dead_letter")
        if letter.headers["sg.reason"] == b"unreadable_batch"
    )


def unreadable(counts: Counts) -> int:
    """Number of offsets refused with this reason."""
    found = counts.refusals.get(UNREADABLE)
    return 0 if found is None else found.number


def archived(site: Site, directory: Path, **batch: Any) -> ArchiveSource:
    settings = msgspec.structs.replace(site.settings, batch=Batch(**batch))
    outcome = archive(settings, directory, lambda text: None)
    assert outcome.unreadable == unreadable_offsets(site)
    assert outcome.refused == sum(map(len, accounted(site).values()))
    assert "in batches that cannot be read" in outcome.message
    manifest = archive_manifest.read(directory)
    assert manifest is not None
    return ArchiveSource(str(directory), manifest)


@pytest.mark.parametrize("reader", ["local", "spark", "archive", "archive-spark"])
def test_every_reader_has_the_bits_and_the_refusals_of_the_worker(
    site: Site, reader: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Source = KafkaSource.of(site.settings)
    spark = request.getfixturevalue("spark") if "spark" in reader else None
    if "archive" in reader:
        source = archived(site, tmp_path / "archive", engine="local" if spark is None else "spark")
        spark = None
    counts = fold(source, plan(source, None), site, tmp_path / "folded", spark)
    assert without_identity(states(tmp_path / "folded")) == by_worker(site)
    refusals = accounted(site)
    assert {p: c.refused for p, c in counts.items()} == {p: len(refusals.get(p, ())) for p in counts}
    numbers = {p: unreadable(c) for p, c in counts.items()}
    assert numbers == {POISONED: unreadable_offsets(site), HONEST: 0}
    for c in counts.values():
        assert c.records == c.events + c.refused == c.end - c.start
    offset, reason, detail = counts[POISONED].refused_first[0]
    assert (offset, reason) == (0, "unreadable_batch")
    assert detail


def test_spark_connector_reads_only_partitions_that_a_worker_can_read(site: Site, spark: Any) -> None:
    source = KafkaSource.of(site.settings)
    planned = {s.partition: s for s in plan(source, None)}
    assert readable.unreadable_partitions(source, planned, spark) == {POISONED}


@pytest.mark.parametrize("origin", ["topic", "archive"])
def test_ranges_that_end_within_a_batch_count_each_of_its_offsets_once(
    site: Site, origin: str, tmp_path: Path
) -> None:
    source: Source = KafkaSource.of(site.settings)
    if origin == "archive":
        source = archived(site, tmp_path / "archive", engine="local")
    (whole, other) = plan(source, None)
    counts, before = [], None
    for k, end in enumerate([1, 3, 4, 7, whole.end - 1, whole.end]):
        start = counts[-1].end if counts else 0
        part = OffsetRange(POISONED, start, end, before, whole.hash_key)
        directory = tmp_path / f"part-{k}"
        counts.append(fold(source, [part], site, directory)[POISONED])
        before = str(partition_file(directory, POISONED))
    fold(source, [other], site, tmp_path / "other")
    partition_file(tmp_path / "other", HONEST).rename(partition_file(directory, HONEST))
    assert without_identity(states(directory)) == by_worker(site)
    assert [c.refused for c in counts[:4]] == [1, 2, 1, 3], "the first batches are unreadable"
    assert sum(map(unreadable, counts)) == unreadable_offsets(site)
    assert all(c.missing == 0 for c in counts)


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_retrain_reports_the_batches_that_cannot_be_read(
    site: Site, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if engine == "spark":
        request.getfixturevalue("spark")
    kafka = site.settings.kafka
    environ = {
        "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "STREAMGUARD_KAFKA_EVENTS_TOPIC": kafka.events_topic,
        "STREAMGUARD_KAFKA_MODELS_TOPIC": kafka.models_topic,
        "STREAMGUARD_KAFKA_PARTITIONS": "2",
    }
    arguments = ["retrain", "--engine", engine, "--output", str(tmp_path / "runs"), "--json"]
    ran = run([*arguments, "--algorithm", "kmeans"], environ, 0)
    number = unreadable_offsets(site)
    outcome = msgspec.json.decode(ran.stdout)
    assert outcome["refusals"]["unreadable_batch"]["number"] == number
    assert f"{number} offsets in batches that cannot be read" in ran.stderr
    report = msgspec.json.decode((tmp_path / "runs/latest/anomaly_report.json").read_bytes())
    assert report["totals"]["refusals"]["unreadable_batch"]["number"] == number
    assert report["refused_first"][0]["reason"] == "unreadable_batch"


@pytest.mark.parametrize("command", ["retrain", "archive"])
def test_damage_without_an_end_ends_the_run_with_a_remedy_that_works(command: str, tmp_path: Path) -> None:
    with LocalKafka() as broker:
        site = Site(broker.bootstrap_servers, tmp_path / "site", partitions=2)
        topic = site.names["events"]
        made = wire.batch([wire.record(i, value) for i, value in enumerate(VALUES[:100])])
        with wire.RawProducer(broker.bootstrap_servers) as producer:
            for partition in (0, 0, 1):
                producer.accepted(topic, partition, made)
        (log,) = (broker.directory / "data" / f"{topic}-0").glob("*.log")
        with log.open("r+b") as file:
            file.seek(len(made) + 16)
            file.write(b"\x09")  # the number of the format
        environ = {
            "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "STREAMGUARD_KAFKA_EVENTS_TOPIC": topic,
            "STREAMGUARD_KAFKA_MODELS_TOPIC": site.names["models"],
            "STREAMGUARD_KAFKA_PARTITIONS": "2",
        }
        arguments = [command, "--engine", "local", "--output", str(tmp_path / "out"), "--json"]
        arguments += ["--algorithm", "kmeans"] if command == "retrain" else []
        error = run(arguments, environ, ExitCode.TEMPORARY).stderr.splitlines()[-1]
        assert f"the log of {topic} is damaged" in error
        assert "in partition 0, the end of the batch at offset 100 is unknown" in error
        assert "`--until 0:100`" in error
        outcome = msgspec.json.decode(run([*arguments, "--until", "0:100"], environ, ExitCode.OK).stdout)
        assert outcome["records"] == 200
        site.close()
