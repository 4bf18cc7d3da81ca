"""Workers that start, stop, join, are killed or frozen, and the conditions under which a worker does not start."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.errors import ExitCode
from streamguard.kafka import topics
from streamguard.records.record import HEAD_BYTES
from streamguard.testing.broker import LocalKafka
from tests.harness import Site, WorkerProcess, events, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path)
    yield site
    site.close()


def finish(site: Site, *workers: WorkerProcess) -> None:
    """Wait until the workers have caught up, stop them, and compare their results with the expected ones."""
    site.await_caught_up(workers=workers)
    for worker in workers:
        assert worker.terminate() == 0, worker.tail()
    assert site.differences({worker.name for worker in site.started}) == []


def test_sigterm_checkpoints_all_events_and_bad_records_become_dead_letters(site: Site) -> None:
    site.produce(events(1000, 2))
    bad = [None, b"", b"[1]", b"\xff\xfe", b'{"user": "a"}', b"\x00" * 2_000_000, b"[" * 100_000]
    site.produce([(0, value) for value in bad], **{"message.max.bytes": 4_000_000})
    site.produce(events(500, 2, seed=2, start=1000))
    worker = site.start().await_ready()
    finish(site, worker)
    dead = {(r.value, r.key, r.headers["trace"]) for r in site.read("dead_letter")}
    assert {(value and value[:HEAD_BYTES], b"k", b"1") for value in bad} <= dead
    letter = next(r for r in site.read("dead_letter") if r.value == b"[1]")
    assert letter.headers.keys() >= {"sg.reason", "sg.detail", "sg.topic", "sg.partition", "sg.offset"}
    assert letter.headers["sg.topic"].decode() == site.names["events"]


def test_lost_data_directory_is_restored_from_the_changelog(site: Site) -> None:
    site.produce(events(1000, 2))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    site.wipe("a")
    site.produce(events(500, 2, seed=2, start=1000))
    finish(site, site.start())


def test_aborted_transactions_in_the_input_are_not_folded(site: Site) -> None:
    made = events(1200, 2)
    batches = [(i % 3 != 1, made[i * 40 : (i + 1) * 40]) for i in range(30)]
    worker = site.start()
    site.produce_in_transactions([*batches, (False, made[:10])])  # the log ends with an aborted transaction
    finish(site, worker)


def test_results_are_exact_when_workers_join_leave_and_are_killed(site: Site) -> None:
    site.produce(events(800, 2))
    a = site.start("a").await_ready()
    b = site.start("b")
    eventually("each has a partition", lambda: a.metric(READY) == 1.0 and b.metric(READY) == 1.0)
    site.produce(events(800, 2, seed=2, start=800))
    site.await_caught_up(workers=[a, b])
    assert b.terminate() == 0, b.tail()
    eventually("a has both partitions", lambda: a.metric(READY) == 2.0)
    site.produce(events(400, 2, seed=3, start=1600))
    b = site.start("b")
    eventually("each has a partition again", lambda: a.metric(READY) == 1.0 and b.metric(READY) == 1.0)
    site.produce(events(400, 2, seed=4, start=2000))
    a.kill()
    site.produce(events(400, 2, seed=5, start=2400))
    finish(site, b)


READY = 'streamguard_partitions{state="ready"}'


def test_frozen_worker_is_fenced_and_exits_after_it_continues(site: Site) -> None:
    site.produce(events(800, 2))
    # The worker freezes during a checkpoint: the next owner of the partition must abort its open transaction.
    a = site.start("a", failpoint="changes-sent:3:freeze")
    eventually("a is frozen", a.frozen)
    b = site.start("b").await_ready(90)
    site.produce(events(800, 2, seed=2, start=800))
    site.await_caught_up(workers=[b])
    a.signal(signal.SIGCONT)
    assert a.await_exit() == ExitCode.TEMPORARY, a.tail()
    assert any("was taken over by another worker" in line["message"] for line in a.lines()), a.tail()
    finish(site, b)


def test_static_member_restarts_without_a_rebalance(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path, session_timeout_seconds=20.0)
    try:
        site.produce(events(800, 2))
        a = site.start("a", STREAMGUARD_WORKER_INSTANCE_ID="a")
        b = site.start("b", STREAMGUARD_WORKER_INSTANCE_ID="b")
        eventually("each has a partition", lambda: a.metric(READY) == 1.0 and b.metric(READY) == 1.0)
        before = a.metric("streamguard_rebalances_total")
        b.kill()
        b = site.start("b", STREAMGUARD_WORKER_INSTANCE_ID="b").await_ready(15)
        assert b.metric(READY) == a.metric(READY) == 1.0
        assert a.metric("streamguard_rebalances_total") == before
        finish(site, a, b)
    finally:
        site.close()


def test_worker_is_not_ready_while_checkpoints_hang(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path)
    try:
        worker = site.start(failpoint="checkpoint-begun:3:hang")
        worker.await_ready()
        site.produce(events(300, 2))
        eventually("not ready", lambda: worker.get("/readyz")[0] == 503)
        assert json.loads(worker.get("/readyz")[1])["reason"] in ("hangs", "stalled")
        assert worker.get("/healthz")[0] == 200
    finally:
        site.close()


def test_metrics_contain_no_user_and_no_address(site: Site) -> None:
    site.produce(events(600, 2))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    status, text = worker.get("/metrics")
    assert status == 200
    assert "user-" not in text and "10.0." not in text
    assert sum(v for k, v in worker.metrics().items() if k.startswith("streamguard_events_total")) > 500
    assert worker.metric("streamguard_event_to_alert_seconds_count") > 0
    assert any(k.startswith("streamguard_dead_letters_total{reason=") for k in worker.metrics())


@pytest.mark.parametrize("role", ["events", "changelog"])
def test_recreated_topic_is_a_configuration_error(site: Site, role: str) -> None:
    site.produce(events(600, 2))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    site.delete_topic(role)
    topics.create(site.settings)
    site.produce(events(900, 2))  # a comparison of offsets alone would not detect the new topic
    worker = site.start()
    assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
    message = worker.exit_message()
    assert site.names[role] in message and "created again" in message and "offset" in message


def test_events_that_expired_unread_are_a_configuration_error(site: Site) -> None:
    site.produce(events(600, 2))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    site.produce(events(600, 2, seed=2, start=600))
    site.expire("events", partition=1)
    worker = site.start()
    assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
    assert "expired before they were read" in worker.exit_message()


def test_locked_data_directory_and_missing_topic_are_errors_before_the_worker_joins(
    site: Site, kafka: str
) -> None:
    a = site.start("a").await_ready()
    second = site.start("a")
    assert second.await_exit() == ExitCode.TEMPORARY
    assert "data directory" in second.exit_message()
    assert a.alive
    site.delete_topic("alerts")
    other = site.start("b")
    assert other.await_exit() == ExitCode.CONFIGURATION
    assert "streamguard topics create" in other.exit_message()


def test_results_are_exact_after_the_broker_is_killed_and_restarted(tmp_path: Path) -> None:
    with LocalKafka() as broker:
        site = Site(broker.bootstrap_servers, tmp_path)
        try:
            site.produce(events(600, 2))
            worker = site.start().await_ready()
            site.await_caught_up(workers=[worker])
            broker.kill()
            broker.start()
            site.produce(events(600, 2, seed=2, start=600))
            worker = worker if worker.alive else site.start()
            finish(site, worker)
        finally:
            site.close()
