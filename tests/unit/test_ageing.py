"""What silence, wrong clocks and forged times take from a partition: at most a day, whatever they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamguard.fold.ageing import TOO_MANY_LATE
from streamguard.fold.dimensions import MONTH
from streamguard.settings.schema import Detection
from tests.incidents import bodies
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event, habit

FAR = START + 70 * 365 * DAY
N = 6000
END = START + N * 20_000
"""The history of the tests: 6,000 logins of 20 users in 33 hours."""

A_DAY = 2.0 ** (-86_400.0 / MONTH)
"""What a day leaves of a value with a half-life of a month."""


@pytest.fixture(scope="module")
def saved() -> dict[bytes, bytes]:
    partition = Partition()
    partition.run(habit(N))
    return partition.saved


def after(saved: dict[bytes, bytes], values: list[bytes]) -> Partition:
    partition = Partition(dict(saved))
    for k in range(0, len(values), 500):
        part = values[k : k + 500]
        partition.state.fold(part, np.arange(len(part)) + N + k)
    partition.save()
    return partition


def remembered(partition: Partition) -> dict[str, float]:
    p = partition.population
    return {name: float(p[name]) for name in ("learned", "hours_total", "scores_total", "age", "slow_plain")}


def rest(partition: Partition, of: dict[bytes, bytes]) -> float:
    """The smallest share of what the partition remembered that is left."""
    before, now = remembered(Partition(of)), remembered(partition)
    return min(now[name] / before[name] for name in before)


def forged(n: int, users: tuple[str, ...] = ("mallory", "eve"), step: int = DAY) -> list[bytes]:
    return [event(FAR + k * step, users[k % len(users)]) for k in range(n)]


def live(n: int, start: int = END) -> list[bytes]:
    return habit(n, start=start, seed=3)


def test_two_forged_events_of_the_next_century_take_a_day_and_no_more(saved: dict[bytes, bytes]) -> None:
    partition = after(saved, forged(2))
    assert partition.population["clock"] == FAR
    assert rest(partition, saved) >= A_DAY * 0.99
    assert rest(after(saved, [*forged(2), *live(1000)]), saved) >= A_DAY * 0.98


def test_a_victim_s_profile_survives_events_of_the_next_century(saved: dict[bytes, bytes]) -> None:
    before = Partition(saved).profile("user3")
    astray = [*forged(2), event(FAR + 5 * DAY, "user3", source_ip="10.3.0.1", status="success")]
    profile = after(saved, [*astray, *live(700)]).profile("user3")
    assert (profile["sketch_total"] >= before["sketch_total"] * A_DAY**2 * 0.99).all()
    assert profile["learned"] >= before["learned"] * A_DAY**2 * 0.99
    assert profile["last_ts"] < END + 700 * 20_000


def test_a_clock_that_swings_ages_once(saved: dict[bytes, bytes]) -> None:
    swing = [*forged(2), *live(TOO_MANY_LATE + 20)]
    once, often = after(saved, swing), after(saved, swing * 12)
    assert often.population["active_ms"] - once.population["active_ms"] < 10 * HOUR
    assert rest(often, saved) >= A_DAY * 0.97


def test_a_source_that_sends_a_week_later_ages_nobody() -> None:
    """Live events of three days, then five late ones of a week ago beside each live one, in blocks and mixed."""
    days = habit(8 * 720, step=2 * MINUTE)
    partition = Partition()
    partition.run(days)
    now, late = START + 8 * DAY, iter(habit(6000, start=START + DAY, step=20_000, seed=5))
    mixed = [
        value
        for k, one in enumerate(habit(1200, start=now, step=20_000, seed=6))
        for value in [*(next(late) for _ in range(5)), *([one] if k % 2 else [one, one])]
    ]
    both = after_offset(partition, mixed, len(days))
    alone = Partition()
    alone.run(days)
    quiet = after_offset(alone, habit(1200, start=now, step=20_000, seed=6), len(days))
    assert both.population["active_ms"] - quiet.population["active_ms"] < HOUR
    assert both.population["age"] == pytest.approx(quiet.population["age"], rel=0.02)
    assert both.population["learned"] > quiet.population["learned"]


def after_offset(partition: Partition, values: list[bytes], first: int) -> Partition:
    for k in range(0, len(values), 500):
        part = values[k : k + 500]
        partition.state.fold(part, np.arange(len(part)) + first + k)
    partition.save()
    return partition


def test_a_collection_gap_of_weeks_ages_everybody_by_a_day(saved: dict[bytes, bytes]) -> None:
    partition = after(saved, live(40, start=END + 45 * DAY))
    assert partition.population["clock"] > END + 45 * DAY
    assert rest(partition, saved) >= A_DAY * 0.99
    profile, before = partition.profile("user3"), Partition(saved).profile("user3")
    assert (profile["sketch_total"] >= before["sketch_total"] * A_DAY * 0.99).all()


@pytest.mark.parametrize("step", [HOUR, 5 * HOUR, 20 * HOUR])
def test_one_user_cannot_creep_into_the_future(saved: dict[bytes, bytes], step: int) -> None:
    walk = [event(END + k * step, "mallory") for k in range(99)]
    others = live(200)
    mixed = [v for k, one in enumerate(others) for v in ([walk[k // 3], one] if k % 3 == 0 else [one])]
    for values in (walk, mixed, [*walk, *others, *walk, *others, *walk]):
        assert rest(after(saved, values), saved) >= A_DAY**1.5 * 0.98


def test_a_partition_with_one_user_still_ages(saved: dict[bytes, bytes]) -> None:
    values = [event(END + k * HOUR, "user3", source_ip="10.3.0.1", status="success") for k in range(2400)]
    partition = after(saved, values)
    days = (partition.population["active_ms"] - Partition(saved).population["active_ms"]) / DAY
    assert 20 < days < 26


def test_append_times_move_the_clock_without_a_second_event(saved: dict[bytes, bytes]) -> None:
    partition = Partition(dict(saved))
    at = END + 3 * DAY
    partition.state.fold([event(at, "user3")], np.array([N]), append_ms=np.array([at + MINUTE]))
    partition.save()
    assert partition.population["clock"] == at


def test_append_time_proves_that_the_clock_is_wrong(saved: dict[bytes, bytes]) -> None:
    partition = after(saved, forged(2))
    partition.state.fold([event(END, "user3")], np.array([N + 2]), append_ms=np.array([END + MINUTE]))
    partition.save()
    assert partition.population["clock"] == END + MINUTE
    assert partition.population["active_debt"] > 0


# ---- a lone event after silence ------------------------------------------------------------------------------------

WORK = 9 * HOUR
FRIDAY = START + 18 * DAY


def office() -> list[bytes]:
    """Four people who work in Berlin from Monday to Friday, 9 to 16:30 h, for three weeks."""
    return [
        event(
            START + day * DAY + WORK + slot * 45 * MINUTE + k * MINUTE,
            f"u{k}",
            source_ip=f"192.0.2.1{k}",
            status="success",
            metadata={"geo_location": "DE-Berlin", "hostname": f"pc{k}"},
        )
        for day in range(19)
        if day % 7 < 5
        for slot in range(11)
        for k in range(4)
    ]


PARIS: dict[str, Any] = {
    "source_ip": "192.0.2.200",
    "status": "success",
    "metadata": {"geo_location": "FR-Paris", "hostname": "lt1"},
}


@pytest.mark.parametrize("silence", [2 * DAY, 9 * DAY, 200 * DAY, 800 * DAY])
def test_lone_event_after_silence_has_its_own_time(silence: int) -> None:
    values = office()
    partition = Partition(detection=Detection(alert_risk=28.6))
    partition.run(values)
    before = partition.profile("u1")
    at = FRIDAY + silence + 20 * HOUR
    folded = partition.state.fold([event(at, "u1", **PARIS)], np.array([len(values)]))
    (incident,) = bodies(update.incident for update in folded.incidents)

    assert incident["first_seen"] == incident["last_seen"]
    assert "impossible_travel" not in {pattern["name"] for pattern in incident["patterns"]}
    said = {reason["feature"]: reason["actual"] for reason in incident["reasons"]}
    assert said.get("hour", "20 h").split(" ", 1)[1].startswith("20 h")
    dormancy = np.log2(1 + (at - before["last_ts"]) / DAY)
    assert folded.features[0, 10] == pytest.approx(dormancy, rel=1e-5)
    partition.save()
    assert partition.profile("u1")["last_ts"] == at
    assert (
        partition.population["clock"] < FRIDAY + DAY
    )  # what all users share waits until another event agrees


def test_a_traveller_sooner_than_a_person_can_travel_is_still_found() -> None:
    values = office()
    partition = Partition()
    partition.run(values)
    folded = partition.state.fold([event(FRIDAY + WORK + 9 * HOUR, "u1", **PARIS)], np.array([len(values)]))
    (incident,) = bodies(update.incident for update in folded.incidents)
    assert "impossible_travel" in {pattern["name"] for pattern in incident["patterns"]}


def test_lone_forged_event_adds_no_evidence_to_the_next_real_one(saved: dict[bytes, bytes]) -> None:
    real = event(END + HOUR, "user3", source_ip="10.3.0.1", status="success")
    plain, victim = Partition(dict(saved)), Partition(dict(saved))
    usual = plain.state.fold([real], np.array([N + 1])).score[0]
    score = victim.state.fold([event(FAR, "user3", source_ip="10.3.0.1"), real], np.array([N, N + 1])).score[
        1
    ]
    assert score <= usual + 1.5


def test_alerts_with_false_times_do_not_keep_an_incident_open(saved: dict[bytes, bytes]) -> None:
    attack = {"source_ip": "203.0.113.9", "event_type": "auth_attempt", "status": "failed"}
    partition = Partition(dict(saved), detection=Detection(alert_risk=54.5))
    dump = {"process_details": {"command_line": "procdump -ma lsass.exe"}, **attack}
    firsts = []
    for k, at in enumerate((FAR, END + HOUR, END + 9 * DAY)):
        folded = partition.state.fold([event(at, "user3", **dump)], np.array([N + k]))
        firsts += folded.incident["first_offset"][folded.kind != 0].tolist()
    assert firsts == [N, N + 1, N + 2]
