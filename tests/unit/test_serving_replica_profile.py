"""A user in human terms, against counts in plain Python over the same events."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import numba
import numpy as np
import pytest

from streamguard.alerts.incident import rfc3339
from streamguard.compute.arithmetic import LN2
from streamguard.events.decision import Decision
from streamguard.events.event import Value
from streamguard.events.subject import profile_key, subject_of
from streamguard.fold import patterns
from streamguard.fold.dimensions import HALF_LIVES
from streamguard.fold.present import bring_to_clock
from streamguard.fold.profile import PROFILE
from streamguard.serving.replica.description import LISTED, REST, user_profile
from streamguard.serving.replica.lookup import UnreadableProfileError, stored_user
from streamguard.serving.replica.profile import UserProfile, Usual
from streamguard.serving.replica.rates import usual_counter
from streamguard.settings.schema import Detection
from streamguard.state.codec import pack
from streamguard.state.decisions import id_hash
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.partition import META
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event

DETECTION = Detection()
GAP_MS = round(DETECTION.incident_gap_seconds * 1000)


def described(partition: Partition, user: str = "ann") -> UserProfile | None:
    """What a replica of the partition's last checkpoint answers."""
    key = profile_key(subject_of(user, ""))
    found = stored_user(_read(partition), 0, key, user, DETECTION.forget_ms)
    return None if found is None else user_profile(found, key, GAP_MS)


def _read(partition: Partition) -> Any:
    return lambda keys: [partition.saved.get(key) for key in keys]


def known(partition: Partition, user: str = "ann") -> UserProfile:
    found = described(partition, user)
    assert found is not None
    assert msgspec.json.decode(msgspec.json.encode(found), type=UserProfile) == found, "the answer is JSON"
    return found


def after(values: list[Value], start: list[bytes] | None = None) -> Partition:
    """A partition that has folded these values."""
    partition = Partition()
    partition.run(start or [])
    offset = len(start or [])
    partition.state.fold(values, np.arange(offset, offset + len(values)))
    partition.save()
    return partition


def field(profile: UserProfile, name: str) -> Usual:
    (found,) = (usual for usual in profile.usual if usual.field == name)
    return found


def work(seed: int, hosts: int = 3) -> list[dict[str, Any]]:
    """Nine days of a person's work as plain fields, in order of time."""
    random = np.random.default_rng(seed)
    out = []
    for day in range(9):
        if day % 7 >= 5:
            continue
        for _ in range(60):
            at = START + day * DAY + 8 * HOUR + int(random.integers(9 * HOUR))
            home = random.random() < 0.3
            out.append(
                {
                    "at": at,
                    "source": "10.1.0.7" if home else "10.2.0.9",
                    "place": "DE-Bonn" if home else "DE-Berlin",
                    "host": f"laptop-{int(random.integers(hosts))}",
                }
            )
    return sorted(out, key=lambda one: one["at"])


def encoded(plain: list[dict[str, Any]], user: str = "ann") -> list[bytes]:
    return [
        event(
            one["at"],
            user,
            source_ip=one["source"],
            status="success",
            metadata={"geo_location": one["place"], "hostname": one["host"]},
        )
        for one in plain
    ]


def test_shares_hours_and_counts_are_those_of_the_events() -> None:
    plain = work(seed=1)
    profile = known(after(list(encoded(plain))))
    n = len(plain)
    assert (profile.user, profile.kind, profile.partition) == ("ann", "user", 0)
    assert (profile.events, profile.source_offset, profile.topic) == (n, n, None)
    assert profile.first_seen == rfc3339(plain[0]["at"])
    assert profile.last_seen == profile.event_time == rfc3339(plain[-1]["at"])
    assert profile.active_days == len({one["at"] // DAY for one in plain}) == 7
    assert (profile.failure_share, profile.failures_in_a_row, profile.maturity) == (0.0, 0, "known")
    for name, key in (("source", "source"), ("location", "place"), ("host", "host")):
        counts = Counter(one[key] for one in plain).most_common()
        usual = field(profile, name)
        assert usual.rest is None and usual.no_longer_kept == 0.0
        assert {one.value: one.share for one in usual.values} == pytest.approx(
            {value: count / n for value, count in counts}, abs=0.04
        )
        assert usual.values[0].value == counts[0][0]
        assert sum(one.share for one in usual.values) == pytest.approx(1.0, abs=1e-3)
        assert sum(one.events for one in usual.values) == pytest.approx(n, rel=0.2)
    # An hour with events counts once, and the last one is not over yet.
    hours = sorted({one["at"] // HOUR for one in plain})[:-1]
    weekly = Counter(_hour_of_week(hour) for hour in hours)
    expected = [weekly[hour] / len(hours) for hour in range(168)]
    assert list(profile.hours.shares) == pytest.approx(expected, abs=0.01)
    assert [share > 0 for share in profile.hours.shares] == [share > 0 for share in expected]
    assert profile.hours.words.endswith("UTC, 0% at weekends")
    assert profile.unusual_now == () and profile.open_incident is None and profile.decisions == ()


def _hour_of_week(hour: int) -> int:
    moment = datetime.fromtimestamp(hour * 3600, UTC)
    return moment.weekday() * 24 + moment.hour


def test_rates_are_those_of_the_events() -> None:
    step = 10 * MINUTE
    values = [event(START + n * step, status="success", source_ip="10.1.0.7") for n in range(6 * 24 * 60)]
    profile = known(after(list(values)))
    assert profile.events_a_day == pytest.approx(144, rel=0.02)
    for rate, half_life in zip(profile.rates, HALF_LIVES, strict=False):
        assert rate.half_life_seconds == half_life
        if half_life > 600:
            assert rate.usual_events == pytest.approx(half_life / LN2 / 600, rel=0.02)
            assert rate.events == pytest.approx(rate.usual_events, rel=0.3)
    assert profile.interval is not None
    assert profile.interval.value == pytest.approx(600, rel=0.01)
    assert profile.interval.words == "10 minutes between events"


def test_values_beyond_the_listed_ones_are_summed_up() -> None:
    plain = work(seed=2, hosts=40)
    hosts = field(known(after(list(encoded(plain)))), "host")
    assert len(hosts.values) == LISTED
    assert hosts.rest is not None and hosts.rest.value == REST
    assert sum(one.share for one in hosts.values) + hosts.rest.share == pytest.approx(1.0, abs=1e-3)
    assert hosts.no_longer_kept > 100, "a sketch keeps 16 values of 40"


def test_value_without_a_stored_text_is_an_older_one() -> None:
    partition = after(list(encoded(work(seed=1))))
    for key in [key for key in partition.saved if key[:1] == b"w"]:
        del partition.saved[key]
    assert {one.value for one in field(known(partition), "source").values} == {"an older value"}


def test_rates_and_suspicion_fade_until_the_clock_of_the_partition() -> None:
    habits = encoded(work(seed=1))
    now = work(seed=1)[-1]["at"] + MINUTE
    burst: list[Value] = [
        event(now + n * 100, source_ip="203.0.113.9", status="failed", metadata={"geo_location": "XX"})
        for n in range(40)
    ]
    fresh = known(after(burst, habits))
    assert fresh.failures_in_a_row == 40
    assert fresh.rates[0].failures == pytest.approx(40, rel=0.02)
    shown = " ".join(fresh.unusual_now)
    assert "40 events failed in a row" in shown and "of the user's events fail" in shown
    assert "40 failures in 5 minutes" in shown
    assert "A source that is hardly known is under suspicion" in shown
    assert fresh.open_incident is not None and fresh.open_incident.id in shown
    # Another user's event, five minutes and then two days later, moves the clock; nothing of ann is stored again.
    later = known(after([*burst, event(now + 3900 + 5 * MINUTE, "bob")], habits))
    assert later.rates[0].failures == pytest.approx(20, rel=0.05)
    assert later.last_seen == fresh.last_seen and later.event_time > fresh.event_time
    last = known(after([*burst, *(event(now + 2 * DAY + n, f"user{n}") for n in range(3))], habits))
    assert last.rates[0].failures < 1e-3 and last.rates[2].failures == pytest.approx(10, rel=0.1)
    assert last.open_incident is None and last.failures_in_a_row == 40
    assert last.unusual_now == ()


@pytest.mark.parametrize(
    ("operation", "words"), [("read", "files read in 5 minutes"), ("write", "files changed in 5 minutes")]
)
def test_files_in_bulk_are_unusual(operation: str, words: str) -> None:
    now = work(seed=1)[-1]["at"] + MINUTE
    details = {"file_path": "/srv/a/x", "operation": operation}
    files: list[Value] = [
        event(now + n * 100, kind="file_access", source_ip="10.1.0.7", file_details=details)
        for n in range(80)
    ]
    sentences = known(after(files, encoded(work(seed=1)))).unusual_now
    assert any(words in sentence for sentence in sentences), sentences
    assert any(
        sentence.startswith("The user did things that no user had done before") for sentence in sentences
    )
    assert any(re.fullmatch(r"About 8\d events in 5 minutes; 0\.\d+ are usual\.", one) for one in sentences)


def test_decisions_in_force_name_their_values() -> None:
    habits = encoded(work(seed=1))
    clock = work(seed=1)[-1]["at"]

    def decision(number: int, kind: str, value: str, until: int = 0, user: str = "ann") -> Decision:
        return Decision(
            version=1,
            id=f"0-{number:024x}",
            decision=kind,  # type: ignore[arg-type]
            user=user,
            field="source",
            value=value,
            until=until,
        )

    partition = after(
        [
            decision(1, "expected", "10.1.0.7", clock + DAY),
            decision(2, "expected", "10.2.0.9", clock - DAY),
            decision(3, "attack", "203.0.113.9"),
            decision(4, "attack", "10.2.0.9", user="bob"),
        ],
        habits,
    )
    found = {one.id_hash: one for one in known(partition).decisions}
    first, third = (id_hash(f"0-{n:024x}").to_bytes(8, "little").hex() for n in (1, 3))
    assert found.keys() == {first, third}
    assert (found[first].decision, found[first].field, found[first].value) == (
        "expected",
        "source",
        "10.1.0.7",
    )
    assert found[first].until == rfc3339((clock + DAY) // 1000 * 1000)
    assert (found[third].decision, found[third].value, found[third].until) == (
        "attack",
        "an older value",
        None,
    )


def test_user_and_address_of_the_same_name_are_two() -> None:
    values: list[Value] = [event(START, "10.0.0.1"), event(START + 1, None, source_ip="10.0.0.1")]
    partition = after(values)
    assert known(partition, "10.0.0.1").kind == "user"
    key = profile_key(subject_of("", "10.0.0.1"))
    found = stored_user(_read(partition), 0, key, "", DETECTION.forget_ms)
    assert found is not None
    source = user_profile(found, key, GAP_MS)
    assert (source.kind, source.user, source.events) == ("source", "10.0.0.1", 1)


def test_young_profile_is_hardly_known() -> None:
    one = known(after([event(START)]))
    assert (one.maturity, one.interval, one.volume, one.hours.words) == (
        "hardly known",
        None,
        None,
        "nothing known yet",
    )
    assert known(after([event(START + n * HOUR) for n in range(10)])).maturity == "partly known"


def test_profile_that_has_aged_out_is_none_and_an_unknown_user_too() -> None:
    partition = after([event(START)])
    assert described(partition, "bob") is None
    found = described(partition)
    assert found is not None
    key = profile_key("ann")
    population = partition.population.copy()
    population["active_ms"] += DETECTION.forget_ms + 2 * HOUR
    partition.saved[b"p"] = pack(np.atleast_1d(population))
    assert stored_user(_read(partition), 0, key, "ann", DETECTION.forget_ms) is None


def test_topic_is_that_of_the_checkpoint() -> None:
    partition = after([event(START)])
    partition.saved[b"m"] += StateIdentity("app", 0, TopicIdentity("events", "s"), "log").encoded()
    assert known(partition).topic == "events"


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"m", META.pack(99, 1)), (b"m", b"1"), (b"m", META.pack(3, 1) + b"{"), (b"p", b"1"), (b"uann", b"1")],
)
def test_state_of_another_version_is_refused_by_name(key: bytes, value: bytes) -> None:
    partition = after([event(START)])
    partition.saved[key] = value
    with pytest.raises(UnreadableProfileError, match="partition 0 of the state changelog cannot be read"):
        described(partition)


def test_state_before_its_first_checkpoint_has_no_users() -> None:
    partition = after([event(START)])
    del partition.saved[b"m"]
    assert described(partition) is None


@numba.njit
def _usual(profiles, month):  # type: ignore[no-untyped-def]
    return patterns.usual(profiles[0], month)


def test_usual_number_is_that_of_the_patterns() -> None:
    partition = after(list(encoded(work(seed=1))))
    profile = np.atleast_1d(partition.profile("ann"))
    assert usual_counter(profile[0], 7.0, HALF_LIVES[0]) * patterns.RUSH == pytest.approx(
        _usual(profile, 7.0), rel=1e-9
    )


def test_profile_at_the_clock_is_what_the_next_event_finds() -> None:
    """The fold decays a profile before it learns an event; so do readers, at the clock."""
    habits = encoded(work(seed=1))
    at = work(seed=1)[-1]["at"] + 3 * HOUR
    partition = after([event(at, "bob")], habits)
    aged, population = np.atleast_1d(partition.profile("ann")).copy(), np.atleast_1d(partition.population)
    bring_to_clock(aged, population)
    again = aged.copy()
    bring_to_clock(again, population)
    partition.state.fold([event(at, "ann")], np.array([len(habits) + 1]))
    partition.save()
    learned = partition.profile("ann")
    assert aged.dtype == PROFILE
    np.testing.assert_allclose(aged["count"][0] + 1.0, learned["count"], rtol=1e-12)
    assert aged["count"][0, 0] < 1e-9
    np.testing.assert_array_equal(aged["pattern_days"][0], learned["pattern_days"])
