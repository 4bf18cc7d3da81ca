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
from streamguard.fold import profile as layout
from streamguard.kafka import topics
from streamguard.settings.schema import Kafka, Settings, Worker
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.partition import META
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
            sources_topic=f"sources-{own}",
            alerts_topic=f"alerts-{own}",
            decisions_topic=f"decisions-{own}",
            audit_topic=f"audit-{own}",
            dead_letter_topic=f"dead-{own}",
            models_topic=f"models-{own}",
            partitions=3,
        ),
        worker=Worker(app_id=f"app-{own}", metrics_port=0),
    )


def findings_of(settings: Settings) -> dict[str, list[Finding]]:
    """Findings of the Kafka checks, by check."""
    found: dict[str, list[Finding]] = {}
    for finding in broker.kafka(settings):
        assert (finding.status == "ok") == (not finding.remedy), finding
        found.setdefault(finding.check, []).append(finding)
    return found


def statuses(found: dict[str, list[Finding]]) -> dict[str, set[str]]:
    return {check: {finding.status for finding in findings} for check, findings in found.items()}


def commit(settings: Settings, offset: int, partition: int = 0) -> None:
    """Commit an offset, as a worker does before it exits."""
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    topic, app = settings.kafka.events_topic, settings.worker.app_id
    offsets = ConsumerGroupTopicPartitions(app, [TopicPartition(topic, partition, offset)])

    def done() -> bool:
        (answer,) = admin.alter_consumer_group_offsets([offsets], request_timeout=5).values()
        try:
            return all(part.error is None for part in answer.result(30).topic_partitions)
        except KafkaException:
            return False

    eventually("the group's coordinator accepts an offset", done)


def create_topics_with_times_of_senders(settings: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    events = settings.kafka.events_topic
    topic = NewTopic(events, settings.kafka.partitions, 1, config={"message.timestamp.type": "CreateTime"})
    admin.create_topics([topic])[events].result(30)
    topics.create(settings)


def produce(settings: Settings, count: int, topic: str = "", timestamp: float | None = None) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    stamp = round((timestamp or time.time()) * 1000)
    for _ in range(count):
        producer.produce(topic or settings.kafka.events_topic, b"{}", partition=0, timestamp=stamp)
    assert producer.flush(30) == 0


def test_missing_topics_are_reported_and_not_created(settings: Settings) -> None:
    found = findings_of(settings)
    assert statuses(found) == {
        "broker": {"ok"},
        "topics": {"fail"},
        "permissions": {"warn"},
        "workers": {"warn"},
        "sources": {"warn"},
        "offsets": {"ok"},
        "transactions": {"ok"},
        "state": {"ok"},
        "clock": {"ok"},
    }
    remedy = "correct its name in [kafka], or run `streamguard topics create`"
    assert {finding.remedy for finding in found["topics"]} == {remedy}
    assert [finding.status for finding in found["topics"]] == ["fail"] * 6
    existing = (
        AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers}).list_topics(timeout=30).topics
    )
    assert not set(topics.names(settings).values()) & set(existing)


def test_correct_topics_without_a_process_are_a_warning_about_processes_only(settings: Settings) -> None:
    topics.create(settings)
    found = findings_of(settings)
    assert {check for check, status in statuses(found).items() if status != {"ok"}} == {"workers", "sources"}
    assert found["sources"][0].remedy == "start one with `streamguard sources`"
    assert found["workers"][0].found == f"no worker of {settings.worker.app_id} is running"
    assert topics.names(settings)["decisions"] in found["topics"][0].found
    assert "on 6 resources" in found["permissions"][0].found
    assert found["broker"][0].found.endswith(": 1 broker")


def test_topic_with_too_few_partitions_and_short_retention_is_reported_with_remedies(
    settings: Settings,
) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    name = topics.names(settings)
    created = admin.create_topics([NewTopic(name["events"], 1, 1, config={"retention.ms": "60000"})])
    created[name["events"]].result(30)
    topics.create(settings)
    size, retention, times = findings_of(settings)["topics"]
    assert size.found == f"{name['events']} has 1 partition, required 3"
    assert "kafka.partitions" in size.remedy
    assert retention.found.startswith(f"{name['events']} has retention.ms=60000")
    assert retention.remedy == times.remedy == "run `streamguard topics create --alter`"
    assert (retention.status, times.status) == ("fail", "warn")
    assert "message.timestamp.type=CreateTime, recommended LogAppendTime" in times.found


def test_committed_offsets_outside_the_log_fail(settings: Settings) -> None:
    topics.create(settings)
    produce(settings, 10)
    commit(settings, 4)
    (found,) = findings_of(settings)["offsets"]
    assert found.status == "ok"
    assert "6 records behind" in found.found

    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    expired = TopicPartition(settings.kafka.events_topic, 0, 7)
    admin.delete_records([expired])[expired].result(30)
    (found,) = findings_of(settings)["offsets"]
    assert found.status == "fail"
    assert "3 offsets expired before a worker read them" in found.found

    commit(settings, 100)
    (found,) = findings_of(settings)["offsets"]
    assert found.status == "fail"
    assert "the topic ends at 10" in found.found


def test_unread_events_past_half_of_the_retention_are_a_warning(settings: Settings) -> None:
    create_topics_with_times_of_senders(settings)
    produce(settings, 5, timestamp=time.time() - 5 * 86_400)
    commit(settings, 2)
    (found,) = findings_of(settings)["offsets"]
    assert found.status == "warn"
    assert "half of the retention" in found.found
    produce(settings, 5)
    assert findings_of(settings)["offsets"][0].status == "warn"
    commit(settings, 5)
    assert findings_of(settings)["offsets"][0].status == "ok"


def test_log_whose_beginning_is_gone_is_a_warning_before_the_first_commit(settings: Settings) -> None:
    topics.create(settings)
    produce(settings, 10)
    assert findings_of(settings)["offsets"][0].status == "ok"
    expired = TopicPartition(settings.kafka.events_topic, 0, 7)
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    admin.delete_records([expired])[expired].result(30)
    (found,) = findings_of(settings)["offsets"]
    assert found.status == "warn"
    assert "the log begins at 7" in found.found and "never reads the 7 offsets before it" in found.found
    commit(settings, 7)
    assert findings_of(settings)["offsets"][0].status == "ok"


def test_transaction_that_stays_open_is_a_warning(settings: Settings) -> None:
    topics.create(settings)
    produce(settings, 10)
    commit(settings, 4)
    sender = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": settings.worker.app_id}
    )
    sender.init_transactions(30)
    sender.begin_transaction()
    sender.produce(settings.kafka.events_topic, b"{}", partition=0)
    assert sender.flush(30) == 0
    produce(settings, 100)
    found = findings_of(settings)
    (blocked,) = found["transactions"]
    assert blocked.status == "warn"
    assert "open at offset 10" in blocked.found and "the 101 offsets from there on" in blocked.found
    assert "107 records behind" in found["offsets"][0].found
    sender.abort_transaction(30)
    assert statuses(findings_of(settings))["transactions"] == {"ok"}


def test_transaction_in_the_changelog_is_a_warning(settings: Settings) -> None:
    topics.create(settings)
    changelog = topics.names(settings)["changelog"]
    sender = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": settings.worker.app_id}
    )
    sender.init_transactions(30)
    sender.begin_transaction()
    sender.produce(changelog, b"{}", b"x", partition=1)
    assert sender.flush(30) == 0
    (blocked,) = findings_of(settings)["transactions"]
    assert blocked.status == "warn"
    assert f"partition 1 of {changelog}: a transaction" in blocked.found and "does not start" in blocked.found
    sender.abort_transaction(30)


def test_state_that_a_worker_would_refuse_fails(settings: Settings) -> None:
    topics.create(settings)
    name = topics.names(settings)
    produce(settings, 10)
    assert statuses(findings_of(settings))["state"] == {"ok"}
    other = StateIdentity(settings.worker.app_id, 0, TopicIdentity(name["events"], "old"), "old")
    checkpoint = META.pack(layout.VERSION, 4) + other.encoded()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(name["changelog"], checkpoint, b"m", partition=0)
    assert producer.flush(30) == 0
    refused, unkeyed = findings_of(settings)["state"]
    assert (refused.status, unkeyed.status) == ("fail", "warn")
    assert "was deleted and created again (id old, now" in refused.found
    assert "the partitions [0] were begun by version 0.1" in unkeyed.found


def test_record_with_a_future_timestamp_is_a_warning(settings: Settings) -> None:
    create_topics_with_times_of_senders(settings)
    produce(settings, 1)
    assert findings_of(settings)["clock"][0].status == "ok"
    produce(settings, 1, timestamp=time.time() + 120)
    produce(settings, 1)
    (found,) = findings_of(settings)["clock"]
    assert found.status == "warn"
    assert settings.kafka.events_topic in found.found


def test_missing_permissions_are_reported_with_the_command_that_grants_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        local.SETTINGS,
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    )
    monkeypatch.setitem(local.SETTINGS, "allow.everyone.if.no.acl.found", "true")
    with local.LocalKafka() as secured:
        connection = msgspec.structs.replace(settings.kafka, bootstrap_servers=secured.bootstrap_servers)
        settings = msgspec.structs.replace(settings, kafka=connection)
        topics.create(settings)
        names = topics.names(settings)
        hidden, readable = names["events"], names["alerts"]
        admin = AdminClient({"bootstrap.servers": secured.bootstrap_servers})
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
                (readable, "User:ANONYMOUS", AclOperation.DESCRIBE_CONFIGS),
                (readable, "User:ANONYMOUS", AclOperation.DESCRIBE),
            )
        ]
        for done in admin.create_acls(acls).values():
            done.result(30)
        found = eventually(
            "the permissions are in force",
            lambda: [finding for finding in findings_of(settings)["permissions"] if finding.status == "fail"],
        )
    assert [finding.found for finding in found] == [
        f"topic {hidden}: no permission for READ, DESCRIBE_CONFIGS",
        f"topic {readable}: no permission for WRITE",
    ]
    assert f"--operation Read --operation DescribeConfigs --topic {hidden}" in found[0].remedy


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path, partitions=1)
    yield site
    site.close()


def test_running_workers_are_counted_and_their_metrics_port_is_checked(site: Site) -> None:
    worker = site.start().await_ready()
    found = findings_of(site.settings)
    assert statuses(found) == {check: {"ok"} for check in found}
    assert found["workers"][0].found.startswith(
        f"1 worker of {site.settings.worker.app_id} for 1 partition of "
    )
    assert "on 6 resources" in found["permissions"][0].found

    port = next(line["metrics_port"] for line in worker.lines() if "metrics_port" in line)
    config = str(site.directory / "streamguard.toml")
    environ = {
        "STREAMGUARD_WORKER_METRICS_PORT": str(port),
        "STREAMGUARD_SERVE_PORT": "0",
        "STREAMGUARD_SERVE_METRICS_PORT": "0",
    }
    run = CliRunner(env=environ).invoke(
        main, ["doctor", "--json", "--config", config, "--data-dir", str(worker.data_dir)]
    )
    assert run.exit_code == 0, run.output
    findings = msgspec.convert(json.loads(run.output)["findings"], list[Finding])
    (port_finding,) = [finding for finding in findings if finding.check == "ports"]
    assert port_finding.found == f"the worker at 127.0.0.1:{port} is live and ready"

    site.start("b")
    idle = eventually(
        "the second worker is reported as idle",
        lambda: [
            finding for finding in findings_of(site.settings)["workers"] if "1 worker idle" in finding.found
        ],
    )
    assert idle[0].status == "warn"
