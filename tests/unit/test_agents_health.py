"""Readiness and liveness of a worker with a manual clock, and the HTTP server that reports them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from streamguard.agents.consumer.liveness import (
    BEAT_SECONDS,
    DEAD_SECONDS,
    GONE_SECONDS,
    SILENT_SECONDS,
)
from streamguard.agents.consumer.progress import BLOCKED_SECONDS, UNANSWERED_SECONDS, Progress
from streamguard.agents.process.health import HealthServer
from streamguard.errors import TemporaryError
from streamguard.metrics import READY, WORKER
from streamguard.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def progress(clock: ManualClock) -> Progress:
    progress = Progress(stall_seconds=30, clock=clock)
    progress.assigned([0, 3])
    progress.ready(0)
    progress.ready(3)
    return progress


def reason(progress: Progress) -> object:
    problem = progress.not_ready()
    return problem and problem["reason"]


def test_worker_is_restoring_until_its_last_partition_is_ready(clock: ManualClock) -> None:
    progress = Progress(stall_seconds=30, clock=clock)
    progress.assigned([1, 2])
    assert "the state of partitions 1, 2'" in str(progress.not_ready())
    progress.ready(1)
    assert reason(progress) == "restoring"
    assert "the state of partition 2'" in str(progress.not_ready())
    progress.ready(2)
    assert reason(progress) is None
    progress.assigned([])
    assert reason(progress) == "no_partition"


def test_worker_is_stalled_only_while_records_wait(progress: Progress, clock: ManualClock) -> None:
    for second in range(100):
        clock.advance(1)
        progress.beat()
        progress.broker_answered()
        progress.observe(0, 500 + second, waiting=True)
        progress.answered(3, second + 1)
        progress.observe(3, 70, waiting=False)
        assert reason(progress) is None
    for second in range(100, 132):
        clock.advance(1)
        progress.beat()
        progress.broker_answered()
        progress.observe(0, 600, waiting=True)
        progress.answered(3, second + 1)
        progress.observe(3, 70, waiting=False)
    assert reason(progress) == "stalled"
    assert "records wait in partition 0, but" in str(progress.not_ready())
    progress.observe(0, 601, waiting=True)
    assert reason(progress) is None


def pass_seconds(progress: Progress, clock: ManualClock, seconds: float, stamps: dict[int, int]) -> None:
    """Let time pass in which the main thread and the brokers answer, and the fetches of `stamps` are answered."""
    for _ in range(round(seconds)):
        clock.advance(1)
        progress.beat()
        progress.broker_answered()
        for partition in stamps:
            stamps[partition] += 1
            progress.answered(partition, stamps[partition])
        progress.observe(0, 500, waiting=False)
        progress.observe(3, 70, waiting=False)


def test_transaction_that_stays_open_blocks_and_short_ones_do_not(
    progress: Progress, clock: ManualClock
) -> None:
    stamps = {0: 0, 3: 0}
    for offset in range(100, 2000, 100):  # one transaction after the other, each of 20 s
        assert progress.blocked(3, offset, offset + 50) == 0
        pass_seconds(progress, clock, 20, stamps)
        assert progress.blocked(3, offset, offset + 70) == 20
        assert reason(progress) is None
    assert progress.blocked(3, 2000, 2000) == 0
    progress.blocked(3, 2000, 2010)
    pass_seconds(progress, clock, BLOCKED_SECONDS, stamps)
    assert reason(progress) is None
    pass_seconds(progress, clock, 1, stamps)
    assert progress.blocked(3, 2000, 2340) == BLOCKED_SECONDS + 1
    problem = progress.not_ready()
    assert problem is not None and problem["reason"] == "blocked"
    assert "blocked partition 3 at offset 2000 for 31 s; 340 offsets" in str(problem["detail"])
    assert progress.blocked(3, 2340, 2340) == 0
    assert reason(progress) is None


def test_blocked_partitions_are_named_up_to_a_limit_and_forgotten_in_a_rebalance(clock: ManualClock) -> None:
    progress = Progress(stall_seconds=30, clock=clock)
    progress.assigned(list(range(500)))
    for partition in range(500):
        progress.ready(partition)
        progress.blocked(partition, 7, 9)
    clock.advance(5)
    for partition in range(500):
        progress.observe(partition, 7, waiting=False)
    pass_seconds(progress, clock, BLOCKED_SECONDS, dict.fromkeys(range(500), 0))
    detail = str((progress.not_ready() or {})["detail"])
    assert "partition 7 at offset 7 and 492 more for 35 s; 1,000 offsets" in detail
    progress.assigned([0])
    progress.ready(0)
    assert reason(progress) is None


def test_partition_whose_fetches_are_not_answered_makes_the_worker_not_ready(
    progress: Progress, clock: ManualClock
) -> None:
    pass_seconds(progress, clock, UNANSWERED_SECONDS, {0: 0})
    assert reason(progress) is None
    pass_seconds(progress, clock, 1, {0: 100})
    assert reason(progress) == "unanswered"
    assert "no fetch of partition 3 has been answered for 31 s" in str(progress.not_ready())
    progress.answered(3, 1)
    assert reason(progress) is None


def test_hanging_main_thread_makes_the_worker_not_ready(progress: Progress, clock: ManualClock) -> None:
    progress.beat()
    clock.advance(BEAT_SECONDS)
    assert reason(progress) is None
    clock.advance(1)
    assert reason(progress) == "hangs"


def test_silent_brokers_are_reported_as_missing_and_then_as_gone(
    progress: Progress, clock: ManualClock
) -> None:
    for second in range(1, 40):
        clock.advance(1)
        progress.beat()
        progress.observe(0, second, waiting=False)
        progress.observe(3, second, waiting=False)
        progress.answered(0, second)
        progress.answered(3, second)
        assert reason(progress) == ("no_broker" if second > SILENT_SECONDS else None)
        assert progress.brokers_gone == (second > GONE_SECONDS)
    progress.broker_answered()
    assert reason(progress) is None
    assert not progress.brokers_gone


def fetch(port: int, path: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def test_port_serves_metrics_readiness_and_liveness(progress: Progress, clock: ManualClock) -> None:
    server = HealthServer(progress, WORKER, READY, "127.0.0.1", 0)
    server.start()
    status, kind, body = fetch(server.port, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert b"streamguard_build_info" in body
    assert fetch(server.port, "/readyz")[0] == 200
    assert b"streamguard_ready 1.0" in fetch(server.port, "/metrics")[2]
    clock.advance(DEAD_SECONDS)
    status, _, body = fetch(server.port, "/readyz")
    assert status == 503
    assert json.loads(body)["reason"] == "hangs"
    assert b"streamguard_ready 0.0" in fetch(server.port, "/metrics")[2]
    assert fetch(server.port, "/healthz")[0] == 200
    clock.advance(1)
    status, _, body = fetch(server.port, "/healthz")
    assert (status, json.loads(body)["reason"]) == (503, "hangs")
    assert "61 s" in json.loads(body)["detail"]
    progress.beat()
    assert fetch(server.port, "/healthz")[0] == 200
    assert fetch(server.port, "/state")[0] == 404
    with pytest.raises(TemporaryError, match=r"when the port is free.*--metrics-port"):
        HealthServer(progress, WORKER, READY, "127.0.0.1", server.port)
