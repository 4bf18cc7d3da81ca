"""Addresses and the crowd in the replica: against counts in plain Python over the same events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamguard.events.event_time import epoch_ms
from streamguard.serving.peers.holders import Holders
from streamguard.serving.peers.sources import SourceStates
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.sources import SourceQueries
from streamguard.serving.replica.replica import Replica
from streamguard.serving.results.batch import BatchResults
from streamguard.state.partition import META
from tests.changelogs import Cluster
from tests.serving_stores import filled
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event
from tests.unit.test_serving_replica_follow import cluster, followed, until

__all__ = ["cluster"]

ADDRESS = "2001:db8::7"
SPELLED = "2001:0DB8:0:0::7"


def attacked(then: Sequence[bytes] = ()) -> Partition:
    """A day of habits from other addresses; then one address fails for six users, and succeeds for one of them.

    Parameters
    ----------
    then
        Events that follow.
    """
    values = [
        event(START + k * 5 * MINUTE, f"user-{k % 9}", source_ip=f"10.0.0.{k % 9}", status="success")
        for k in range(280)
    ]
    late = START + DAY
    values += [
        event(late + k * 1000, f"user-{k % 6}", source_ip=SPELLED, status="failed", event_type="auth_attempt")
        for k in range(18)
    ]
    values.append(
        event(late + 18_000, "user-1", source_ip=SPELLED, status="success", event_type="auth_attempt")
    )
    partition = Partition()
    partition.run([*values, *then])
    return partition


def answered(tmp_path: Path, cluster: Cluster) -> Replica:
    """A replica of the attacked partition and of an empty one, of which the copies are still open."""
    cluster.partitions[0].commit(list(attacked().saved.items()))
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        yield replica


@pytest.fixture
def replica(tmp_path: Path, cluster: Cluster):  # type: ignore[no-untyped-def]
    yield from answered(tmp_path, cluster)


def test_failing_address_is_found_in_any_spelling_with_its_users(replica: Replica) -> None:
    for spelling in (ADDRESS, SPELLED):
        (found,) = replica.failing(spelling)
        assert (found.partition, found.address, found.source_offset) == (0, ADDRESS, 299)
        # Failures of 18 seconds ago have lost half a percent: their half-life is an hour.
        assert found.failures == pytest.approx(18, rel=0.01) and found.successes == pytest.approx(1, rel=0.01)
        # Linear counting in 256 bits: six users take six bits, or fewer if two share one.
        assert 4.5 < found.failed_users < 6.5 and 0.9 < found.succeeded_users < 1.1
        assert found.open_incident is not None and found.open_incident.count >= 1
        assert found.open_incident.id.startswith("0-2")
    (listed,) = replica.failing()
    assert listed.failures == found.failures
    assert listed.address in (ADDRESS, None)
    assert replica.failing("10.0.0.1") == replica.failing("no address") == replica.failing("") == ()


def test_failing_address_was_seen_at_its_own_event_and_has_no_negative_users(
    tmp_path: Path, cluster: Cluster
) -> None:
    failed = START + DAY + 10 * MINUTE
    partition = attacked(
        [
            event(failed, "user-1", source_ip="192.0.2.9", status="failed", event_type="auth_attempt"),
            event(failed + 5 * MINUTE, "user-2", source_ip="10.0.0.2", status="success"),
        ]
    )
    cluster.partitions[0].commit(list(partition.saved.items()))
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        (found,) = replica.failing("192.0.2.9")
    assert epoch_ms(found.last_seen) == failed
    assert str(found.succeeded_users) == "0.0"


def test_crowd_has_every_event_and_its_hours(replica: Replica) -> None:
    (found,) = replica.crowds()
    assert (found.partition, found.source_offset, found.events) == (0, 299, 299)
    rates = {one.name: one for one in found.rates}
    # Six users fail three times each; repetitions count once, and 18 seconds are little of 5 minutes.
    assert rates["failure"].events == pytest.approx(6, rel=0.05)
    assert all(one.usual > 0 for one in rates.values())
    assert rates["failure"].events > rates["failure"].usual
    hours = Counter((START + k * 5 * MINUTE) // HOUR for k in range(280))
    assert sum(found.hours.shares) == pytest.approx(1.0, abs=0.01)
    busy = [hour for hour, share in enumerate(found.hours.shares) if share > 0.001]
    assert len(busy) >= len(hours) - 1
    assert 0 < found.failure_share < 18 / 299 + 0.01


def test_partitions_that_others_hold_are_named(tmp_path: Path, cluster: Cluster) -> None:
    for partition in cluster.partitions:
        partition.commit(list(attacked().saved.items()))
    store = filled(tmp_path / "store", ())
    service = QueryService(store)
    for held, missing in (([0], "partition 1 "), ([1], "partition 0 "), (None, "")):
        with followed(tmp_path / "replica", held) as replica:
            until(lambda: replica.ready)
            sources = SourceQueries(
                store, service.incidents, service.totals, SourceStates(Holders(replica)), BatchResults(None)
            )
            listed, found, crowd = sources.listed(), sources.source(ADDRESS), sources.crowd()
            known = held or [0, 1]
            for one in (listed, found, crowd):
                assert one.live_missing.startswith(missing) and bool(one.live_missing) == bool(missing)
            assert (
                {one.partition for one in listed.failing}
                == {one.partition for one in found.failing}
                == {*known}
            )
            assert [one.partition for one in crowd.partitions] == known
            if held is None:
                with pytest.raises(NotFoundError):
                    sources.source("192.0.2.1")
            else:
                unknown = sources.source("192.0.2.1")
                assert not unknown.failing and unknown.live_missing.startswith(missing)
    store.close()


def test_state_of_another_version_is_an_answer(tmp_path: Path, cluster: Cluster) -> None:
    from streamguard.serving.replica.lookup import UnreadableProfileError

    saved = attacked().saved
    version, offset = META.unpack_from(saved[b"m"])
    saved[b"m"] = META.pack(version + 7, offset) + saved[b"m"][META.size :]
    saved[b"p"] = b"\x01\x02\x03\x04"
    cluster.partitions[0].commit(list(saved.items()))
    with followed(tmp_path) as replica:
        until(lambda: replica.ready)
        for ask in (replica.crowds, replica.failing, replica.totals):
            with pytest.raises(UnreadableProfileError, match="partition 0 of the state changelog"):
                ask()
