"""Common situations: waves, moves, outages and quiet logs stay quiet, and attacks inside them are found."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from streamguard.alerts.incident import Incident
from streamguard.events.event import parse
from streamguard.fold.components import COMPONENTS
from streamguard.history.files import Batch
from streamguard.history.replay import Replay
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event

BROWSER = "Mozilla/5.0 (Windows NT 10.0)"


def login(
    ts: int, user: str, source: str, status: str = "success", place: str = "DE-Berlin", **fields: Any
) -> bytes:
    details = {"hostname": f"pc-{user}", "geo_location": place, "user_agent": BROWSER} | fields
    return event(ts, user, status=status, source_ip=source, metadata=details)


def thief(ts: int, user: str) -> bytes:
    return login(ts, user, "203.0.113.77", place="BR-Recife", hostname="kali", user_agent="curl/8.0")


def incidents(values: Iterable[bytes], since: int = 0, partitions: int = 1) -> list[Incident]:
    """Incidents of a log in the order of time, the last of which begin at `since` or later."""
    ordered = sorted(values, key=lambda value: json.loads(value)["timestamp"])
    replay = Replay(partitions)
    replay.feed(Batch(0, [], ordered, *parse(ordered), {}))
    return [one for one in replay.incidents() if int(one.id.split("-")[-1], 16) >= since]


def office(days: int, people: int = 40, source: str = "10.0.0.{k}", start: int = START) -> list[bytes]:
    """People who log in six times a day, each from the own address; now and then somebody mistypes."""
    choose = random.Random(7)
    return [
        login(
            start + d * DAY + 8 * HOUR + choose.randrange(9 * HOUR),
            f"p{k}",
            source.format(k=k),
            "failed" if choose.random() < 0.03 else "success",
        )
        for d in range(days)
        for k in range(people)
        for _ in range(6)
    ]


def high(found: list[Incident]) -> list[Incident]:
    return [one for one in found if one.severity in ("high", "critical")]


def test_people_who_sign_in_once_each_morning_are_no_attack() -> None:
    wave = [
        login(START + d * DAY + 9 * HOUR + 200 * k, f"e{k}", f"10.1.{k // 250}.{k % 250}")
        for d in range(5)
        for k in range(400)
    ]
    assert incidents(wave) == []


def test_new_people_of_a_connected_log_are_no_attack_and_a_thief_among_them_is_found() -> None:
    noon = START + 20 * DAY + 12 * HOUR
    choose = random.Random(1)
    new = [
        login(noon - choose.randrange(4 * HOUR), f"n{k}", f"198.51.{k // 250}.{k % 250}", hostname="app")
        for k in range(300)
        for _ in range(8)
    ]
    found = incidents(
        [*office(21), *new, thief(noon, "p3"), thief(noon + MINUTE, "p3")], since=START + 20 * DAY
    )
    assert [one.entity.value for one in high(found)] == ["p3"]


def test_everybody_behind_one_new_address_is_usual_and_a_thief_is_filed_under_the_person() -> None:
    moved = START + 20 * DAY
    later = office(5, source="192.0.2.1", start=moved)
    attack = moved + 3 * DAY + 12 * HOUR
    found = incidents([*office(20), *later, thief(attack, "p5"), thief(attack + MINUTE, "p5")], since=moved)
    assert [one.entity.value for one in high(found)] == ["p5"]
    assert sum(one.count for one in found) <= 0.01 * len(later)


def test_outage_of_the_identity_provider_is_at_most_one_incident_of_the_crowd() -> None:
    begin = START + 20 * DAY + 10 * HOUR
    tries = [
        login(begin + 500 * k + n * 150_000, f"p{k}", f"10.0.0.{k}", "success" if n == 8 else "failed")
        for k in range(40)
        for n in range(9)
    ]
    found = high(incidents([*office(21), *tries], since=begin))
    assert [one.entity.kind for one in found] in ([], ["crowd"])


def test_owner_is_not_blamed_for_failures_of_strangers() -> None:
    choose = random.Random(5)
    days = 14
    bots = [
        login(
            START + d * DAY + choose.randrange(DAY), "root", f"198.18.{k % 250}.{d}", "failed", hostname="x"
        )
        for d in range(days)
        for k in range(120)
    ]
    owner = [
        login(START + d * DAY + h * HOUR + 7 * MINUTE, "root", "10.9.9.9")
        for d in range(days)
        for h in (9, 14)
    ]
    end = START + (days - 1) * DAY + 20 * HOUR
    guesses = [
        login(end + 2000 * k, "root", "192.0.2.66", "failed" if k < 30 else "success", hostname="x")
        for k in range(31)
    ]
    found = incidents([*bots, *owner, *guesses])
    after = [one for one in found if any(p.name == "success_after_failures" for p in one.patterns)]
    assert {one.event["source_ip"] for one in after if int(one.id.split("-")[-1], 16) > START + DAY} == {
        "192.0.2.66"
    }
    assert after[0] == found[0]


def test_first_actions_of_anybody_are_found_in_order_of_their_news() -> None:
    choose = random.Random(2)
    usual = ["GetObject", "ListBuckets", "PutObject", "DescribeInstances", "AssumeRole", "GetItem"]
    work = [
        event(START + d * DAY + 9 * HOUR + choose.randrange(8 * HOUR), f"u{k}", choose.choice(usual),
              source_ip=f"10.0.0.{k}", status="success")
        for d in range(14) for k in range(4) for _ in range(30)
    ]  # fmt: skip
    chain = ["CreateUser", "CreateAccessKey", "AttachUserPolicy", "GetSecretValue", "ModifySnapshotAttribute"]
    then = START + 14 * DAY + 10 * HOUR
    attack = [
        event(then + 5000 * k, "u3", name, source_ip="10.0.0.3", status="success")
        for k, name in enumerate(chain)
    ]
    (one,) = incidents([*work, *attack], since=START + 14 * DAY)
    assert one.entity.value == "u3"
    assert one.severity == "critical"
    assert {"action", "unheard_actions"} <= {reason.feature for reason in one.reasons}


def test_user_who_always_does_new_things_fades_out() -> None:
    rows = [
        event(START + k * HOUR // 4, "builder", f"job.{k:x}", source_ip="10.0.0.9", status="success")
        for k in range(1500)
    ]
    assert incidents([*office(16), *rows], since=START + 5 * DAY) == []


def test_a_quiet_log_is_as_well_known_as_a_busy_one() -> None:
    def story(step: int) -> list[Incident]:
        values = [login(START + n * step, f"p{n % 3}", f"10.0.0.{n % 3}") for n in range(400)]
        return incidents([*values, thief(START + 400 * step, "p1")], since=START + 400 * step)

    busy, quiet = story(HOUR // 2), story(2 * DAY)
    assert [one.entity.value for one in high(busy)] == [one.entity.value for one in high(quiet)] == ["p1"]


def test_guessing_counts_the_more_the_longer_it_lasts() -> None:
    def evidence(guesses: int) -> float:
        begin = START + 20 * DAY + 12 * HOUR
        tries = [login(begin + 2000 * k, "p1", "10.0.0.1", "failed") for k in range(guesses)]
        return max(one.evidence_bits for one in incidents([*office(20), *tries], since=begin))

    assert evidence(20) + 2.0 < evidence(80) + 1.0 < evidence(160) + 1.0


def test_updates_of_a_source_name_every_user_that_it_tries_and_enters() -> None:
    begin = START + 20 * DAY + 12 * HOUR
    tries = [
        login(begin + 1000 * k, f"p{k % 40}", "203.0.113.9", "success" if k in (57, 63) else "failed", hostname="kali",
              place="BR-Recife", user_agent="curl/8.0")
        for k in range(80)
    ]  # fmt: skip
    ordered = sorted([*office(20), *tries], key=lambda value: json.loads(value)["timestamp"])
    replay = Replay()
    replay.feed(Batch(0, [], ordered, *parse(ordered), {}))
    of_source = [one for one in replay.updates() if one.entity.kind == "source"]
    entered = {one.event["user"] for one in of_source if one.event["status"] == "success"}
    assert entered == {"p17", "p23"}
    assert len({one.event["user"] for one in of_source}) > 25


def test_a_hit_of_another_systems_rule_is_evidence_where_hits_are_rare() -> None:
    """Neither the users nor the log have scores or rules otherwise; a rule that hits every day is a habit."""
    start = [event(START + k * 60_000, f"user{k % 10}", "process_start") for k in range(1500)]
    daily = [event(START + k * 600_000, "user0", "process_start", rule_name="Daily Scan") for k in range(150)]
    rows = sorted([*start, *daily], key=lambda row: json.loads(row)["timestamp"])
    end = START + 1500 * 60_000
    hits = [
        event(end, "user1", "process_start", rule_name="Credential Theft Tool"),
        event(end + 60_000, "user2", "process_start", threat_score=0.9),
        event(end + 120_000, "user0", "process_start", rule_name="Daily Scan"),
        event(end + 180_000, "user3", "process_start"),
        event(end + 240_000, "user4", "ListUsers", rule_name=" Enumeration "),
        event(end + 300_000, "user4", "ListUsers", rule_name="enumeration"),
    ]
    *_, folded = Partition().chunks([*rows, *hits], chunk=200)
    theft, score, scan, plain, reading, again = folded.excess[-6:]
    action, threat = COMPONENTS.index("action"), COMPONENTS.index("threat")
    assert theft[action] > 8 and score[threat] > 8
    assert scan[action] < 3 and plain[action] == plain[threat] == 0.0
    assert reading[action] > again[action] > 8  # the action only reads, and a rule has one spelling
    assert min(folded.tail[-6], folded.tail[-5], folded.tail[-2]) > 8 > max(folded.tail[-4], folded.tail[-3])
