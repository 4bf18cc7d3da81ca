"""Whether stored state and its topics still belong together; if not, the worker refuses to go on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from streamguard.agents.errors import RefusedError
from streamguard.agents.task.store import RESERVED, Local
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings

SOURCE = RESERVED + b"source"
"""Changelog key of `Source`: it survives the loss of the local directory."""

ANEW = (
    "set another worker.app_id, run `streamguard topics create` and start the workers: "
    "they learn again from the first event that is kept"
)
"""The remedy that is always there."""


class Source(msgspec.Struct, frozen=True):
    """The topic whose events are in the state."""

    topic: str
    id: str


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics a worker lives on, with Kafka's ids for them, looked up once per assignment."""

    source: Source
    changelog: str
    changelog_id: str

    @classmethod
    async def describe(cls, settings: Settings) -> Topics:
        """Ask Kafka; a topic that has another number of partitions by now is refused."""
        source, changelog = (topics.names(settings)[role] for role in ("events", "changelog"))
        described = await asyncio.to_thread(_describe, Brokers.of(settings), [source, changelog])
        if any(count != settings.kafka.partitions for _, count in described.values()):
            await asyncio.to_thread(topics.require, settings)
        return cls(Source(source, described[source][0]), changelog, described[changelog][0])


def _describe(brokers: Brokers, topics: list[str]) -> dict[str, tuple[str, int]]:
    """(Kafka's id, number of partitions) of each topic: one that is deleted and made again gets another id."""
    from confluent_kafka import TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(brokers.librdkafka())
    described = admin.describe_topics(TopicCollection(topics), request_timeout=30)
    found = {topic: future.result() for topic, future in described.items()}
    return {topic: (str(d.topic_id), len(d.partitions)) for topic, d in found.items()}


async def committed_offset(brokers: Brokers, group: str, topic: str, partition: int) -> int | None:
    """The offset that a group has committed; None without one."""
    return await asyncio.to_thread(_committed_offset, brokers, group, topic, partition)


def _committed_offset(brokers: Brokers, group: str, topic: str, partition: int) -> int | None:
    from confluent_kafka import Consumer, TopicPartition

    # Not the admin client's question for it: librdkafka 2.16 crashes if the group's coordinator is not there yet.
    consumer = Consumer(brokers.librdkafka() | {"group.id": group})
    try:
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=30)
    finally:
        consumer.close()
    if found.error is not None:
        raise RuntimeError(f"Kafka does not say what the group {group} has committed: {found.error}")
    return int(found.offset) if found.offset >= 0 else None


def check_unlearned(source: str, changelog: str, partition: int, group: str, committed: int | None) -> None:
    """See that a partition without any state is one that was never learned.

    Workers commit an offset to their group only when a checkpoint of it is in the changelog. So an offset without
    a changelog means that the changelog was lost, and not that this is the first start.

    Raises
    ------
    RefusedError
        If the group has been further than the state, which is nowhere.

    Examples
    --------
    >>> check_unlearned("events", "state", 0, "streamguard", None)
    """
    if committed:
        raise RefusedError(
            f"there is no state for partition {partition} of {source}, neither here nor in the changelog "
            f"{changelog}, but the group {group} has committed offset {committed}: the changelog was deleted "
            f"and made again; restore it, or, to start over, {ANEW}. To start over under the same app_id, "
            f"stop all workers and run `kafka-consumer-groups.sh --bootstrap-server HOST:PORT --delete-offsets "
            f"--group {group} --topic {source}`"
        )


def check_changelog(
    topic: str, partition: int, topic_id: str, start: int, end: int, local: Local | None
) -> int:
    """The changelog offset to read from.

    Parameters
    ----------
    start, end
        First offset kept, end of the committed records.
    local
        What the local copy says of itself; None without one.

    Raises
    ------
    RefusedError
        If the changelog does not continue the local copy, or has lost its beginning.

    Examples
    --------
    >>> check_changelog("state", 0, "a", 0, 90, Local("a", 70))
    70
    """
    remedy = f"to start over, {ANEW}"
    if local is not None and local.changelog_id != topic_id:
        raise RefusedError(
            f"the changelog {topic} was deleted and made again (id {local.changelog_id}, now {topic_id}) "
            f"while the local state of partition {partition} had read it up to offset {local.position}; "
            f"if all of that Kafka is new, delete the worker's data directory; else, {remedy}"
        )
    position = local.position if local is not None else 0
    where = f"partition {partition} of the changelog {topic}"
    if position > end:
        raise RefusedError(
            f"{where} ends at offset {end}, but the local state has "
            f"read it up to {position}: committed records were lost; {remedy}"
        )
    if position < start:
        raise RefusedError(
            f"{where} starts at offset {start}, but the local state has read it up to {position}: records "
            f"between were deleted (cleanup.policy has to be `compact`); {remedy}"
        )
    return position


def check_source(
    source: Source, partition: int, start: int, end: int, stored: Source | None, next_offset: int | None
) -> int:
    """The source offset to go on from.

    Parameters
    ----------
    source, stored
        The topic as it is now, and as the state remembers it (None before the first checkpoint).
    start, end
        First offset kept, end of the committed records.
    next_offset
        The first offset that is not in the state.

    Raises
    ------
    RefusedError
        If the topic is another one, or has lost events that were not read, or lacks events that were.

    Examples
    --------
    >>> check_source(Source("events", "a"), 0, 0, 90, Source("events", "a"), 70)
    70
    """
    if next_offset is None:
        return start
    topic = source.topic
    where = f"partition {partition} of {topic}"
    stands = f"its state stands at offset {next_offset}"
    remedy = f"to start over, {ANEW}"
    if stored is not None and stored != source:
        what = (
            f"was deleted and made again (id {stored.id}, now {source.id})"
            if stored.topic == topic
            else f"is not the topic of the stored state ({stored.topic})"
        )
        raise RefusedError(
            f"the topic {topic} {what}; for partition {partition}, {stands} of the old one, the new one has "
            f"offsets {start} to {end}; {remedy}"
        )
    if end < next_offset:
        raise RefusedError(
            f"{where} ends at offset {end}, but {stands}: events that were scored are gone from the topic "
            f"(was it truncated or restored?); {remedy}"
        )
    if start > next_offset:
        raise RefusedError(
            f"{where} starts at offset {start}, but {stands}: {start - next_offset} offsets expired before "
            f"they were read (raise retention.ms); {remedy}"
        )
    return next_offset
