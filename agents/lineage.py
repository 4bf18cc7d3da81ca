"""Whether stored state and its topics still belong together; if not, the worker refuses to go on."""

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


async def describe_topics(bootstrap_servers: str, topics: list[str]) -> dict[str, tuple[str, int]]:
    """(Kafka's id, number of partitions) of each topic: one that is deleted and made again gets another id."""
    return await asyncio.to_thread(_describe_topics, bootstrap_servers, topics)


def _describe_topics(bootstrap_servers: str, topics: list[str]) -> dict[str, tuple[str, int]]:
    from confluent_kafka import TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    described = admin.describe_topics(TopicCollection(topics), request_timeout=30)
    found = {topic: future.result() for topic, future in described.items()}
    return {topic: (str(d.topic_id), len(d.partitions)) for topic, d in found.items()}


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
        f"to start over, stop all workers, delete {directory} on each and the topic {topic}, create it again "
        "with `streamguard topics create`, and start them: they learn again from the first event that is kept"
    )
    if local is not None and local.changelog_id != topic_id:
        raise RefusedError(
            f"the changelog {topic} was deleted and made again (id {local.changelog_id}, now {topic_id}) "
            f"while the local state of partition {partition} had read it up to offset {local.position}; "
            f"{remedy}"
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
    remedy = (
        "to start over, set another worker.app_id, run `streamguard topics create` and start "
        "the workers: they learn again from the first event that is kept"
    )
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
