"""State of a partition: time, offsets, versions, learning, and memory that stays bounded under any flood."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from streamguard.fold import profile as layout
from streamguard.settings.schema import Detection
from streamguard.state.codec import StateError, pack, unpack
from streamguard.state.partition import PartitionState
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event, fold_one, habit

FAR = START + 30 * 365 * DAY
HOME = {"source_ip": "10.3.0.1", "status": "success"}


def after(*values: bytes, base: Iterable[bytes] = ()) -> Partition:
    partition = Partition()
    partition.run([*base, *values])
    return partition


# ---- time ----------------------------------------------------------------------------------------------------------


def test_single_far_future_event_does_not_move_the_clock() -> None:
    base = habit(100)
    now = START + 100 * 20_000
    quiet = after(event(now, "user3", **HOME), event(now + 1, "user4"), base=base)
    partition = after(event(FAR, "user3", **HOME), event(now + 1, "user4"), base=base)
    assert partition.population["clock"] == now + 1
    assert partition.population["ahead"] == 0
    assert partition.profile("user3")["last_ts"] == FAR
    assert partition.population["scores_total"] == pytest.approx(quiet.population["scores_total"], abs=1)


def test_two_events_days_ahead_move_the_clock_to_the_earlier() -> None:
    partition = after(event(START + 9 * DAY, "user3"), event(START + 4 * DAY, "user4"), base=habit(100))
    assert partition.population["clock"] == START + 4 * DAY


@pytest.mark.parametrize(("count", "moved"), [(99, False), (100, True)])
def test_hundred_events_of_one_user_move_the_clock_years_ahead(count: int, moved: bool) -> None:
    partition = after(*[event(FAR + k, "user3") for k in range(count)], base=habit(100))
    assert (partition.population["clock"] >= FAR) == moved


def test_two_users_move_the_clock_years_ahead() -> None:
    partition = after(event(FAR, "user3"), event(FAR - 5 * DAY, "user4"), base=habit(100))
    assert partition.population["clock"] == FAR - 5 * DAY


def test_misled_clock_comes_back_with_its_users() -> None:
    astray = [event(FAR + k, "user3", **HOME) for k in range(100)]
    back = [event(START + HOUR + k * 1000, f"user{k % 5}", **HOME) for k in range(400)]
    partition = after(*astray, *back, base=habit(100))
    assert partition.population["clock"] == START + HOUR + 399_000
    assert partition.profile("user3")["last_ts"] <= START + HOUR + 399_000


def test_clock_follows_the_earlier_of_two_events_far_ahead() -> None:
    """The first event is three days ahead, the second thirty years: the clock moves three days."""
    partition = after(event(START + 3 * DAY, "user3"), event(FAR, "user4"), base=habit(100))
    assert partition.population["clock"] == START + 3 * DAY


def test_quiet_partition_continues_after_days() -> None:
    values = [event(START + 10 * DAY + k * MINUTE, "user3", **HOME) for k in range(3)]
    partition = after(*values, base=habit(100))
    assert partition.population["clock"] == START + 10 * DAY + 2 * MINUTE
    assert partition.profile("user3")["last_ts"] == START + 10 * DAY + 2 * MINUTE


@pytest.mark.parametrize("late", [1, HOUR, 40 * DAY, 20 * 365 * DAY])
def test_late_event_moves_no_time_backward(late: int) -> None:
    base = habit(200)
    now = START + 200 * 20_000
    plain, partition = (
        after(event(now, "user3"), base=base),
        after(event(now, "user3"), event(now - late, "user3"), base=base),
    )
    before, kept = plain.profile("user3"), partition.profile("user3")
    for name in ("last_ts", "first_ts", "active_ms", "last_area_ts", "last_failure_ts", "last_day"):
        assert kept[name] == before[name], name
    assert (kept["count"] == before["count"] + 1).all()
    assert kept["active_days"] == before["active_days"]
    assert partition.population["clock"] == plain.population["clock"]
    assert partition.population["age"] == plain.population["age"]


def test_events_at_the_same_moment_are_counted_without_ageing() -> None:
    partition = after(*[event(START, "ann", **HOME)] * 10)
    assert partition.profile("ann")["count"].tolist() == [10.0] * 4
    assert partition.profile("ann")["events"] == 10


def attacked(values: list[bytes]) -> float:
    """Share of ordinary events that are alerted after the given events."""
    start, partition = START + 4000 * 20_000, Partition()
    partition.run([*habit(4000), *values])
    after_it = habit(4000, start=start, seed=9)
    kinds = [
        partition.state.fold(after_it[a : a + 500], np.arange(a, a + 500) + 10_000).kind
        for a in range(0, 4000, 500)
    ]
    return float(np.mean(np.concatenate(kinds) != 0))


def test_single_far_future_event_causes_no_false_alerts() -> None:
    assert attacked([event(FAR, "mallory")]) <= attacked([]) + 0.002


def test_two_far_future_events_cause_no_false_alerts() -> None:
    assert attacked([event(FAR, "mallory")] * 2) <= 0.01


def test_far_future_first_event_does_not_stop_the_clock() -> None:
    partition = Partition()
    partition.run([event(FAR, "mallory"), *habit(2000)])
    assert partition.population["clock"] < FAR
    assert partition.population["age"] > 0


def test_one_sender_cannot_move_the_clock_step_by_step() -> None:
    """Steps of twenty hours, each within a day of the previous one, among the events of all other users."""
    honest = habit(8000)
    walk = [event(START + k * 20 * HOUR, "mallory") for k in range(1, 20)]
    values = [
        v for k, v in enumerate(honest) for v in ([walk[k // 400 - 1], v] if k % 400 == 0 and k else [v])
    ]
    partition = Partition()
    partition.run(values)
    assert partition.population["clock"] < START + 8000 * 20_000 + DAY


# ---- offsets -------------------------------------------------------------------------------------------------------


def test_offset_is_never_folded_twice() -> None:
    detection = Detection(alert_risk=0.0)
    once, twice = Partition(detection=detection), Partition(detection=detection)
    values = habit(50)
    once.run(values)
    twice.run(values)
    again = twice.state.fold(values, np.arange(50))
    twice.save()
    assert twice.saved == once.saved
    assert again.incidents == []
    assert again.score.tolist() == [-1.0] * 50
    for name in ("features", "raw", "excess", "tail", "patterns", "evidence", "kind"):
        assert not getattr(again, name).any(), name


def test_refused_records_count_as_read() -> None:
    partition = Partition()
    partition.state.fold([event(START), b"?", None], np.array([4, 5, 6]))
    assert partition.state.next_offset == 7


def test_offsets_may_have_gaps() -> None:
    """Transaction markers and compaction leave gaps."""
    partition = Partition()
    partition.state.fold([event(START), event(START)], np.array([4, 900]))
    partition.save()
    assert partition.profile("ann")["last_offset"] == 900
    assert Partition(partition.saved).state.next_offset == 901


def test_empty_chunk_changes_nothing() -> None:
    partition = Partition()
    assert partition.state.fold([], np.empty(0, np.int64)).count == 0
    assert partition.state.next_offset is None
    assert partition.state.changes() == []


# ---- versions ------------------------------------------------------------------------------------------------------


def test_other_layout_version_is_refused() -> None:
    partition = after(event(START))
    saved = {**partition.saved, b"m": struct.pack("<Iq", layout.VERSION + 1, 1)}
    with pytest.raises(
        StateError, match=rf"layout {layout.VERSION + 1}, .* layout {layout.VERSION}: .*from the beginning"
    ):
        Partition(saved)


def test_checkpoint_without_an_identity_is_loaded_and_gets_one_with_the_next() -> None:
    saved = dict(after(event(START)).saved)

    def loaded() -> PartitionState:
        return PartitionState(
            0,
            lambda keys: [saved.get(key) for key in keys],
            resident=100,
            detection=Detection(),
            identity=b"here",
        )

    state = loaded()
    assert (state.next_offset, state.stored_identity) == (1, b"")
    saved.update(state.changes())
    state = loaded()
    assert (state.next_offset, state.stored_identity) == (1, b"here")


def test_population_of_another_size_is_refused() -> None:
    partition = after(event(START))
    with pytest.raises(StateError, match=r"partition 0.*from the beginning"):
        Partition({**partition.saved, b"p": shortened(partition.saved[b"p"])})


def shortened(value: bytes) -> bytes:
    """A stored array without its last eight bytes."""
    return pack(unpack(value, np.dtype(np.uint8), "value")[:-8])


@pytest.mark.parametrize(
    "damage", [lambda v: v[:-3], lambda v: v[:4] + b"\xff" * 40, lambda v: b"\xff\xff\xff\x7f" + v[4:]]
)
def test_damaged_value_is_refused(damage: Callable[[bytes], bytes]) -> None:
    saved = after(event(START)).saved
    other = Partition({**saved, b"uann": damage(saved[b"uann"])})
    with pytest.raises(StateError, match=r"profile in partition 0.*from the beginning"):
        fold_one(other, event(START), 1)


def test_profile_of_another_size_is_refused() -> None:
    saved = after(event(START)).saved
    other = Partition({**saved, b"uann": shortened(saved[b"uann"])})
    with pytest.raises(StateError, match=r"profile in partition 0.*from the beginning"):
        fold_one(other, event(START), 1)


# ---- memory --------------------------------------------------------------------------------------------------------


class Sink(dict[bytes, bytes]):
    """Keeps what is saved except profiles."""

    def update(self, changes: Any) -> None:  # type: ignore[override]
        for key, value in changes:
            if not key.startswith(b"u"):
                self[key] = value


def test_flood_of_users_and_addresses_stays_within_bounds() -> None:
    """200,000 events, each of a new user and a new address, with a cache of 2,000 profiles."""
    random = np.random.default_rng(0)
    partition = Partition(Sink(), resident=2000)
    for a in range(0, 200_000, 500):
        addresses = random.integers(0, 256, (500, 4))
        values = [
            event(START + a + k, f"user{a + k}", source_ip=".".join(map(str, address)), status="failed")
            for k, address in enumerate(addresses)
        ]
        partition.state.fold(values, np.arange(a, a + 500))
        assert partition.state.resident <= 2000
        if partition.state.full:
            partition.save()
    partition.save()
    assert len(partition.saved) <= 256 + 64 + 256 + 2
    assert sum(map(len, partition.saved.values())) < 4_000_000
    assert max(map(len, partition.saved.values())) < 1_000_000
    assert len(fold_one(partition, event(START, "user0"), 10**6).events) == 1


def test_flood_of_addresses_keeps_size_and_habits_of_a_profile() -> None:
    base = [event(START + k * HOUR, "ann", source_ip="10.0.0.1", status="success") for k in range(300)]
    flood = [
        event(START + 300 * HOUR + k, "ann", source_ip=f"198.{k >> 8 & 255}.{k & 255}.1", status="failed")
        for k in range(20_000)
    ]
    partition = after(*flood, base=base)
    assert len(partition.saved[b"uann"]) <= layout.PROFILE.itemsize
    kept = partition.profile("ann")
    assert kept["sketch_weight"][0].max() > 100
    home = fold_one(
        partition, event(START + 301 * HOUR, "ann", source_ip="10.0.0.1", status="success"), 20_300
    )
    assert home.raw[0, 0] < 5.0


def test_more_users_than_resident_profiles_is_reported() -> None:
    state = PartitionState(0, lambda keys: [None] * len(keys), resident=10, detection=Detection())
    with pytest.raises(StateError, match=r"worker\.resident_profiles"):
        state.fold([event(START, f"user{k}") for k in range(11)], np.arange(11))


def test_state_is_full_in_time_for_a_checkpoint() -> None:
    partition = Partition(resident=10)
    partition.state.fold([event(START, f"user{k}") for k in range(5)], np.arange(5))
    assert partition.state.full
    partition.save()
    assert not partition.state.full


def test_large_counters_keep_counting() -> None:
    """Counters and totals are float64, so the events of a busy account are still counted beyond 2**24."""
    partition = after(*[event(START + k, "job", **HOME) for k in range(10)])
    kept = unpack(partition.saved[b"ujob"], layout.PROFILE, "profile").copy()
    kept["count"], kept["sketch_total"], kept["learned"] = 2.0**25, 2.0**25, 2.0**25
    partition.saved[b"ujob"] = pack(kept)
    again = Partition(partition.saved)
    again.run([event(START, "job", **HOME)] * 18, start=10)
    assert again.profile("job")["count"].tolist() == [2.0**25 + 8] * 4
    assert again.profile("job")["sketch_total"][0] > 2.0**25


def test_large_sketch_weights_keep_growing() -> None:
    partition = after(*[event(START + k, "job", **HOME) for k in range(10)])
    kept = unpack(partition.saved[b"ujob"], layout.PROFILE, "profile").copy()
    kept["sketch_weight"][0, :, 0] = 2.0**24
    partition.saved[b"ujob"] = pack(kept)
    again = Partition(partition.saved)
    again.run([event(START + 20, "job", **HOME)] * 18, start=10)
    assert again.profile("job")["sketch_weight"][0, 0] > 2.0**24


# ---- learning ------------------------------------------------------------------------------------------------------


def visits(n: int, start: int, step: int, source: str) -> list[bytes]:
    place = {"geo_location": "US-Ohio", "hostname": "kali"}
    return [
        event(start + step * k, "user3", source_ip=source, status="success", metadata=place) for k in range(n)
    ]


def test_profile_is_not_poisoned_within_an_hour() -> None:
    """The first hour of an intruder hardly changes the usual values of the user."""
    base, now = habit(6000), START + 6000 * 20_000
    partition = after(*visits(60, now, MINUTE, "203.0.113.9"), base=base)
    kept = partition.profile("user3")
    places = dict(zip(kept["sketch_hash"][1].tolist(), kept["sketch_weight"][1].tolist(), strict=True))
    assert sum(weight for weight in places.values()) - max(places.values()) < 0.2 * max(places.values())


def test_profile_adapts_to_a_new_place_of_work() -> None:
    """After weeks, a new place of work is as usual as the old one, even if its first events were alerted."""
    base, now = habit(6000), START + 6000 * 20_000
    others = habit(4000, start=now, step=12 * MINUTE, seed=4)
    moved = visits(400, now + 1, 2 * HOUR, "203.0.113.9")
    stamp = {value: int(value[13:26]) for value in others + moved}
    partition = Partition()
    folded = list(partition.chunks(sorted(others + moved + base, key=lambda v: stamp.get(v, 0))))
    last = folded[-1]
    mine = [k for k, e in enumerate(last.events) if e.source_ip == "203.0.113.9"]
    assert mine
    assert last.raw[mine, 0].mean() < 3.0
    assert (last.kind[mine] == 0).all()


def test_risk_matches_its_share_of_ordinary_traffic() -> None:
    """Risk 66.7 is one event in a hundred, risk 75 one in a thousand, of traffic without attacks."""
    partition = Partition()
    tails = np.concatenate([f.tail for f in partition.chunks(habit(120_000, step=5000), chunk=1000)])[60_000:]
    assert 0.5e-2 < np.mean(tails >= math.log2(100)) < 2e-2
    assert 0.4e-3 < np.mean(tails >= math.log2(1000)) < 2.5e-3
