"""Checks that the stored state and its topics still belong together; if they do not, the worker ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from streamguard.agents.errors import RefusedError
from streamguard.agents.task.store import RESERVED, ChangelogPosition
from streamguard.errors import UnavailableError
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.text import counted

TOPIC_KEY = RESERVED + b"source"
"""Changelog key of `TopicIdentity`; the changelog keeps it when the local directory is lost."""

START_OVER = (
    "set another worker.app_id, run `streamguard topics create` and start the workers: "
    "they learn again from the first event that Kafka still has"
)
"""The remedy that is always possible."""


class TopicIdentity(msgspec.Struct, frozen=True):
    """The topic whose events are folded into the state."""

    topic: str
    id: str


@dataclass(frozen=True, slots=True)
class Topics:
    """Events topic and changelog of a worker with Kafka's ids, looked up once per assignment."""

    source: TopicIdentity
    changelog: str
    changelog_id: str

    @classmethod
    async def describe(cls, settings: Settings) -> Topics:
        """Read the topics from Kafka, and check them if the number of partitions has changed."""
        source, changelog = (topics.names(settings)[role] for role in ("events", "changelog"))
        described = await asyncio.to_thread(_describe, Brokers.of(settings), [source, changelog])
        if any(count != settings.kafka.partitions for _, count in described.values()):
            await asyncio.to_thread(topics.require, settings)
        return cls(TopicIdentity(source, described[source][0]), changelog, described[changelog][0])


def _describe(brokers: Brokers, topics: list[str]) -> dict[str, tuple[str, int]]:
    """(Kafka's id, number of partitions) of each topic; a topic that is deleted and created again has another id."""
    from confluent_kafka import TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(brokers.librdkafka())
    described = admin.describe_topics(TopicCollection(topics), request_timeout=30)
    found = {topic: future.result() for topic, future in described.items()}
    return {topic: (str(d.topic_id), len(d.partitions)) for topic, d in found.items()}


async def committed_offset(brokers: Brokers, group: str, topic: str, partition: int) -> int | None:
    """Offset that a group has committed for a partition, or None."""
    return await asyncio.to_thread(_committed_offset, brokers, group, topic, partition)


def _committed_offset(brokers: Brokers, group: str, topic: str, partition: int) -> int | None:
    from confluent_kafka import Consumer, TopicPartition

    # The admin client could read this offset, too, but librdkafka 2.16 crashes if the group has no coordinator yet.
    consumer = Consumer(brokers.librdkafka() | {"group.id": group})
    try:
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=30)
    finally:
        consumer.close()
    if found.error is not None:
        raise UnavailableError(
            f"the committed offset of the group {group} for partition {partition} of {topic} cannot be read: "
            f"{found.error}"
        )
    return int(found.offset) if found.offset >= 0 else None


def check_unlearned(source: str, changelog: str, partition: int, group: str, committed: int | None) -> None:
    """Check that a partition without any state has never been learned.

    Workers commit an offset to their group only when its checkpoint is in the changelog. A committed offset without a
    changelog therefore means that the changelog was lost, not that this is the first start.

    Raises
    ------
    RefusedError
        If the group has committed an offset, although no state exists.

    Examples
    --------
    >>> check_unlearned("events", "state", 0, "streamguard", None)
    """
    if committed:
        raise RefusedError(
            f"no state of partition {partition} of {source} exists in the data directory or in the changelog "
            f"{changelog}, but the group {group} has committed offset {committed}: the changelog was deleted and "
            f"created again; restore it, or, to start over, {START_OVER}. To start over under the same app_id, stop "
            f"all workers and run `kafka-consumer-groups.sh --bootstrap-server HOST:PORT --delete-offsets --group "
            f"{group} --topic {source}`"
        )


def check_changelog(
    topic: str, partition: int, topic_id: str, start: int, end: int, local: ChangelogPosition | None
) -> int:
    """Return the changelog offset from which to read.

    Parameters
    ----------
    start, end
        First retained offset, and end of the committed records.
    local
        Metadata of the local copy; None without one.

    Raises
    ------
    RefusedError
        If the changelog does not continue the local copy, or has lost its beginning.

    Examples
    --------
    >>> check_changelog("state", 0, "a", 0, 90, ChangelogPosition("a", 70))
    70
    """
    remedy = f"to start over, {START_OVER}"
    if local is not None and local.changelog_id != topic_id:
        raise RefusedError(
            f"the changelog {topic} was deleted and created again (id {local.changelog_id}, now {topic_id}) after "
            f"the local state of partition {partition} had read it up to offset {local.position}; if the whole "
            f"Kafka cluster is new, delete the worker's data directory; otherwise, {remedy}"
        )
    position = local.position if local is not None else 0
    where = f"partition {partition} of the changelog {topic}"
    if position > end:
        raise RefusedError(
            f"{where} ends at offset {end}, but the local state has read it up to {position}: committed records "
            f"were lost; {remedy}"
        )
    if position < start:
        raise RefusedError(
            f"{where} starts at offset {start}, but the local state has read it up to {position}: the records "
            f"between these offsets were deleted (cleanup.policy must be `compact`); {remedy}"
        )
    return position


def check_source(
    source: TopicIdentity,
    partition: int,
    start: int,
    end: int,
    stored: TopicIdentity | None,
    next_offset: int | None,
) -> int:
    """Return the source offset from which to continue.

    Parameters
    ----------
    source, stored
        The topic as it is now, and as the state stores it (None before the first checkpoint).
    start, end
        First retained offset, and end of the committed records.
    next_offset
        The first offset that is not in the state.

    Raises
    ------
    RefusedError
        If the topic is a different one, has lost events that were not read yet, or lacks events that were read.

    Examples
    --------
    >>> check_source(TopicIdentity("events", "a"), 0, 0, 90, TopicIdentity("events", "a"), 70)
    70
    """
    if next_offset is None:
        return start
    topic = source.topic
    where = f"partition {partition} of {topic}"
    state_offset = f"its state has reached offset {next_offset}"
    remedy = f"to start over, {START_OVER}"
    if stored is not None and stored != source:
        recreated = stored.topic == topic
        problem = (
            f"was deleted and created again (id {stored.id}, now {source.id})"
            if recreated
            else f"is not the topic of the stored state ({stored.topic})"
        )
        correction = "" if recreated else f"set kafka.events_topic to {stored.topic}, or, "
        raise RefusedError(
            f"the topic {topic} {problem}; of partition {partition}, the state has reached offset {next_offset} of "
            f"the old topic, and the new topic has offsets {start} to {end}; {correction}{remedy}"
        )
    if end < next_offset:
        raise RefusedError(
            f"{where} ends at offset {end}, but {state_offset}: events that were scored are no longer in the topic; "
            f"find out whether it was truncated or restored from a backup; {remedy}"
        )
    if start > next_offset:
        raise RefusedError(
            f"{where} starts at offset {start}, but {state_offset}: {counted(start - next_offset, 'offset')} expired "
            f"before they were read; {remedy}, and raise the topic's retention.ms so that it does not happen again"
        )
    return next_offset
