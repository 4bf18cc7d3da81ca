"""`streamguard campaigns` on a real Kafka: killed at every step, started twice, given records that are no incidents."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition

from streamguard.alerts.incident import Incident
from streamguard.campaigns.record import decode
from streamguard.campaigns.sighting import DAY, HOUR, MINUTE
from streamguard.records.record import MAX_UNPACKED_BYTES
from streamguard.testing.broker import LocalKafka
from tests.campaign_site import POISON, CampaignSite
from tests.harness import eventually
from tests.unit.test_campaigns import NOON, lone, spray

pytestmark = pytest.mark.integration


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[CampaignSite]:
    site = CampaignSite(kafka, tmp_path)
    yield site
    site.close()


def updates(seed: int, count: int = 120) -> list[Incident]:
    """Updates of incidents of few users, in random order; sprays, so that campaigns merge when more of them arrive."""
    draw = random.Random(seed)
    found: list[Incident] = []
    while len(found) < count:
        at = NOON + draw.randrange(4 * DAY)
        users = [f"user-{draw.randrange(60)}" for _ in range(draw.randrange(2, 8))]
        found += spray(at, users, entered=users[0], agent=draw.choice(("python-requests", "curl")))
        found.append(lone(f"user-{draw.randrange(60)}", at, draw.choice(("resource", "volume"))))
        again = lone("ann", at - at % (6 * HOUR), bits=10.0 + draw.randrange(9), count=draw.randrange(1, 9))
        found += [again, msgspec.structs.replace(again, count=again.count + 1)]
    draw.shuffle(found)
    return found[:count]


def ids(published: dict[str, bytes]) -> set[str]:
    return set(published)


def test_topic_holds_what_a_batch_computation_gives_while_alerts_arrive(site: CampaignSite) -> None:
    process = site.start().await_ready()
    assert site.published() == {}
    seen = updates(1)
    for first in range(0, len(seen), 40):
        site.publish(seen[first : first + 40])
        assert site.await_published(process)
    metrics = process.metrics()
    assert metrics['streamguard_campaigns_alert_records_total{result="incident"}'] == len(seen)
    published = site.published()
    assert metrics["streamguard_campaigns_current"] == len(published)
    raised = [decode(value) for value in published.values() if decode(value).decision.raised]
    assert sum(
        number for name, number in metrics.items() if name.startswith("streamguard_campaigns_raised{")
    ) == len(raised)
    assert metrics["streamguard_campaigns_promised_per_day"] == 5
    assert metrics["streamguard_campaigns_lag_records"] == 0
    assert not any("user-" in name for name in metrics)
    assert process.terminate(10) == 0, process.tail()
    assert "holds its last round" in process.exit_message()


def test_campaign_that_merges_into_another_one_is_deleted(site: CampaignSite) -> None:
    first, last = spray(NOON, ["a", "b", "c"]), spray(NOON + 16 * MINUTE, ["d", "e", "f"])
    process = site.start()
    site.publish([*first, *last])
    assert len(site.await_published(process)) == 2
    site.publish(spray(NOON + 8 * MINUTE, ["g", "h"]))
    (record,) = map(decode, site.await_published(process).values())
    assert (record.campaign.id, record.campaign.users) == (first[0].id, 8)
    assert process.metric('streamguard_campaigns_published_total{change="withdrawn"}') == 1


@pytest.mark.parametrize(
    "failpoint",
    [
        "restore-fenced", "transaction-begun", "transaction-begun:2", "changes-sent", "changes-sent:2",
        "changes-sent:3",
        "transaction-committed", "transaction-committed:2",
    ],
)  # fmt: skip
def test_process_that_was_killed_continues_exactly(site: CampaignSite, failpoint: str) -> None:
    seen = updates(2)
    site.publish(seen[:40])
    killed = site.start("killed", failpoint=failpoint)
    rest = [seen[40:80], seen[80:]]
    while killed.alive:
        if killed.get("/readyz")[0] == 200 and rest:
            site.publish(rest.pop(0))
            eventually("the next round is published, or the process is dead", lambda: _idle(killed))
    assert killed.await_exit() == -signal.SIGKILL, killed.tail()
    for part in rest:
        site.publish(part)
    process = site.start("next")
    site.await_published(process)


def _idle(process: object) -> bool:
    """Whether a process has published everything that it has read, or does not run."""
    waiting = process.metric("streamguard_campaigns_lag_seconds")  # type: ignore[attr-defined]
    lag = process.metric("streamguard_campaigns_lag_records")  # type: ignore[attr-defined]
    return not process.alive or (waiting == 0 and lag == 0)  # type: ignore[attr-defined]


def test_process_that_is_killed_at_random_moments_continues_exactly(site: CampaignSite) -> None:
    draw, seen = random.Random(3), updates(3, 200)
    for first in range(0, len(seen), 25):
        process = site.start(f"run-{first}")
        site.publish(seen[first : first + 25])
        before = process.metric("streamguard_campaigns_round_seconds_count") or 0
        if draw.random() < 0.5:
            eventually(
                "a round is published",
                lambda p=process, n=before: (p.metric("streamguard_campaigns_round_seconds_count") or 0) > n,  # type: ignore[misc]
            )
        process.kill()
    site.await_published(site.start("last"))


def test_reader_of_committed_records_sees_whole_rounds_only(site: CampaignSite) -> None:
    """The state after each transaction is the batch result of some prefix that the process has read."""
    site.publish(updates(4, 60))
    killed = site.start("killed", failpoint="changes-sent")
    assert killed.await_exit() == -signal.SIGKILL
    assert site.published() == {}, "the transaction was never committed"
    site.await_published(site.start("next"))


def test_second_process_takes_over_and_the_first_one_ends(site: CampaignSite) -> None:
    seen = updates(5)
    site.publish(seen[:60])
    first = site.start("first").await_ready()
    site.await_published(first)
    second = site.start("second").await_ready()
    site.publish(seen[60:])
    assert first.await_exit() == 75, first.tail()
    assert "another campaigns process of this application has taken" in first.exit_message()
    site.await_published(second)
    assert second.alive


def test_process_that_was_frozen_changes_nothing_after_it_was_replaced(site: CampaignSite) -> None:
    seen = updates(6)
    site.publish(seen[:60])
    frozen = site.start("frozen", failpoint="changes-sent:1:freeze")
    eventually("the process is frozen in its transaction", frozen.frozen)
    site.publish(seen[60:])
    second = site.start("second")
    wanted = site.await_published(second)
    frozen.signal(signal.SIGCONT)
    assert frozen.await_exit() == 75, frozen.tail()
    assert site.published() == wanted


def test_records_that_are_no_incidents_are_counted_and_passed_over(site: CampaignSite) -> None:
    one = lone("ann", NOON)
    hostile = [
        msgspec.structs.replace(one, id="x" * 100_000),
        msgspec.structs.replace(one, schema_version=99),
        msgspec.structs.replace(one, count=1 << 60),
        msgspec.structs.replace(one, patterns=one.patterns * 1, reasons=one.reasons * 200),
        msgspec.structs.replace(one, last_seen="9999-99-99T99:99:99Z"),
    ]
    process = site.start()
    site.publish([*POISON, *hostile, one, *POISON])
    assert ids(site.await_published(process)) == {one.id}
    metrics = process.metrics()
    passed = {
        name.split('"')[1]: number
        for name, number in metrics.items()
        if name.startswith("streamguard_campaigns_alert_records_total") and number
    }
    assert passed.pop("incident") == 1
    assert sum(passed.values()) == 2 * len(POISON) + len(hostile)
    assert passed["empty"] == 2 and passed["unknown_version"] == 1
    (line,) = [line for line in process.lines() if "passed over" in line["message"]][:1]
    assert site.names["alerts"] in line["message"] and "offset" in line["message"]
    assert process.get("/readyz")[0] == 200


def test_batch_that_no_reader_may_unpack_is_passed_over(site: CampaignSite) -> None:
    process = site.start()
    packs_small = {"compression.type": "gzip", "message.max.bytes": 100 << 20}
    producer = Producer({"bootstrap.servers": site.settings.kafka.bootstrap_servers} | packs_small)
    for partition in range(3):
        producer.produce(site.names["alerts"], bytes(MAX_UNPACKED_BYTES + 1), b"k", partition=partition)
    assert producer.flush(60) == 0
    one = lone("ann", NOON)
    site.publish([one])
    assert ids(site.await_published(process)) == {one.id}
    assert process.metric('streamguard_campaigns_alert_records_total{result="unreadable_batch"}') == 3


def test_expired_alerts_leave_the_campaigns_without_a_restart(site: CampaignSite) -> None:
    """The process compares the beginning of the log twice a minute."""
    process = site.start()
    site.publish(updates(7, 30))
    assert site.await_published(process)
    ends = [TopicPartition(site.names["alerts"], p, -1) for p in range(3)]
    for answer in site.admin.delete_records(ends).values():
        answer.result(30)
    fresh = lone("zoe", NOON)
    site.publish([fresh])
    assert ids(site.await_published(process, timeout=90)) == {fresh.id}
    assert any("is read again" in line["message"] for line in process.lines())


def test_alerts_topic_that_was_created_again_is_read_from_its_beginning(site: CampaignSite) -> None:
    process = site.start()
    site.publish(updates(8, 30))
    assert site.await_published(process)
    assert process.terminate(10) == 0
    site.delete_topic("alerts")
    site.create_topics()
    fresh = lone("zoe", NOON)
    site.publish([fresh])
    assert ids(site.await_published(site.start("next"))) == {fresh.id}


def test_campaigns_topic_that_was_created_again_is_filled_again(site: CampaignSite) -> None:
    process = site.start().await_ready()
    site.publish(updates(9, 30))
    assert site.await_published(process)
    site.delete_topic("campaigns")
    site.create_topics()
    site.publish(updates(10, 30))
    assert process.await_exit(90) == 75, process.tail()
    site.await_published(site.start("next"))


def test_missing_topic_ends_with_78_and_missing_broker_with_69(site: CampaignSite) -> None:
    away = site.start("away", STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert away.await_exit(90) == 69, away.tail()
    site.delete_topic("campaigns")
    refused = site.start("refused")
    assert refused.await_exit() == 78, refused.tail()
    assert "streamguard topics create" in refused.exit_message()
    wrong = site.start("wrong", STREAMGUARD_CAMPAIGNS_ROUND_SECONDS="soon")
    assert wrong.await_exit() == 78
    last = json.loads(wrong.log.read_text().splitlines()[-1])
    assert (last["reason"], last["exit_code"]) == ("configuration", 78)


def test_without_a_broker_sigterm_ends_it_within_seconds_and_it_gives_up_after_half_a_minute(
    tmp_path: Path,
) -> None:
    with LocalKafka() as broker:
        site = CampaignSite(broker.bootstrap_servers, tmp_path)
        stopped = site.start("stopped").await_ready()
        site.publish(updates(11, 20))
        site.await_published(stopped)
        broker.kill()
        eventually("the broker is missed", lambda: '"no_broker"' in stopped.get("/readyz")[1])
        assert stopped.get("/healthz")[0] == 200
        assert stopped.terminate(10) == 0, stopped.tail()
        broker.start()
        left = site.start("left").await_ready()
        broker.kill()
        assert left.await_exit(90) == 69, left.tail()
        assert "nothing is lost" in left.exit_message()
