"""The workers' consumer group: who is in it, and where its offsets stand in the log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.settings.schema import Settings

ANSWER_SECONDS = 4.0
SETTLE_SECONDS = 3.0
"""How long a coordinator that is just being found is asked again."""


def described(admin: Any, settings: Settings) -> Any | None:
    """What Kafka tells of the group; None if there is none.

    Listing comes first: asking for one group would make Kafka create its topic of offsets.
    """
    from confluent_kafka import KafkaError, KafkaException

    settling = (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    )
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            return _described(admin, settings.worker.app_id)
        except KafkaException as error:
            if error.args[0].code() not in settling or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _described(admin: Any, app: str) -> Any | None:
    from confluent_kafka import KafkaException

    found = admin.list_consumer_groups(request_timeout=ANSWER_SECONDS).result()
    if app in {group.group_id for group in found.valid}:
        return admin.describe_consumer_groups(
            [app], include_authorized_operations=True, request_timeout=ANSWER_SECONDS
        )[app].result()
    if found.errors:  # a broker did not tell: the group may be there
        raise KafkaException(found.errors[0])
    return None


def listed(admin: Any, cluster: Any, topic: str, what: Any) -> dict[int, Any]:
    """Partition -> the offset that is asked for; empty if there is no such topic."""
    from confluent_kafka import TopicPartition

    if topic not in cluster.topics:
        return {}
    asked = {TopicPartition(topic, partition): what for partition in cluster.topics[topic].partitions}
    answers = admin.list_offsets(asked, request_timeout=ANSWER_SECONDS) if asked else {}
    return {asked.partition: answer.result() for asked, answer in answers.items()}


def workers(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """Workers against partitions."""
    events, app = settings.kafka.events_topic, settings.worker.app_id
    about = described(admin, settings)
    state = about.state.name if about is not None else "EMPTY"
    if about is None or not about.members:
        yield warn("workers", f"no worker of {app} runs", "start one with `streamguard worker`")
        return
    if state != "STABLE":
        yield warn(
            "workers",
            f"the group {app} of {len(about.members)} workers is {state.lower().replace('_', ' ')}",
            "ask again; if that lasts, a worker comes and goes: look into their logs",
        )
        return
    held = {
        member.member_id: {tp.partition for tp in member.assignment.topic_partitions if tp.topic == events}
        for member in about.members
    }
    partitions = set(cluster.topics[events].partitions) if events in cluster.topics else set()
    found = f"{len(held)} of {app} for {len(partitions)} partitions of {events}"
    idle = sum(not held_by for held_by in held.values())
    if lost := partitions - set().union(*held.values()):
        yield fail(
            "workers",
            f"{found}: nobody reads partitions {sorted(lost)}",
            "see that all workers of this app_id have the same settings, and start one of them again",
        )
    elif idle:
        yield warn(
            "workers",
            f"{found}: {idle} of them {'is' if idle == 1 else 'are'} idle",
            "one is in reserve; for more throughput begin anew with more partitions, under another app_id"
            if idle == 1
            else "run fewer: a partition has one worker",
        )
    else:
        yield ok("workers", found)


def offsets(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """Committed offsets against what the log still has."""
    from confluent_kafka.admin import OffsetSpec

    topic, app = settings.kafka.events_topic, settings.worker.app_id
    committed = _committed(admin, settings, cluster)
    if not committed:
        yield ok("offsets", f"{app} has not committed any of {topic} yet")
        return
    first = listed(admin, cluster, topic, OffsetSpec.earliest())
    end = listed(admin, cluster, topic, OffsetSpec.latest())
    half = settings.kafka.events_retention_days / 2
    young = listed(
        admin, cluster, topic, OffsetSpec.for_timestamp(round((time.time() - half * 86_400) * 1000))
    )
    behind, healthy = 0, True
    for partition, offset in sorted(committed.items()):
        where = f"partition {partition} of {topic}: {app} stands at {offset}"
        start, stop = first[partition].offset, end[partition].offset
        behind += max(0, stop - offset)
        anew = "to start over, choose another worker.app_id"
        if offset < start:
            found = (
                f"{where}, the log begins at {start}: {start - offset} offsets expired before they were read"
            )
            yield fail("offsets", found, f"raise retention.ms, and {anew}")
        elif offset > stop:
            found = f"{where}, the log ends at {stop}: the topic was truncated or made again"
            yield fail("offsets", found, f"restore it, or, {anew}")
        elif offset < (young[partition].offset if young[partition].offset >= 0 else stop):
            found = (
                f"{where} of {stop}, and the next event is older than {half:g} days, half of the retention"
            )
            yield warn("offsets", found, "start workers, or more of them, or raise retention.ms")
        else:
            continue
        healthy = False
    if healthy:
        yield ok(
            "offsets",
            f"{app} is {behind:,} records behind in {len(committed)} partitions; none expired unread",
        )


def _committed(admin: Any, settings: Settings, cluster: Any) -> dict[int, int]:
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

    topic, app = settings.kafka.events_topic, settings.worker.app_id
    if topic not in cluster.topics or described(admin, settings) is None:
        return {}
    asked = [TopicPartition(topic, partition) for partition in cluster.topics[topic].partitions]
    answer = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(app, asked)], request_timeout=ANSWER_SECONDS
    )[app].result()
    return {tp.partition: tp.offset for tp in answer.topic_partitions if tp.offset >= 0}
