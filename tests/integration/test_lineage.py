"""Copies and topics that do not belong together, or are damaged: the worker heals by itself, or ends and says why."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streamguard.errors import ExitCode
from streamguard.kafka import topics
from streamguard.state.store import RESERVED
from streamguard.testing.broker import LocalKafka
from tests.harness import Site, WorkerProcess, events, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path)
    yield site
    site.close()


def learned(site: Site, count: int = 1500) -> None:
    """Let a worker fold events and stop."""
    worker = site.start().await_ready()
    site.produce(events(count, 2))
    finish(site, worker)


def finish(site: Site, worker: WorkerProcess) -> None:
    """Wait until the worker has caught up, stop it, and compare its results with a fold from scratch."""
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []


def copy_of(site: Site, partition: int = 0) -> Path:
    return site.directory / "a" / site.settings.worker.app_id / f"partition-{partition:04d}"


def replaced(worker: WorkerProcess, reason: str) -> float:
    return worker.metric(f'streamguard_state_copies_replaced_total{{reason="{reason}"}}') or 0.0


def aside(site: Site) -> list[str]:
    return sorted(p.name.split("-", 2)[1] for p in copy_of(site).parent.glob("partition-*.*"))


def delete_beginning(site: Site, offset: int) -> None:
    """Delete the records of partition 0 of the changelog before an offset; a compacted topic does not permit it."""
    for policy in ("delete", "compact"):
        entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, site.names["changelog"], incremental_configs=[entry])
        site.admin.incremental_alter_configs([resource])[resource].result(30)
        if policy == "delete":
            eventually("the partition's leader knows the policy", lambda: _deleted(site, offset))


def _deleted(site: Site, offset: int) -> bool:
    end = TopicPartition(site.names["changelog"], 0, offset)
    try:
        site.admin.delete_records([end])[end].result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.POLICY_VIOLATION:
            raise
        return False
    return True


def test_damaged_copies_are_put_aside_and_read_from_the_changelog(site: Site) -> None:
    learned(site)
    file = max(copy_of(site, 0).glob("*.sst"), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    for i in range(0, len(data) - 2000, 3000):
        data[i] ^= 0xFF
    file.write_bytes(data)
    os.truncate(copy_of(site, 1) / "CURRENT", 0)
    worker = site.start().await_ready()
    assert replaced(worker, "damaged") == 2.0
    lines = [line for line in worker.lines() if line.get("reason") == "damaged"]
    assert {line["directory"] for line in lines} == {str(copy_of(site, partition)) for partition in (0, 1)}
    assert all(line["level"] == "warning" and "nothing is lost" in line["message"] for line in lines)
    finish(site, worker)
    assert aside(site) == ["0000.damaged", "0001.damaged"]


def test_copy_that_is_damaged_while_the_worker_runs_is_read_again_after_a_restart(site: Site) -> None:
    learned(site)
    worker = site.start().await_ready()
    for file in copy_of(site).glob("*.sst"):
        data = file.read_bytes()
        file.write_bytes(bytes(len(data)))
    site.produce(events(3000, 2, seed=2, start=1500))
    assert worker.await_exit() == ExitCode.TEMPORARY, worker.tail()
    assert "is damaged" in worker.exit_message() and "nothing is lost" in worker.exit_message()
    worker = site.start().await_ready()
    assert replaced(worker, "damaged") == 1.0
    finish(site, worker)


def test_copy_of_another_partition_is_put_aside(site: Site) -> None:
    learned(site)
    shutil.rmtree(copy_of(site, 0))
    shutil.copytree(copy_of(site, 1), copy_of(site, 0))
    site.produce(events(500, 2, seed=2, start=1500))
    worker = site.start().await_ready()
    assert replaced(worker, "misplaced") == 1.0
    finish(site, worker)
    assert aside(site) == ["0000.misplaced"]


def test_copy_of_another_application_is_put_aside(kafka: str, tmp_path: Path) -> None:
    sites = [Site(kafka, tmp_path / name) for name in ("one", "two")]
    try:
        for site in sites:
            learned(site)
        one, two = sites
        shutil.rmtree(copy_of(two))
        shutil.copytree(copy_of(one), copy_of(two))
        worker = two.start().await_ready()
        assert replaced(worker, "misplaced") == 1.0
        finish(two, worker)
    finally:
        for site in sites:
            site.close()


def test_open_transaction_of_a_stranger_in_the_changelog_is_temporary(site: Site) -> None:
    learned(site)
    stranger = Producer(
        {"bootstrap.servers": site.settings.kafka.bootstrap_servers, "transactional.id": "stranger"}
    )
    stranger.init_transactions(30)
    stranger.begin_transaction()
    stranger.produce(site.names["changelog"], b"value", key=b"\x00stranger", partition=0)
    assert stranger.flush(30) == 0
    site.produce(events(500, 2, seed=2, start=1500))
    worker = site.start()
    assert worker.await_exit() == ExitCode.TEMPORARY, worker.tail()
    message = worker.exit_message()
    assert "transaction of another program is open in partition 0" in message and "nothing is lost" in message
    assert "app_id" not in message
    stranger.abort_transaction(30)
    finish(site, site.start())


def test_changelog_without_its_beginning_is_written_again_from_a_complete_copy(site: Site) -> None:
    learned(site)
    delete_beginning(site, 400)
    worker = site.start().await_ready()
    assert worker.metric("streamguard_changelog_repairs_total") == 1.0
    assert any("were deleted" in line["message"] and line["level"] == "warning" for line in worker.lines())
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    site.wipe("a")  # now the changelog alone has the whole state
    worker = site.start().await_ready()
    assert worker.metric("streamguard_changelog_repairs_total") == 0.0
    site.produce(events(500, 2, seed=2, start=1500))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    assert site.differences(compacted=True) == []


def test_changelog_without_its_beginning_and_without_a_copy_is_refused(site: Site) -> None:
    learned(site)
    delete_beginning(site, 400)
    site.wipe("a")
    for _ in range(2):  # the first start leaves nothing that the second one takes for a complete copy
        worker = site.start()
        assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
        assert "starts at offset 400, and there is no local copy" in worker.exit_message()


def test_partition_that_was_quiet_until_kafka_forgot_its_writer_is_temporary(tmp_path: Path) -> None:
    expiry = {
        "transactional.id.expiration.ms": 1000,
        "transaction.remove.expired.transaction.cleanup.interval.ms": 500,
        "producer.id.expiration.ms": 1000,
    }
    with LocalKafka(settings=expiry) as broker:
        site = Site(broker.bootstrap_servers, tmp_path, session_timeout_seconds=6.0)
        try:
            worker = site.start().await_ready()
            made = events(4000, 2)

            def forgotten() -> bool:
                while made and worker.alive:
                    site.produce([made.pop(0)])
                    signal.sigtimedwait([], 2.0)
                return not worker.alive

            eventually("Kafka has forgotten the writer", forgotten)
            assert worker.await_exit() == ExitCode.TEMPORARY, worker.tail()
            assert "transactional.id.expiration.ms" in worker.exit_message()
        finally:
            site.close()


def test_first_start_on_a_log_without_its_beginning_says_what_is_missing(site: Site) -> None:
    site.produce(events(600, 2))
    site.expire("events", 0)
    worker = site.start().await_ready()
    missing = worker.metric("streamguard_missing_offsets_total")
    assert missing and missing > 100
    (line,) = [line for line in worker.lines() if "for the first time" in line["message"]]
    assert f"starts at offset {missing:.0f}" in line["message"] and line["level"] == "warning"


@pytest.mark.parametrize("role", ["events", "changelog"])
def test_topic_that_is_created_again_while_the_worker_is_frozen_ends_it_before_it_writes(
    kafka: str, tmp_path: Path, role: str
) -> None:
    site = Site(kafka, tmp_path, session_timeout_seconds=30.0)
    try:
        worker = site.start().await_ready()
        site.produce(events(600, 2))
        site.await_caught_up(workers=[worker])
        alerts = len(site.read("alerts"))
        worker.signal(signal.SIGSTOP)
        eventually("the worker is frozen", worker.frozen)
        site.delete_topic(role)
        topics.create(site.settings)
        site.produce(events(3000, 2, seed=2, start=600))  # the old offsets exist in the new topic
        written = len(site.read("changelog"))
        worker.signal(signal.SIGCONT)
        assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
        message = worker.exit_message()
        assert (
            site.names[role] in message
            and "created again" in message
            and "while the worker was running" in message
        )
        assert len(site.read("changelog")) == written and len(site.read("alerts")) == alerts
        worker = site.start()
        assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
        assert "created again" in worker.exit_message()
    finally:
        site.close()


def test_changelog_that_is_created_again_under_a_quiet_worker_gets_no_checkpoint(site: Site) -> None:
    learned(site, 600)
    worker = site.start().await_ready()
    site.delete_topic("changelog")
    topics.create(site.settings)
    site.produce(events(100, 2, seed=2, start=600))
    assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
    message = worker.exit_message()
    assert (
        site.names["changelog"] in message
        and "created again" in message
        and "while the worker was running" in message
    )
    assert site.read("changelog") == []


def test_state_of_another_cluster_is_neither_continued_nor_replaced_by_an_empty_one(site: Site) -> None:
    """A wrong address, or a Kafka that was set up again; a person decides which."""
    learned(site, 600)
    for role in ("events", "changelog"):
        site.delete_topic(role)
    topics.create(site.settings)
    site.produce(events(600, 2, seed=2))
    worker = site.start()
    assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
    message = worker.exit_message()
    assert 0 < message.index("give the worker another --data-dir") < message.index("to start over")
    assert site.read("changelog") == []
    other = site.start("b").await_ready()
    site.await_caught_up(workers=[other])
    assert other.terminate() == 0, other.tail()
    worker = site.start().await_ready()  # this cluster has a state of its own now, which the copy cannot harm
    assert replaced(worker, "superseded") == 2.0
    assert worker.terminate() == 0, worker.tail()
    expected = site.truth().state
    found = {
        partition: {r.key: r.value for r in records if r.key and not r.key.startswith(RESERVED)}
        for partition, records in site.changelog().items()
    }
    assert found == expected
