"""`streamguard doctor` on a real Kafka, with and without workers."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from streamguard.cli.doctor import broker
from streamguard.cli.doctor.finding import Finding
from streamguard.cli.main import main
from streamguard.kafka import topics
from streamguard.settings.schema import Kafka, Settings, Worker
from streamguard.testing import broker as local
from tests.harness import Site, eventually

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("STREAMGUARD_"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(kafka: str) -> Settings:
    own = uuid.uuid4().hex[:8]
    return Settings(
        kafka=Kafka(
            bootstrap_servers=kafka,
            events_topic=f"events-{own}",
            alerts_topic=f"alerts-{own}",
            dead_letter_topic=f"dead-{own}",
            models_topic=f"models-{own}",
            partitions=3,
        ),
        worker=Worker(app_id=f"app-{own}", metrics_port=0),
    )


def asked(settings: Settings) -> dict[str, list[Finding]]:
    """What is found out about Kafka, by check."""
    found: dict[str, list[Finding]] = {}
    for finding in broker.kafka(settings):
        assert (finding.status == "ok") == (not finding.remedy), finding
        found.setdefault(finding.check, []).append(finding)
    return found


def statuses(found: dict[str, list[Finding]]) -> dict[str, set[str]]:
    return {check: {finding.status for finding in findings} for check, findings in found.items()}


def commit(settings: Settings, offset: int, partition: int = 0) -> None:
    """Commit an offset as a worker that has ended."""
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    topic, app = settings.kafka.events_topic, settings.worker.app_id
    asked = ConsumerGroupTopicPartitions(app, [TopicPartition(topic, partition, offset)])

    def done() -> bool:
        (answer,) = admin.alter_consumer_group_offsets([asked], request_timeout=5).values()
        try:
            return all(part.error is None for part in answer.result(30).topic_partitions)
        except KafkaException:
            return False

    eventually("the group's coordinator takes an offset", done)


def produce(settings: Settings, count: int, topic: str = "", timestamp: float | None = None) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    stamp = round((timestamp or time.time()) * 1000)
    for _ in range(count):
        producer.produce(topic or settings.kafka.events_topic, b"{}", partition=0, timestamp=stamp)
    assert producer.flush(30) == 0


def test_nothing_created_yet_names_topics_and_changes_nothing(settings: Settings) -> None:
    found = asked(settings)
    assert statuses(found) == {
        "broker": {"ok"},
        "topics": {"fail"},
        "permissions": {"warn"},
        "workers": {"warn"},
        "offsets": {"ok"},
        "clock": {"ok"},
    }
    assert {finding.remedy for finding in found["topics"]} == {"run `streamguard topics create`"}
    assert len(found["topics"]) == 5
    there = (
        AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers}).list_topics(timeout=30).topics
    )
    assert not set(topics.names(settings).values()) & set(there)


def test_topics_that_are_right_and_no_worker(settings: Settings) -> None:
    topics.create(settings)
    found = asked(settings)
    assert {check for check, status in statuses(found).items() if status != {"ok"}} == {"workers"}
    assert found["workers"][0].found == f"no worker of {settings.worker.app_id} is running"
    assert "on 5 resources" in found["permissions"][0].found
    assert found["broker"][0].found.endswith(": 1 broker")


def test_a_topic_that_is_too_small_and_one_that_forgets(settings: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    name = topics.names(settings)
    made = admin.create_topics([NewTopic(name["events"], 1, 1, config={"retention.ms": "60000"})])
    made[name["events"]].result(30)
    topics.create(settings)
    size, retention = asked(settings)["topics"]
    assert size.found == f"{name['events']} has 1 partitions, wanted 3"
    assert "kafka.partitions" in size.remedy
    assert retention.found.startswith(f"{name['events']} has retention.ms=60000")
    assert retention.remedy == "run `streamguard topics create --alter`"


def test_offsets_are_held_against_the_log(settings: Settings) -> None:
    topics.create(settings)
    produce(settings, 10)
    commit(settings, 4)
    (found,) = asked(settings)["offsets"]
    assert found.status == "ok"
    assert "6 records behind" in found.found

    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    expired = TopicPartition(settings.kafka.events_topic, 0, 7)
    admin.delete_records([expired])[expired].result(30)
    (found,) = asked(settings)["offsets"]
    assert found.status == "fail"
    assert "3 offsets expired before they were read" in found.found

    commit(settings, 100)
    (found,) = asked(settings)["offsets"]
    assert found.status == "fail"
    assert "the log ends at 10" in found.found


def test_events_that_expire_soon_are_a_warning(settings: Settings) -> None:
    topics.create(settings)
    produce(settings, 5, timestamp=time.time() - 5 * 86_400)
    commit(settings, 2)
    (found,) = asked(settings)["offsets"]
    assert found.status == "warn"
    assert "half of the retention" in found.found
    produce(settings, 5)
    assert asked(settings)["offsets"][0].status == "warn"
    commit(settings, 5)
    assert asked(settings)["offsets"][0].status == "ok"


def test_a_record_from_the_future_is_a_warning(settings: Settings) -> None:
    topics.create(settings)
    produce(settings, 1)
    assert asked(settings)["clock"][0].status == "ok"
    produce(settings, 1, timestamp=time.time() + 120)
    produce(settings, 1)
    (found,) = asked(settings)["clock"]
    assert found.status == "warn"
    assert settings.kafka.events_topic in found.found


def test_what_is_not_allowed_is_named_with_the_command_that_allows_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        local.SETTINGS,
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    )
    monkeypatch.setitem(local.SETTINGS, "allow.everyone.if.no.acl.found", "true")
    with local.LocalKafka() as guarded:
        there = msgspec.structs.replace(settings.kafka, bootstrap_servers=guarded.bootstrap_servers)
        settings = msgspec.structs.replace(settings, kafka=there)
        topics.create(settings)
        names = topics.names(settings)
        hidden, looked_at = names["events"], names["alerts"]
        admin = AdminClient({"bootstrap.servers": guarded.bootstrap_servers})
        acls = [
            AclBinding(
                ResourceType.TOPIC,
                topic,
                ResourcePatternType.LITERAL,
                user,
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for topic, user, operation in (
                (hidden, "User:somebody", AclOperation.READ),
                (looked_at, "User:ANONYMOUS", AclOperation.DESCRIBE_CONFIGS),
                (looked_at, "User:ANONYMOUS", AclOperation.DESCRIBE),
            )
        ]
        for done in admin.create_acls(acls).values():
            done.result(30)
        found = eventually(
            "the permissions are in force",
            lambda: [one for one in asked(settings)["permissions"] if one.status == "fail"],
        )
    assert [one.found for one in found] == [
        f"topic {hidden}: no permission for READ, DESCRIBE_CONFIGS",
        f"topic {looked_at}: no permission for WRITE",
    ]
    assert f"--operation Read --operation DescribeConfigs --topic {hidden}" in found[0].remedy


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path, partitions=1)
    yield site
    site.close()


def test_workers_are_counted_and_their_port_is_asked(site: Site) -> None:
    worker = site.start().await_ready()
    found = asked(site.settings)
    assert statuses(found) == {check: {"ok"} for check in found}
    assert found["workers"][0].found.startswith(
        f"1 worker of {site.settings.worker.app_id} for 1 partition of "
    )
    assert "on 6 resources" in found["permissions"][0].found

    port = next(line["metrics_port"] for line in worker.lines() if "metrics_port" in line)
    config = str(site.directory / "streamguard.toml")
    run = CliRunner(env={"STREAMGUARD_WORKER_METRICS_PORT": str(port)}).invoke(
        main, ["doctor", "--json", "--config", config, "--data-dir", str(worker.data_dir)]
    )
    assert run.exit_code == 0, run.output
    told = msgspec.convert(json.loads(run.output)["findings"], list[Finding])
    (answered,) = [finding for finding in told if finding.check == "ports"]
    assert answered.found == f"the worker at 127.0.0.1:{port} is live and ready"

    site.start("b")
    idle = eventually(
        "the second worker is told to be idle",
        lambda: [one for one in asked(site.settings)["workers"] if "1 worker idle" in one.found],
    )
    assert idle[0].status == "warn"
