"""What is rare in a worker's life: an empty topic, odd headers, markers at the end of a log, a group that refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
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


def test_workers_join_and_leave_while_the_topic_is_empty(site: Site) -> None:
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


def test_an_idle_worker_misses_its_brokers(tmp_path: Path) -> None:
    with LocalKafka() as own:
        site = Site(own.bootstrap_servers, tmp_path)
        worker = site.start("a").await_ready()
        own.kill()
        eventually("it is not ready", lambda: "no_broker" in worker.get("/readyz")[1], 60)
        assert worker.process.wait(60) == ExitCode.UNAVAILABLE
    assert "no broker at" in worker.last_words()
    said = [line["message"] for line in worker.lines() if line["logger"].startswith("aiokafka")]
    assert 0 < len(said) < 100


ODD_HEADER = """
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


def test_a_header_name_that_is_no_utf8_does_not_stop_the_stream(site: Site) -> None:
    values = [value.decode() for _, value in events(20, 1)] + ["no event"]
    servers, topic = site.settings.kafka.bootstrap_servers, site.names["events"]
    worker = site.start().await_ready()
    # aiokafka's encoder in C takes no such name, the one in Python does.
    subprocess.run(
        [sys.executable, "-c", ODD_HEADER, servers, topic, *values],
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


def test_a_log_that_expired_to_its_end_after_transactions_lost_nothing(site: Site) -> None:
    made = events(1200, 2)
    worker = site.start().await_ready()
    site.produce_in_transactions((i % 3 != 1, made[i * 40 : (i + 1) * 40]) for i in range(30))
    site.await_caught_up(workers=[worker])
    checkpoints = len(site.read("changelog"))
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []
    assert len(site.read("changelog")) == checkpoints, "a partition that has not moved was saved again"
    for partition in (0, 1):
        site.expire("events", partition)
    worker = site.start().await_ready()
    site.produce(events(200, 2, seed=2, start=1200))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()


def test_markers_alone_move_the_checkpoint(site: Site) -> None:
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


def test_a_session_time_out_that_the_broker_forbids_is_refused(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path, session_timeout_seconds=0.5)
    try:
        worker = site.start()
        assert worker.await_exit() == ExitCode.CONFIGURATION, worker.tail()
        message = worker.last_words()
        assert "InvalidSessionTimeout" in message and "worker.session_timeout_seconds" in message
    finally:
        site.close()


def test_partitions_added_while_it_runs_are_refused_by_name(site: Site) -> None:
    a = site.start("a").await_ready()
    admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers})
    grown = [NewPartitions(site.names[role], 3) for role in ("events", "changelog")]
    for future in admin.create_partitions(grown).values():
        future.result(30)
    site.start("b", STREAMGUARD_KAFKA_PARTITIONS="3")
    assert a.await_exit() == ExitCode.CONFIGURATION, a.tail()
    message = a.last_words()
    assert f"{site.names['events']} has 3 partitions, wanted 2" in message


def test_a_changelog_lost_together_with_the_local_state_is_refused(site: Site) -> None:
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
    message = worker.last_words()
    assert site.names["changelog"] in message and "worker.app_id" in message
    assert site.committed() == committed and site.read("changelog") == [], "a refusal changes nothing"


@pytest.mark.parametrize("point", ["checkpoint-begun", "changes-sent"])
def test_a_crash_before_the_first_checkpoint_is_followed_by_another(site: Site, point: str) -> None:
    site.produce(events(600, 2))
    worker = site.start(crash_point=point)
    assert worker.await_exit() == -9, worker.tail()
    assert site.committed() == {}
    site.wipe("a")
    worker = site.start()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []


def test_two_workers_of_one_instance_id_are_told_so(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path, instance_id="one")
    try:
        site.produce(events(600, 2))
        workers = [site.start("a").await_ready(), site.start("b")]

        def told() -> bool:
            said = [line["message"] for worker in workers for line in worker.lines()]
            return any("another worker has worker.instance_id 'one' too" in message for message in said)

        eventually("one of them says why", told)
    finally:
        site.close()
