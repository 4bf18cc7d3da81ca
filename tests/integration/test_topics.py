"""`streamguard.kafka.topics` and `streamguard topics` against a real Kafka."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streamguard.cli.main import main
from streamguard.kafka import topics
from streamguard.settings.schema import Kafka, Settings, Worker
from streamguard.settings.sources import of_sources
from tests.harness import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(kafka: str) -> Settings:
    own = uuid.uuid4().hex[:8]
    return Settings(
        kafka=Kafka(
            bootstrap_servers=kafka,
            events_topic=f"events-{own}",
            sources_topic=f"sources-{own}",
            alerts_topic=f"alerts-{own}",
            campaigns_topic=f"campaigns-{own}",
            decisions_topic=f"decisions-{own}",
            audit_topic=f"audit-{own}",
            dead_letter_topic=f"dead-{own}",
            models_topic=f"models-{own}",
            partitions=3,
        ),
        worker=Worker(app_id=f"app-{own}"),
    )


def create_topic(settings: Settings, role: str, partitions: int = 3, **config: str) -> str:
    """Create the topic of one role with the given partitions and settings instead of the required ones."""
    name = topics.names(settings)[role]
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    config = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)
    return name


def alter_topic(settings: Settings, role: str, **config: str) -> None:
    """Change settings of the topic of one role."""
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    topic = ConfigResource(ResourceType.TOPIC, topics.names(settings)[role], incremental_configs=entries)
    admin.incremental_alter_configs([topic])[topic].result(30)


def described(settings: Settings, name: str) -> tuple[int, dict[str, str]]:
    """Number of partitions and settings of a topic."""
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    (answer,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
    config = {key: entry.value for key, entry in answer.result(30).items()}
    return len(admin.list_topics(name, timeout=30).topics[name].partitions), config


def test_created_topics_pass_the_check_and_have_the_required_settings(
    settings: Settings,
) -> None:
    assert sorted(topics.create(settings)) == sorted(topics.names(settings).values())
    assert topics.check(settings) == []
    assert topics.create(settings) == []

    name = topics.names(settings)
    partitions, events = described(settings, name["events"])
    assert (partitions, events["cleanup.policy"], events["retention.bytes"]) == (3, "delete", "-1")
    assert int(events["retention.ms"]) == 7 * 24 * 3600 * 1000
    partitions, changelog = described(settings, name["changelog"])
    assert (partitions, changelog["cleanup.policy"]) == (3, "compact")
    assert float(changelog["min.cleanable.dirty.ratio"]) == 0.2
    assert int(described(settings, name["alerts"])[1]["max.message.bytes"]) == 1_048_588
    partitions, sources = described(settings, name["sources"])
    assert (partitions, sources["cleanup.policy"], sources["retention.bytes"]) == (3, "delete", "-1")
    assert int(sources["retention.ms"]) == 3 * 24 * 3600 * 1000
    assert int(sources["max.message.bytes"]) > int(events["max.message.bytes"])
    assert described(settings, name["sources_changelog"])[1]["cleanup.policy"] == "compact"
    assert topics.require(of_sources(settings), topics.WORKER_ROLES) == []
    partitions, campaigns = described(settings, name["campaigns"])
    assert (partitions, campaigns["cleanup.policy"]) == (1, "compact")
    partitions, decisions = described(settings, name["decisions"])
    assert (partitions, decisions["cleanup.policy"]) == (1, "compact")
    assert int(decisions["delete.retention.ms"]) == 7 * 24 * 3600 * 1000
    partitions, audit = described(settings, name["audit"])
    assert (partitions, audit["cleanup.policy"]) == (1, "delete")
    assert (int(audit["retention.ms"]), audit["retention.bytes"]) == (365 * 24 * 3600 * 1000, "-1")
    assert int(described(settings, name["alerts"])[1]["retention.ms"]) == 90 * 24 * 3600 * 1000
    _, dead_letter = described(settings, name["dead_letter"])
    assert int(dead_letter["max.message.bytes"]) > int(events["max.message.bytes"])
    assert dead_letter["retention.ms"] == events["retention.ms"]
    assert dead_letter["retention.bytes"] == str(1 << 30)


LASTING = (
    *(
        "events",
        "sources",
        "sources_changelog",
        "alerts",
        "campaigns",
        "decisions",
        "audit",
        "dead_letter",
        "changelog",
    ),
)
"""Roles of the topics that must not lose an acknowledged record."""


def test_a_deviation_from_a_recommended_value_is_a_warning_until_it_is_altered(
    settings: Settings, settings_file: str
) -> None:
    topics.create(settings)
    for role in LASTING:
        alter_topic(settings, role, **{"unclean.leader.election.enable": "true"})

    recommended = eventually(
        "the broker shows the changed settings",
        lambda: found if len(found := topics.require(settings)) == len(LASTING) else None,
    )
    assert [deviation.found for deviation in recommended] == [
        f"{topics.names(settings)[role]} has unclean.leader.election.enable=true, recommended false"
        for role in LASTING
    ]
    assert not any(deviation.required for deviation in recommended)
    run = CliRunner().invoke(main, ["topics", "check", "--config", settings_file])
    assert run.exit_code == 0
    assert run.stderr.count("Warning: ") == len(LASTING)
    assert "run `streamguard topics create --alter`" in run.stderr

    topics.create(settings, alter=True)
    assert topics.check(settings) == []
    for role in LASTING:
        config = described(settings, topics.names(settings)[role])[1]
        assert config["unclean.leader.election.enable"] == "false"


def test_record_times_set_by_senders_are_reported_and_altered(settings: Settings, settings_file: str) -> None:
    topics.create(settings)
    alter_topic(settings, "events", **{"message.timestamp.type": "CreateTime"})
    eventually("the broker shows the changed setting", lambda: topics.require(settings))

    run = CliRunner().invoke(main, ["topics", "check", "--config", settings_file])
    assert run.exit_code == 0
    assert "has message.timestamp.type=CreateTime, recommended LogAppendTime" in run.stderr
    assert "record times set by senders decide when Kafka deletes records" in run.stderr

    topics.create(settings, alter=True)
    assert topics.check(settings) == []


@pytest.mark.parametrize(
    ("factor", "existing", "replicas"), [(1, 0, "1"), (2, 0, "1"), (3, 0, "2"), (3, 1, "1"), (1, 3, "2")]
)
def test_two_replicas_are_in_sync_if_the_topic_has_three(
    factor: int, existing: int, replicas: str, settings: Settings
) -> None:
    kafka = msgspec.structs.replace(settings.kafka, replication_factor=factor)
    there = dict.fromkeys(topics.names(settings).values(), (3, existing)) if existing else {}
    wanted = topics._wanted(msgspec.structs.replace(settings, kafka=kafka), there)
    by_name = {topic.name: topic for topic in wanted}
    for role in LASTING:
        least = by_name[topics.names(settings)[role]].settings["min.insync.replicas"]
        assert (least.value, least.required) == (replicas, False)
        assert least.accepts("3")


def test_a_cluster_that_refuses_recommended_values_still_gets_its_topics(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This broker knows no such value and answers INVALID_CONFIG, as a hosted cluster does for values of its own.
    wanted = topics._wanted

    def with_refused(settings: Settings, *existing: Any) -> list[topics.Topic]:
        found = wanted(settings, *existing)
        for topic in found:
            topic.settings["min.insync.replicas"] = topics.Wanted("none", required=False)
        return found

    monkeypatch.setattr(topics, "_wanted", with_refused)
    assert sorted(topics.create(settings)) == sorted(topics.names(settings).values())
    with pytest.raises(topics.TopicsError, match="did not change the settings"):
        topics._alter(topics._admin(settings)[0], with_refused(settings, {}), required=False)
    recommended = [deviation.found for deviation in topics.require(settings)]
    assert len([found for found in recommended if "min.insync.replicas" in found]) == 10
    assert any("message.timestamp.type" in found for found in recommended)


def test_check_reports_every_missing_topic_with_the_remedy(settings: Settings) -> None:
    deviations = list(map(str, topics.check(settings)))
    assert len(deviations) == 10
    for name, deviation in zip(topics.names(settings).values(), deviations, strict=True):
        assert deviation == (
            f"the topic {name} does not exist at {settings.kafka.bootstrap_servers}: correct its name in [kafka], or "
            "run `streamguard topics create`"
        )


def test_processes_require_only_the_topics_that_they_use(settings: Settings) -> None:
    create_topic(settings, "alerts", max_message_bytes="1048588")
    create_topic(settings, "campaigns", 1, cleanup_policy="compact", delete_retention_ms="604800000")
    assert not [
        one for one in topics.check(settings, topics.CAMPAIGNS_ROLES) if "does not exist" in one.found
    ]
    missing = [
        one.found for one in topics.check(settings, topics.WORKER_ROLES) if "does not exist" in one.found
    ]
    assert len(missing) == len(topics.WORKER_ROLES) - 1
    assert not any(topics.names(settings)["campaigns"] in found for found in missing)


def test_check_reports_the_deviating_setting_with_found_and_required_value(settings: Settings) -> None:
    events = create_topic(settings, "events", 5, retention_ms="3600000")
    changelog = create_topic(settings, "changelog", cleanup_policy="compact,delete")
    assert set(topics.create(settings)) == set(topics.names(settings).values()) - {events, changelog}

    deviations = list(map(str, topics.check(settings)))
    by_topic = {
        name: [line for line in deviations if line.startswith(f"{name} ")] for name in (events, changelog)
    }
    assert "has 5 partitions, required 3" in by_topic[events][0]
    assert "retention.ms=3600000, required at least 604800000" in by_topic[events][1]
    assert "cleanup.policy=compact,delete, required compact" in by_topic[changelog][0]
    assert sum(map(len, by_topic.values())) == len(deviations)


def test_alter_corrects_settings_but_never_partitions(settings: Settings) -> None:
    events = create_topic(settings, "events", 5, retention_ms="3600000", segment_ms="1234567")
    create_topic(settings, "changelog", cleanup_policy="delete")
    topics.create(settings, alter=True)
    (deviation,) = topics.check(settings)
    assert deviation.found == f"{events} has 5 partitions, required 3"
    assert described(settings, events)[1]["segment.ms"] == "1234567"


def test_longer_retention_than_required_is_accepted(settings: Settings) -> None:
    create_topic(settings, "events", retention_ms="-1")
    topics.create(settings)
    assert topics.require(settings) == [d for d in topics.check(settings) if "LogAppendTime" in d.found]


def test_a_shorter_retention_of_incidents_is_a_warning_until_it_is_altered(settings: Settings) -> None:
    alerts = create_topic(settings, "alerts", retention_ms="604800000")
    topics.create(settings)
    assert [one.found for one in topics.require(settings, topics.SERVING_ROLES)] == [
        f"{alerts} has retention.ms=604800000, recommended at least 7776000000 (a server that rebuilds its store does "
        "not find older incidents)"
    ]
    topics.create(settings, alter=True)
    assert topics.check(settings) == []


def test_retention_by_size_and_a_too_small_record_limit_are_reported(settings: Settings) -> None:
    events = create_topic(settings, "events", retention_bytes="1000000")
    alerts = create_topic(settings, "alerts", max_message_bytes="2000")
    topics.create(settings)
    required = [deviation.found for deviation in topics.check(settings) if deviation.required]
    assert {found.partition(", required")[0] for found in required} == {
        f"{events} has retention.bytes=1000000",
        f"{alerts} has max.message.bytes=2000",
    }
    topics.create(settings, alter=True)
    assert topics.check(settings) == []


def test_log_append_time_is_accepted_and_not_altered(settings: Settings) -> None:
    create_topic(settings, "events", message_timestamp_type="LogAppendTime")
    topics.create(settings, alter=True)
    assert topics.check(settings) == []
    events = topics.names(settings)["events"]
    assert described(settings, events)[1]["message.timestamp.type"] == "LogAppendTime"


@pytest.fixture
def settings_file(settings: Settings, tmp_path: Path) -> str:
    path = tmp_path / "streamguard.toml"
    sections = msgspec.to_builtins(settings)
    path.write_text(
        "".join(
            f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
            for section, values in sections.items()
        )
    )
    return str(path)


def test_check_command_exits_with_78_until_the_topics_are_created(
    settings: Settings, settings_file: str
) -> None:
    run = CliRunner().invoke(main, ["topics", "check", "--config", settings_file])
    assert run.exit_code == 78
    assert topics.names(settings)["changelog"] in run.output

    run = CliRunner().invoke(main, ["topics", "create", "--config", settings_file])
    assert run.exit_code == 0
    assert f"created {topics.names(settings)['events']}" in run.output

    run = CliRunner().invoke(main, ["topics", "check", "--config", settings_file])
    assert run.exit_code == 0


def test_check_command_without_a_broker_exits_with_69(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "_TIMEOUT", 0.5)
    run = CliRunner().invoke(main, ["topics", "check", "--bootstrap-servers", "127.0.0.1:1"])
    assert run.exit_code == 69
    assert "no Kafka answers at 127.0.0.1:1" in run.output
    assert "streamguard broker" in run.output
