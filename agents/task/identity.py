"""What the state of a partition belongs to: an application, a partition, and two topics with Kafka's ids."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings


class TopicIdentity(msgspec.Struct, frozen=True):
    """The topic whose events are folded into the state.

    A topic that is deleted and created again under the same name has another id.
    """

    topic: str
    id: str


class StateIdentity(msgspec.Struct, frozen=True):
    """What a state belongs to. Every checkpoint carries it, in the changelog and in each local copy."""

    app_id: str
    partition: int
    source: TopicIdentity
    changelog_id: str

    def encoded(self) -> bytes:
        """The identity as JSON, as the state stores it."""
        return msgspec.json.encode(self)

    @classmethod
    def decoded(cls, stored: bytes) -> StateIdentity | None:
        """Decode `encoded`; None for a state that was stored before checkpoints had an identity.

        Raises
        ------
        msgspec.DecodeError
            If the bytes are no identity.

        Examples
        --------
        >>> identity = StateIdentity("streamguard", 3, TopicIdentity("events", "a"), "b")
        >>> StateIdentity.decoded(identity.encoded()) == identity, StateIdentity.decoded(b"")
        (True, None)
        """
        return msgspec.json.decode(stored, type=cls) if stored else None


@dataclass(frozen=True, slots=True)
class Topics:
    """Events topic and changelog of a worker with Kafka's ids, looked up once per assignment."""

    app_id: str
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
        source_id, changelog_id = described[source][0], described[changelog][0]
        return cls(settings.worker.app_id, TopicIdentity(source, source_id), changelog, changelog_id)

    def identity(self, partition: int) -> StateIdentity:
        """Identity of the state of a partition."""
        return StateIdentity(self.app_id, partition, self.source, self.changelog_id)


def _describe(brokers: Brokers, topics: list[str]) -> dict[str, tuple[str, int]]:
    """(Kafka's id, number of partitions) of each topic."""
    from confluent_kafka import TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(brokers.librdkafka())
    described = admin.describe_topics(TopicCollection(topics), request_timeout=30)
    found = {topic: future.result() for topic, future in described.items()}
    return {topic: (str(d.topic_id), len(d.partitions)) for topic, d in found.items()}
