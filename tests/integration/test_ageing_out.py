"""Profiles that have aged out leave the changelog and the local copies of real workers, exactly, also under kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.settings.schema import Detection
from streamguard.state.expiry import PROFILE_KINDS
from tests.harness import Site, events, eventually

pytestmark = pytest.mark.integration

VISITORS = 1200
"""Users of one partition who are seen once; a lap of the sweep over them takes three checkpoints."""
HOURS = 60
START = 1_700_000_000_000
COLLEAGUES = [f"colleague{k}" for k in range(10)]


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(
        kafka, tmp_path, instance_id="one", detection=Detection(forget_after_days=1.0), resident_profiles=1600
    )
    yield site
    site.close()


def record(partition: int, ms: int, user: str) -> tuple[int, bytes]:
    body = {
        "timestamp": ms,
        "event_type": "auth_attempt",
        "user": user,
        "source_ip": "10.0.0.1",
        "status": "success",
    }
    return partition, json.dumps(body).encode()


def visits() -> list[tuple[int, bytes]]:
    """Users who are seen once in each partition, with attacks and bad records, so that there is output to compare."""
    visitors = [record(p, START + k * 1000, f"visitor{k}") for k in range(VISITORS) for p in (0, 1)]
    return visitors + events(600, 2)


def work() -> list[tuple[int, bytes]]:
    """Events of the same few users for days."""
    return [
        record(p, START + hour * 3_600_000 + k, name)
        for hour in range(1, HOURS)
        for k, name in enumerate(COLLEAGUES)
        for p in (0, 1)
    ]


def tombstones(site: Site) -> dict[int, list[bytes]]:
    """Keys of the profiles that each changelog partition deletes."""
    return {
        partition: [
            r.key for r in records if r.key is not None and r.key[:1] in PROFILE_KINDS and r.value is None
        ]
        for partition, records in site.changelog().items()
    }


def stored_profiles(site: Site) -> dict[int, set[bytes]]:
    """Keys of the profiles that remain in each changelog partition."""
    last = {p: {r.key: r.value for r in records} for p, records in site.changelog().items()}
    return {
        p: {
            key
            for key, value in values.items()
            if key is not None and key[:1] in PROFILE_KINDS and value is not None
        }
        for p, values in last.items()
    }


def assert_all_left(site: Site) -> None:
    """A worker sweeps until only the colleagues remain; then the results equal a fold from scratch."""
    worker = site.start().await_ready()
    remaining = {f"u{name}".encode() for name in COLLEAGUES}
    sent = 0

    def swept() -> bool:
        nonlocal sent  # a checkpoint needs an event, and the sweep goes on with checkpoints
        site.produce(record(p, START + HOURS * 3_600_000 + sent, COLLEAGUES[0]) for p in (0, 1))
        sent += 1
        return all(keys == remaining for keys in stored_profiles(site).values())

    eventually("only active users remain", swept, 60.0)
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []


def test_profiles_leave_changelog_and_copy_as_deletions(site: Site) -> None:
    site.produce(visits())
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert tombstones(site) == {0: [], 1: []}
    site.produce(work())
    site.await_caught_up(workers=[worker])
    assert worker.metric("streamguard_expired_profiles_total") > 0
    assert worker.terminate() == 0, worker.tail()
    assert_all_left(site)
    for keys in tombstones(site).values():
        assert len(keys) == len(set(keys))
        assert {f"uvisitor{k}".encode() for k in range(VISITORS)} <= set(keys)


@pytest.mark.parametrize(("point", "wipe"), [("changes-sent", False), ("transaction-committed", True)])
def test_a_worker_killed_in_the_middle_of_a_sweep_continues_exactly(
    site: Site, point: str, wipe: bool
) -> None:
    site.produce(visits())
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    site.produce(work())
    while not any(0 < len(keys) < VISITORS for keys in tombstones(site).values()):
        worker = site.start(failpoint=f"{point}:2")
        assert worker.await_exit() == -9, worker.tail()
    if wipe:
        site.wipe("a")
    assert_all_left(site)
