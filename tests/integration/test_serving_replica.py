"""The replica beside real workers: equal to the changelog, exact at committed offsets, through kills and `forget`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamguard.alerts.incident import rfc3339
from streamguard.serving.log.record import LogRecord
from streamguard.serving.replica.buffer import META_KEY, CheckpointBuffer
from streamguard.serving.replica.replica import Replica
from streamguard.state import migration
from streamguard.state.partition import HASH_KEY
from streamguard.state.store import RESERVED
from tests.harness import Record, Site, events, eventually

pytestmark = pytest.mark.integration

USER = "user-4"
"""A busy user of partition 0."""


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path)
    yield site
    site.close()


@contextmanager
def replica_of(site: Site, name: str) -> Iterator[Replica]:
    """A replica that follows in a thread; an error of the thread is raised at the end."""
    replica, stop, failed = Replica(site.settings, site.directory / name), threading.Event(), []

    def run() -> None:
        try:
            replica.follow(stop)
        except Exception as error:  # noqa: BLE001 - raised in the test's thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield replica
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def last_values(records: list[Record]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for record in records:
        assert record.key is not None
        if record.key.startswith(RESERVED):
            continue
        if record.value is None:
            found.pop(record.key, None)
        else:
            found[record.key] = record.value
    return found


def contents(replica: Replica) -> dict[int, dict[bytes, bytes]]:
    return {number: copy.contents() for number, copy in replica._follower.copies.items()}


def equals_the_changelog(site: Site, replica: Replica) -> Callable[[], bool]:
    expected = {number: last_values(records) for number, records in site.changelog().items()}
    return lambda: replica.ready and contents(replica) == expected


def assert_every_checkpoint_is_recognised(records: list[Record]) -> None:
    """From the first checkpoint on, no gap but that of a commit marker precedes the end of a checkpoint."""
    assert records[0].key == HASH_KEY, "the first transaction holds the key of the hashes alone"
    buffer = CheckpointBuffer()
    buffer.reach_end(records[1].offset)
    seen = [
        (record.key == META_KEY, buffer.add(LogRecord(0, record.offset, 0, record.key, record.value)))
        for record in records[1:]
    ]
    assert all(is_end == exact for is_end, exact in seen)
    assert sum(exact for _, exact in seen) >= 2


def test_replica_equals_the_changelog_and_is_exact_at_the_committed_offset(site: Site) -> None:
    site.produce(events(3000, 2))
    with replica_of(site, "running") as replica:
        worker = site.start("a").await_ready()
        site.await_caught_up(workers=[worker])
        worker.kill()
        site.produce(events(2000, 2, start=3000))
        worker = site.start("a").await_ready()
        site.await_caught_up(workers=[worker])
        assert worker.terminate() == 0
        eventually("the replica equals the changelog", equals_the_changelog(site, replica))
        committed = site.committed()
        profiles = replica.profiles(USER)
        assert profiles
        for profile in profiles:
            assert profile.source_offset == committed[profile.partition]
            assert profile.topic == site.names["events"]
            head = contents(replica)[profile.partition][b"p"]
            clock = int(migration.population(head, 3, "the population")["clock"][0])
            assert profile.event_time == rfc3339(clock)
        assert replica.counters().lag == 0
        with replica_of(site, "fresh") as fresh:
            eventually("another replica is ready", lambda: fresh.ready)
            assert contents(fresh) == contents(replica)
            assert fresh.profiles(USER) == profiles
            listed = fresh.users("", 10**6)
            assert len(listed) > 50 and list(listed) == sorted(listed, key=str.encode)


def test_forgotten_user_leaves_a_running_replica_and_one_that_was_off(site: Site) -> None:
    site.produce(events(3000, 2))
    worker = site.start("a").await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    for records in site.changelog().values():
        assert_every_checkpoint_is_recognised(records)
    with replica_of(site, "off") as off:
        eventually("the replica is ready", lambda: off.ready)
        assert off.profiles(USER)
    with replica_of(site, "running") as running:
        eventually("the replica is ready", lambda: running.ready)
        command = [sys.executable, "-m", "streamguard.cli", "forget", USER]
        config = ["--config", str(site.directory / "streamguard.toml")]
        subprocess.run([*command, *config], check=True, capture_output=True)
        eventually("the user is gone", lambda: running.profiles(USER) == ())
        eventually("the replica equals the changelog", equals_the_changelog(site, running))
    with replica_of(site, "off") as off:
        eventually("the replica equals the changelog", equals_the_changelog(site, off))
        assert off.profiles(USER) == () and off.counters().rebuilt == 0


def test_changelog_that_is_made_anew_is_read_anew(site: Site) -> None:
    site.produce(events(3000, 2))
    worker = site.start("a").await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    with replica_of(site, "r") as replica:
        eventually("the replica is ready", lambda: replica.ready)
        assert replica.profiles(USER)
        site.delete_topic("changelog")
        from streamguard.kafka import topics

        topics.create(site.settings)
        eventually("the new topic is read", lambda: replica.ready and replica.counters().rebuilt == 2)
        assert replica.profiles(USER) == ()
