"""Rare conditions of a worker: empty topics, invalid header names, transaction markers, settings that Kafka rejects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from streamguard.errors import ExitCode
from streamguard.kafka import topics
from streamguard.testing.broker import LocalKafka
from tests.harness import Site, events, eventually

pytestmark = pytest.mark.integration

READY = 'streamguard_partitions{state="ready"}'


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path)
    yield site
    site.close()


def test_workers_join_and_leave_on_an_empty_topic(site: Site) -> None:
    a = site.start("a").await_ready()
    for _ in range(3):
        b = site.start("b")
        eventually("each has a partition", lambda b=b: a.metric(READY) == 1.0 and b.metric(READY) == 1.0)
        assert b.terminate() == 0, b.tail()
        eventually("a has both partitions", lambda: a.metric(READY) == 2.0)
    assert a.alive, a.tail()
    b = site.start("b")
    eventually("each has a partition", lambda: a.metric(READY) == 1.0 and b.metric(READY) == 1.0)
    site.produce(events(600, 2))
    site.await_caught_up(workers=[a, b])
    assert a.terminate() == b.terminate() == 0
    assert site.differences("ab") == []


def test_idle_worker_without_a_broker_becomes_unready_and_exits_with_69(tmp_path: Path) -> None:
    with LocalKafka() as own:
        site = Site(own.bootstrap_servers, tmp_path)
        worker = site.start("a").await_ready()
        own.kill()
        eventually("the worker is not ready", lambda: "no_broker" in worker.get("/readyz")[1], 60)
        assert worker.process.wait(60) == ExitCode.UNAVAILABLE
    assert "no broker at" in worker.exit_message()
    messages = [line["message"] for line in worker.lines() if line["logger"].startswith("aiokafka")]
    assert 0 < len(messages) < 100


def test_worker_that_is_stopped_while_no_broker_runs_ends_in_time_and_says_why(tmp_path: Path) -> None:
    with LocalKafka() as own:
        site = Site(own.bootstrap_servers, tmp_path)
        site.produce(events(200, 2))
        worker = site.start("a").await_ready()
        site.await_caught_up(workers=[worker])
        own.kill()
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(45) == ExitCode.UNAVAILABLE
    last = worker.lines()[-1]
    assert "20 s after SIGTERM" in last["message"] and "no event is lost" in last["message"]
    assert last["exit_code"] == ExitCode.UNAVAILABLE
    text = worker.log.read_text()
    assert all(line.startswith("{") for line in text.splitlines()), text


INVALID_HEADER = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class Name(str):
    def encode(self, *_):
        return b"x\\xff"

async def main(servers, topic, *values):
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=500) as producer:
        sent = [
            await producer.send(topic, value.encode(), partition=0, headers=[(Name("x") if i else "good", b"1")])
            for i, value in enumerate(values)
        ]
        await asyncio.gather(*sent)

asyncio.run(main(*sys.argv[1:]))
"""


def test_header_name_that_is_not_utf8_does_not_stop_the_worker(site: Site) -> None:
    values = [value.decode() for _, value in events(20, 1)] + ["no event"]
    servers, topic = site.settings.kafka.bootstrap_servers, site.names["events"]
    worker = site.start().await_ready()
    # The C encoder of aiokafka rejects such a name, but the Python encoder accepts it.
    subprocess.run(
        [sys.executable, "-c", INVALID_HEADER, servers, topic, *values],
        env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"},
        check=True,
    )
    site.produce(events(100, 2, seed=2, start=20))
    site.await_caught_up(workers=[worker])
    metrics = worker.metrics()
    refused = sum(n for name, n in metrics.items() if name.startswith("streamguard_dead_letters_total"))
    folded = sum(n for name, n in metrics.items() if name.startswith("streamguard_events_total"))
    assert folded + refused == 121
    dead = next(r for r in site.read("dead_letter") if r.value == b"no event")
    assert b"1" in dead.headers.values(), dead.headers
    assert worker.terminate() == 0, worker.tail()


def test_worker_continues_after_a_fully_read_log_has_expired(site: Site) -> None:
    made = events(1200, 2)
    worker = site.start().await_ready()
    site.produce_in_transactions((i % 3 != 1, made[i * 40 : (i + 1) * 40]) for i in range(30))
    site.await_caught_up(workers=[worker])
    checkpoints = len(site.read("changelog"))
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []
    assert len(site.read("changelog")) == checkpoints, "a partition without new events was checkpointed again"
    for partition in (0, 1):
        site.expire("events", partition)
    worker = site.start().await_ready()
    site.produce(events(200, 2, seed=2, start=1200))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()


def test_transaction_markers_alone_advance_the_checkpoint(site: Site) -> None:
    worker = site.start().await_ready()
    site.produce_in_transactions([(False, events(40, 2))])
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    for partition in (0, 1):
        site.expire("events", partition)
    site.produce(events(600, 2))
    worker = site.start()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []


def test_session_timeout_that_the_broker_rejects_is_a_configuration_error(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path, session_timeout_seconds=0.5)
    try:
        worker = site.start()
        assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
        message = worker.exit_message()
        assert "InvalidSessionTimeout" in message and "worker.session_timeout_seconds" in message
    finally:
        site.close()


def test_partitions_added_while_a_worker_runs_are_a_configuration_error(site: Site) -> None:
    a = site.start("a").await_ready()
    admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers})
    grown = [NewPartitions(site.names[role], 3) for role in ("events", "changelog")]
    for future in admin.create_partitions(grown).values():
        future.result(30)
    site.start("b", STREAMGUARD_KAFKA_PARTITIONS="3")
    assert a.await_exit() == ExitCode.CONFIGURATION, a.tail()
    message = a.exit_message()
    assert f"{site.names['events']} has 3 partitions, required 2" in message


def test_loss_of_changelog_and_local_state_is_a_configuration_error(site: Site) -> None:
    site.produce(events(600, 2))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    committed = site.committed()
    site.delete_topic("changelog")
    topics.create(site.settings)
    site.wipe("a")
    worker = site.start()
    assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
    message = worker.exit_message()
    assert site.names["changelog"] in message and "worker.app_id" in message
    assert site.committed() == committed and site.read("changelog") == [], (
        "the worker must not write anything"
    )


@pytest.mark.parametrize("point", ["checkpoint-begun", "changes-sent"])
def test_worker_killed_before_the_first_checkpoint_starts_from_the_beginning(site: Site, point: str) -> None:
    site.produce(events(600, 2))
    worker = site.start(failpoint=point)
    assert worker.await_exit() == -9, worker.tail()
    assert site.committed() == {}
    site.wipe("a")
    worker = site.start()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []


def test_two_workers_with_one_instance_id_log_the_conflict(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path, instance_id="one")
    try:
        site.produce(events(600, 2))
        workers = [site.start("a").await_ready(), site.start("b")]

        def logged() -> bool:
            messages = [line["message"] for worker in workers for line in worker.lines()]
            return any("another worker uses worker.instance_id 'one' too" in message for message in messages)

        eventually("one of the workers logs the conflict", logged)
    finally:
        site.close()


LEFT_OPEN = """
import os, sys
from confluent_kafka import Producer

producer = Producer(
    {"bootstrap.servers": sys.argv[1], "transactional.id": sys.argv[2], "transaction.timeout.ms": 900_000}
)
producer.init_transactions(30)
producer.begin_transaction()
producer.produce(sys.argv[3], b"not committed", partition=0)
producer.flush(30)
os._exit(9)
"""


def test_transaction_that_another_program_left_open_is_reported_until_it_ends(site: Site) -> None:
    servers, topic = site.settings.kafka.bootstrap_servers, site.names["events"]
    worker = site.start().await_ready()
    site.produce(events(200, 2))
    site.await_caught_up(workers=[worker])
    opened_at = site.ends()[0]
    transactional_id = f"etl-{topic}"
    left = subprocess.run([sys.executable, "-c", LEFT_OPEN, servers, transactional_id, topic], check=False)
    assert left.returncode == 9
    site.produce(events(300, 2, seed=2, start=200))

    eventually("the worker is blocked", lambda: '"blocked"' in worker.get("/readyz")[1])
    status, body = worker.get("/readyz")
    assert status == 503
    assert f"partition 0 at offset {opened_at}" in body and "partition 1" not in body, body
    metrics = worker.metrics()
    waiting = site.ends()[0] - opened_at
    assert metrics['streamguard_blocked_records{partition="0"}'] == waiting > 100
    assert metrics['streamguard_lag_records{partition="0"}'] == waiting
    assert metrics['streamguard_blocked_seconds{partition="0"}'] > 25
    assert metrics['streamguard_lag_seconds{partition="0"}'] > 25
    for name in ("blocked_records", "blocked_seconds", "lag_records"):
        assert metrics[f'streamguard_{name}{{partition="1"}}'] == 0

    aborting = Producer({"bootstrap.servers": servers, "transactional.id": transactional_id})
    aborting.init_transactions(30)
    site.await_caught_up(workers=[worker])
    worker.await_ready()
    eventually("nothing waits", lambda: worker.metric('streamguard_lag_records{partition="0"}') == 0)
    assert worker.metric('streamguard_blocked_seconds{partition="0"}') == 0
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []
