"""Checks that the stored state and its topics still belong together; if they do not, the worker ends.

The functions are pure: they get what the brokers and the disk answered, and return what to do or raise an error whose
message names the least destructive remedy first.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from streamguard.agents.errors import RefusedError
from streamguard.errors import TemporaryError, UnavailableError
from streamguard.kafka.connection import Brokers
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.store import RESERVED, ChangelogPosition
from streamguard.text import counted

TOPIC_KEY = RESERVED + b"source"
"""Key of `TopicIdentity` in states that were saved before checkpoints had an identity."""

START_OVER = (
    "set another worker.app_id, run `streamguard topics create` and start the workers: "
    "they learn again from the first event that Kafka still has"
)
"""The remedy that is always possible. It loses what was learned, so it is named last, and only if no other is exact."""


class OpenTransactionError(TemporaryError):
    """A transaction of another producer hides the end of a log; it ends by itself, and nothing is lost."""


class Bounds(NamedTuple):
    """Offsets of a log."""

    start: int
    """First retained offset."""
    stable: int
    """Last stable offset: where the first open transaction begins, or `end`. Readers see committed records before."""
    end: int
    """High watermark: the end of all records."""


class SavedState(NamedTuple):
    """What a changelog says about the state that it contains."""

    identity: StateIdentity | None = None
    """Identity of the last checkpoint; None if it has none, or if there is no checkpoint."""
    exists: bool = False
    """Whether there is a checkpoint."""
    complete_from: int = 0
    """Value of `COMPLETE_KEY`."""


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


def check_stable(topic: str, partition: int, bounds: Bounds) -> None:
    """Check that no open transaction hides committed records of the changelog.

    Raises
    ------
    OpenTransactionError
        If one does. This worker's own transactions are over when it has registered as the writer.

    Examples
    --------
    >>> check_stable("state", 0, Bounds(0, 90, 90))
    """
    if bounds.stable < bounds.end:
        raise OpenTransactionError(_open_transaction(topic, partition, bounds))


def _open_transaction(topic: str, partition: int, bounds: Bounds) -> str:
    return (
        f"a transaction of another program is open in partition {partition} of {topic} at offset {bounds.stable}, and "
        f"records up to offset {bounds.end} cannot be read before it ends; nothing is lost: start the worker again "
        "when the transaction has ended, at the latest after its time-out (15 minutes by default), or end it with "
        "`kafka-transactions.sh --bootstrap-server HOST:PORT abort "
        f"--topic {topic} --partition {partition} --start-offset {bounds.stable}`. Only StreamGuard should write to a "
        "changelog"
    )


def continues(local: ChangelogPosition | None, identity: StateIdentity, bounds: Bounds) -> bool:
    """Whether the changelog continues the local copy, so that only the records after it have to be read.

    Without a copy, this is the case for a changelog that still has its first record.

    Examples
    --------
    >>> identity = StateIdentity("streamguard", 0, TopicIdentity("events", "s"), "a")
    >>> continues(ChangelogPosition("a", 70), identity, Bounds(0, 90, 90))
    True
    """
    if local is None:
        return bounds.start == 0
    return local.changelog_id == identity.changelog_id and bounds.start <= local.position <= bounds.end


def check_whole(
    changelog: str,
    identity: StateIdentity,
    bounds: Bounds,
    local: ChangelogPosition | None,
    saved: SavedState,
) -> None:
    """Check that the whole changelog may replace a copy that it does not continue; `continues` is False.

    Parameters
    ----------
    changelog
        Name of the changelog.
    identity
        What the state has to belong to.
    bounds
        Offsets of the changelog's partition.
    local
        The copy; None if there is none.
    saved
        What the changelog contains.

    Raises
    ------
    RefusedError
        If the changelog does not contain the state.
    """
    where = f"partition {identity.partition} of the changelog {changelog}"
    remedy = f"to start over, {START_OVER}"
    if local is not None and local.changelog_id != identity.changelog_id:
        if not (saved.exists and saved.identity == identity):
            raise RefusedError(
                f"the changelog {changelog} was deleted and created again (id {local.changelog_id}, now "
                f"{identity.changelog_id}) after the local state of partition {identity.partition} had read it up to "
                f"offset {local.position}, and the new one does not contain the whole state. If this data directory "
                "belongs to another Kafka cluster, give the worker another --data-dir, or move the directory away; "
                f"otherwise, {remedy}"
            )
    elif local is not None and local.position > bounds.end:
        foreign = (
            ""
            if local.identity is not None
            else "If the directory is that of another partition, application or cluster, move it away: the worker then "
            "reads the whole changelog. Otherwise, "
        )
        raise RefusedError(
            f"{where} ends at offset {bounds.end}, but the local state has read it up to {local.position}: committed "
            f"records were lost. {foreign}{'if' if foreign else 'If'} a broker that still has them is down, or an "
            f"older backup of the brokers was restored, bring the newer log back; if it is gone, {remedy}"
        )
    if bounds.start > saved.complete_from:
        copy = (
            "there is no local copy"
            if local is None or local.changelog_id != identity.changelog_id
            else f"the local state has read it only up to {local.position}"
        )
        raise RefusedError(
            f"{where} starts at offset {bounds.start}, and {copy}: the records before were deleted (cleanup.policy "
            "must be `compact`, and nobody may delete records). If another worker's data directory, or a backup of "
            "one, has a complete copy of this partition, start the worker with that directory: it writes the whole "
            f"state into the changelog again; otherwise, {remedy}"
        )


def check_identity(changelog: str, identity: StateIdentity, stored: StateIdentity | None) -> None:
    """Check that the last checkpoint was saved for this application and partition, and into this changelog.

    Raises
    ------
    RefusedError
        If it was not.

    Examples
    --------
    >>> check_identity("state", StateIdentity("streamguard", 0, TopicIdentity("events", "s"), "a"), None)
    """
    if stored is None:
        return
    where = f"partition {identity.partition} of the changelog {changelog}"
    remedy = f"to start over, {START_OVER}"
    if (stored.app_id, stored.partition) != (identity.app_id, identity.partition):
        raise RefusedError(
            f"{where} contains the state of partition {stored.partition} of the application {stored.app_id}, not that "
            f"of {identity.app_id}: another program copied records into it; {remedy}"
        )
    if stored.changelog_id != identity.changelog_id:
        raise RefusedError(
            f"{where} was deleted and created again (id {stored.changelog_id}, now {identity.changelog_id}) while a "
            f"worker was running, or its records were copied from another topic: its last checkpoint belongs to the "
            f"old topic, so it does not contain the whole state; {remedy}"
        )


def check_source(
    source: TopicIdentity,
    partition: int,
    bounds: Bounds,
    stored: TopicIdentity | None,
    next_offset: int | None,
) -> int:
    """Return the source offset from which to continue.

    Parameters
    ----------
    source, stored
        The topic as it is now, and as the state stores it (None before the first checkpoint).
    bounds
        Offsets of the topic's partition.
    next_offset
        The first offset that is not in the state.

    Raises
    ------
    RefusedError
        If the topic is a different one, has lost events that were not read yet, or lacks events that were read.
    OpenTransactionError
        If an open transaction hides events that were read.

    Examples
    --------
    >>> check_source(TopicIdentity("events", "a"), 0, Bounds(0, 90, 90), TopicIdentity("events", "a"), 70)
    70
    """
    if next_offset is None:
        return bounds.start
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
            f"the old topic, and the new topic has offsets {bounds.start} to {bounds.stable}; {correction}{remedy}"
        )
    if bounds.end < next_offset:
        raise RefusedError(
            f"{where} ends at offset {bounds.end}, but {state_offset}: events that were scored are no longer in the "
            "topic. If a broker that still has them is down, or an older backup of the brokers was restored, bring the "
            f"newer log back; if it is gone, {remedy}"
        )
    if bounds.stable < next_offset:
        raise OpenTransactionError(_open_transaction(topic, partition, bounds))
    if bounds.start > next_offset:
        raise RefusedError(
            f"{where} starts at offset {bounds.start}, but {state_offset}: "
            f"{counted(bounds.start - next_offset, 'offset')} expired before they were read; {remedy}, and raise the "
            "topic's retention.ms so that it does not happen again"
        )
    return next_offset
