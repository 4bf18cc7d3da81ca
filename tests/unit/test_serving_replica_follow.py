"""The replica as a whole over a log in memory: outages, topics that are made anew, and what readers are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamguard.errors import ConfigurationError, UnavailableError
from streamguard.polling import poll_until
from streamguard.serving.replica import follower, totals
from streamguard.serving.replica.partition_copy import NotReadyError
from streamguard.serving.replica.replica import Replica, ReplicaNotReadyError
from streamguard.settings.schema import Settings
from streamguard.state.store import DamagedCopyError
from tests.changelogs import Changelog, Cluster
from tests.streams import START, Partition, event

PATIENCE = 30.0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(Changelog(), Changelog())
    monkeypatch.setattr(follower, "topic_state", cluster.topic_state)
    monkeypatch.setattr(follower, "LogReader", cluster.reader)
    monkeypatch.setattr(follower, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(follower, "EXAMINE_SECONDS", 0.01)
    return cluster


@contextmanager
def followed(path: Path, held: list[int] | None = None) -> Iterator[Replica]:
    """A replica that follows in a thread; an error of the thread is raised at the end."""
    replica, stop, failed = Replica(Settings(), path, held), threading.Event(), []

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


def until(probe: Callable[[], object]) -> None:
    poll_until(probe, PATIENCE, 0.002)


def folded(log: Changelog, count: int, user: str = "ann", partition: Partition | None = None) -> Partition:
    """Commit the checkpoint of a partition that has folded further events of a user."""
    partition = partition or Partition()
    first = partition.state.next_offset or 0
    partition.run([event(START + n, user) for n in range(first + count)], start=first)
    log.commit(list(partition.saved.items()))
    return partition


def events(replica: Replica, user: str) -> list[int]:
    return [profile.events for profile in replica.profiles(user)]


def test_user_is_found_in_each_partition_that_has_one(tmp_path: Path, cluster: Cluster) -> None:
    first = folded(cluster.partitions[0], 3)
    folded(cluster.partitions[1], 5)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        assert [(p.partition, p.events, p.source_offset) for p in replica.profiles("ann")] == [
            (0, 3, 3),
            (1, 5, 5),
        ]
        assert replica.profiles("bob") == replica.profiles("") == replica.profiles("\ud800") == ()
        folded(cluster.partitions[0], 4, partition=first)
        until(lambda: events(replica, "ann") == [7, 5])
        as_of = replica.as_of()
        assert as_of.source == "streamguard-state-changelog"
        assert [one.offset for one in as_of.positions] == [log.end for log in cluster.partitions]
        assert replica.counters().lag == 0 and replica.counters().checkpoints >= 3
    with pytest.raises(ReplicaNotReadyError):
        replica.profiles("ann")


def test_events_without_a_user_are_found_by_their_address(tmp_path: Path, cluster: Cluster) -> None:
    partition = Partition()
    partition.run([event(START, None, source_ip="2001:DB8::1")])
    cluster.partitions[0].commit(list(partition.saved.items()))
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        (found,) = replica.source_profiles("2001:0db8:0::1")
        assert (found.kind, found.user, found.events) == ("source", "2001:db8::1", 1)
        assert replica.profiles("2001:db8::1") == () and replica.users("", 10) == ()


def test_totals_are_those_of_plain_counting_and_follow_the_log(tmp_path: Path, cluster: Cluster) -> None:
    names = ["ann", "bob", "ann", "cid", "ann"]
    partition = Partition()
    values = [event(START + n, name) for n, name in enumerate(names)]
    partition.run([*values, event(START + 9, None, source_ip="192.0.2.1"), b"no event"])
    cluster.partitions[0].commit(list(partition.saved.items()))
    other = folded(cluster.partitions[1], 4)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        first, second = replica.totals()
        assert (first.partition, first.offset, first.events, first.users) == (0, 7, 6, 4)
        assert (second.partition, second.offset, second.events, second.users) == (1, 4, 4, 1)
        assert second.event_time == START + 3
        folded(cluster.partitions[1], 3, "zoe", partition=other)
        until(lambda: replica.totals()[1].offset == 7)
        assert (replica.totals()[1].events, replica.totals()[1].users) == (7, 2)
        assert replica.totals()[0] is first
    with pytest.raises(ReplicaNotReadyError):
        replica.totals()


def test_aged_out_profiles_and_too_many_are_not_counted(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = folded(cluster.partitions[0], 3)
    folded(cluster.partitions[0], 1, "bob", partition)
    folded(cluster.partitions[1], 1)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        copy = replica._follower.copies[0]
        forget_ms = Settings().detection.forget_ms
        counted = totals.partition_totals(copy, forget_ms)
        assert counted is not None and counted.users == 2
        nobody = totals.partition_totals(copy, -1)
        assert nobody is not None and (nobody.users, nobody.events) == (0, 4)
        monkeypatch.setattr(totals, "MAX_COUNTED", 1)
        too_many = totals.partition_totals(copy, forget_ms)
        assert too_many is not None and (too_many.users, too_many.events) == (None, 4)


def test_profiles_are_counted_as_of_one_moment_and_counting_ends_with_the_copy(
    tmp_path: Path, cluster: Cluster
) -> None:
    partition = folded(cluster.partitions[0], 3)
    folded(cluster.partitions[1], 1)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        copy = replica._follower.copies[0]
        with copy.frozen([b"m"]) as ((meta,), profiles):
            folded(cluster.partitions[0], 2, "bob", partition)
            until(lambda: events(replica, "bob") == [2])
            assert len(list(profiles)) == 1
            assert meta != partition.saved[b"m"]
        entered, failed = threading.Event(), threading.Event()

        def count() -> None:
            with copy.frozen([]) as (_, profiles):
                entered.set()
                poll_until(lambda: not copy.ready, PATIENCE, 0.002)
                try:
                    list(profiles)
                except NotReadyError:
                    failed.set()

        counting = threading.Thread(target=count)
        counting.start()
        assert entered.wait(PATIENCE)
    counting.join()
    assert failed.is_set()


def test_users_are_listed_page_by_page(tmp_path: Path, cluster: Cluster) -> None:
    for log, names in zip(cluster.partitions, (["ann", "eve", "zoë"], ["bob", "eve", "dan"]), strict=True):
        partition = Partition()
        partition.run([event(START + n, name) for n, name in enumerate(names)])
        log.commit(list(partition.saved.items()))
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        assert replica.users("", 3) == ("ann", "bob", "dan")
        assert replica.users("dan", 3) == ("eve", "zoë")
        assert replica.users("zoë", 3) == ()


def test_held_partitions_only(tmp_path: Path, cluster: Cluster) -> None:
    folded(cluster.partitions[0], 3)
    folded(cluster.partitions[1], 5)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
    with followed(tmp_path, [1]) as replica:
        until(lambda: replica.ready)
        assert events(replica, "ann") == [5]
    kept = [path.name for path in (tmp_path / "streamguard-state-changelog").iterdir()]
    assert kept == ["partition-0001"], "a partition that is not held could keep a forgotten user"
    asked = cluster.questions
    with pytest.raises(ConfigurationError, match="has only 2 partitions"), followed(tmp_path, [1, 2]):
        until(lambda: cluster.questions > asked)


def test_nothing_is_answered_before_the_topic_is_read(tmp_path: Path, cluster: Cluster) -> None:
    cluster.id = None
    with followed(tmp_path) as replica:
        until(lambda: cluster.questions > 2)
        assert not replica.ready
        with pytest.raises(ReplicaNotReadyError, match="has not read streamguard-state-changelog yet"):
            replica.profiles("ann")
        folded(cluster.partitions[0], 3)
        cluster.id = "first"
        until(lambda: replica.ready)
        assert events(replica, "ann") == [3]


def test_brokers_that_do_not_answer_are_asked_again(tmp_path: Path, cluster: Cluster) -> None:
    cluster.failing = [UnavailableError("no broker"), UnavailableError("no broker")]
    folded(cluster.partitions[0], 3)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        cluster.failing = [UnavailableError("no broker")] * 3
        until(lambda: not cluster.failing)
        assert replica.ready and events(replica, "ann") == [3], "an outage makes answers old, not absent"


def test_staleness_grows_while_no_broker_answers(tmp_path: Path, cluster: Cluster) -> None:
    with followed(tmp_path) as replica:
        until(lambda: replica.ready and replica.as_of().staleness_ms < 100)
        cluster.failing = [UnavailableError("no broker")] * 10**6
        until(lambda: replica.as_of().staleness_ms > 200)
        cluster.failing = []
        until(lambda: replica.as_of().staleness_ms < 100)


@pytest.mark.parametrize("longer", [False, True])
def test_topic_that_was_made_anew_is_read_from_its_beginning(
    tmp_path: Path, cluster: Cluster, longer: bool
) -> None:
    folded(cluster.partitions[0], 3)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready and events(replica, "ann") == [3])
        log = Changelog()
        for number in range(9 if longer else 1):
            folded(log, 1, user=f"user{number}")
        cluster.partitions, cluster.id = [log, Changelog()], "second"
        until(lambda: replica.counters().rebuilt == 2 and replica.ready)
        assert events(replica, "user0") == [1]
        assert events(replica, "ann") == [], "nothing of the old topic is left"


def test_records_that_were_deleted_unread_lead_to_a_new_copy(tmp_path: Path, cluster: Cluster) -> None:
    log = cluster.partitions[0]
    folded(log, 3)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        cluster.partitions[0] = Changelog(start=log.end + 5)
        until(lambda: replica.counters().rebuilt == 1)
        assert not replica.ready, "the beginning of the changelog is gone"
        cluster.partitions[0] = log  # as after a restored backup
        until(lambda: replica.ready)
        assert events(replica, "ann") == [3]


@pytest.mark.parametrize("method", ["get_many", "write"])
def test_copy_that_is_found_damaged_is_read_again(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    partition = folded(cluster.partitions[0], 3)
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        copy = replica._follower.copies[0]
        directory = tmp_path / replica.topic / "partition-0000"

        def damaged(*_: object) -> None:
            (directory / "DAMAGED").touch()
            raise DamagedCopyError(directory, "Corruption: block checksum mismatch")

        monkeypatch.setattr(copy._store, method, damaged)
        if method == "get_many":
            with pytest.raises(ReplicaNotReadyError, match="partition 0"):
                replica.profiles("ann")
        folded(cluster.partitions[0], 1, partition=partition)
        until(lambda: replica.ready and replica._follower.copies[0] is not copy)
        assert events(replica, "ann") == [4] and replica.counters().rebuilt == 1
