"""Reads the keys of the hashes of the workers' state from the changelog."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamguard.errors import UnavailableError
from streamguard.state.partition import HASH_KEY
from streamguard.text import counted

_PATIENCE = 30.0
"""Seconds to wait for an answer of a broker."""


def read_hash_keys(consumer: Any, changelog: str) -> dict[int, bytes]:
    """Read the key of each partition that a worker has folded.

    A worker writes the key before everything else, so it is among the first records of its partition; compaction keeps
    it there. Only in a state that version 0.1.0 began, it is further back.

    Parameters
    ----------
    consumer
        A `confluent_kafka.Consumer` that reads committed records and reports ends of partitions.
    changelog
        Name of the topic. If it does not exist, no worker has run yet, and no partition has a key.

    Raises
    ------
    UnavailableError
        If the changelog cannot be read.
    """
    from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

    topic = consumer.list_topics(timeout=_PATIENCE).topics.get(changelog)
    if topic is None or topic.error is not None:
        return {}
    keys: dict[int, bytes] = {}
    unread = {p: TopicPartition(changelog, p, OFFSET_BEGINNING) for p in topic.partitions}
    consumer.assign(list(unread.values()))
    while unread:
        message = consumer.poll(_PATIENCE)
        if message is None:
            raise UnavailableError(
                f"{_listed(unread)} of {changelog} {'does' if len(unread) == 1 else 'do'} not answer within "
                f"{_PATIENCE:.0f} s: check the brokers, then run again"
            )
        error, partition = message.error(), message.partition()
        if error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            continue  # the client asks for its group, which is never used
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise UnavailableError(
                f"partition {partition} of {changelog} cannot be read ({error.str()}): grant this Kafka user READ on "
                "the topic (`streamguard topics acls retrain` prints the command), then run again"
            )
        if error is None and message.key() == HASH_KEY:
            keys[partition] = message.value() or b""
        if (error is not None or partition in keys) and partition in unread:
            consumer.incremental_unassign([unread.pop(partition)])
    consumer.unassign()
    return keys


def _listed(partitions: Iterable[int]) -> str:
    """Some partitions in words, the first of them by number."""
    first, *others = sorted(partitions)
    return f"partition {first}" if not others else f"partition {first} and {counted(len(others), 'other')}"
