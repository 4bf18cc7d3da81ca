"""Whether stored state and the topics it came from still belong together; if not, the worker refuses to go on."""

from __future__ import annotations

import asyncio

import msgspec

from agents.exits import RefusedError
from agents.table import RESERVED, Local

SOURCE = RESERVED + b"source"
"""Changelog key of `Source`: it survives the loss of the local directory."""


class Source(msgspec.Struct, frozen=True):
    """The topic whose events are in the state."""

    topic: str
    id: str


async def topic_ids(bootstrap_servers: str, topics: list[str]) -> dict[str, str]:
    """Kafka's ids of `topics`: a topic that is deleted and made again gets another one."""
    return await asyncio.to_thread(_topic_ids, bootstrap_servers, topics)


def _topic_ids(bootstrap_servers: str, topics: list[str]) -> dict[str, str]:
    from confluent_kafka import TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    described = admin.describe_topics(TopicCollection(topics), request_timeout=30)
    return {topic: str(future.result().topic_id) for topic, future in described.items()}


def check_changelog(
    topic: str, partition: int, topic_id: str, start: int, end: int, local: Local | None, directory: object
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
    >>> check_changelog("state", 0, "a", 0, 90, Local("a", 70), "data")
    70
    """
    remedy = (
        f"to start over, stop all workers, delete {directory} on each and the topic {topic}, create it again with "
        f"`streamguard topics create`, and start them: they learn again from the first event that is still kept"
    )
    if local is not None and local.changelog_id != topic_id:
        raise RefusedError(
            f"the changelog {topic} was deleted and made again (id {local.changelog_id}, now {topic_id}) while the "
            f"local state of partition {partition} had read it up to offset {local.position}; {remedy}"
        )
    position = local.position if local is not None else 0
    if position > end:
        raise RefusedError(
            f"partition {partition} of the changelog {topic} ends at offset {end}, but the local state has read it up "
            f"to {position}: committed records were lost; {remedy}"
        )
    if position < start:
        raise RefusedError(
            f"partition {partition} of the changelog {topic} starts at offset {start}, but the local state has read it "
            f"up to {position}: records between were deleted (cleanup.policy has to be `compact`); {remedy}"
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
    remedy = (
        "to start over, use another app_id (setting worker.app_id), run `streamguard topics create` and start the "
        "workers: they learn again from the first event that is still kept"
    )
    if stored is not None and stored != source:
        what = (
            f"was deleted and made again (id {stored.id}, now {source.id})"
            if stored.topic == topic
            else f"is not the topic of the stored state ({stored.topic})"
        )
        raise RefusedError(
            f"the topic {topic} {what}; the state of partition {partition} stands at offset {next_offset} of the old "
            f"one, the new one has offsets {start} to {end}; {remedy}"
        )
    if end < next_offset:
        raise RefusedError(
            f"partition {partition} of {topic} ends at offset {end}, but its state stands at {next_offset}: events that "
            f"were scored are gone from the topic (was it truncated or restored?); {remedy}"
        )
    if start > next_offset:
        raise RefusedError(
            f"partition {partition} of {topic} starts at offset {start}, but its state stands at {next_offset}: "
            f"{start - next_offset} offsets expired before they were read (raise retention.ms); {remedy}"
        )
    return next_offset
