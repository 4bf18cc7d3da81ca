"""The topics of a worker with Kafka's ids, from which the identities of its states follow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from streamguard.agents.output.forwarding import Destination
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.state.identity import StateIdentity, TopicIdentity


@dataclass(frozen=True, slots=True)
class Topics:
    """Events topic and changelog of a worker with Kafka's ids, looked up once per assignment."""

    app_id: str
    source: TopicIdentity
    changelog: str
    changelog_id: str
    destination: Destination | None = None
    """The sources topic; None if nothing is forwarded."""

    @classmethod
    async def describe(cls, settings: Settings) -> Topics:
        """Read the topics from Kafka, and check them if the number of partitions has changed."""
        source, changelog = (topics.names(settings)[role] for role in ("events", "changelog"))
        forwarded = [settings.kafka.sources_topic] if settings.kafka.forwards else []
        described = await asyncio.to_thread(describe, Brokers.of(settings), [source, changelog, *forwarded])
        if any(count != settings.kafka.partitions for _, count in described.values()):
            await asyncio.to_thread(topics.require, settings, topics.WORKER_ROLES)
        source_id, changelog_id = described[source][0], described[changelog][0]
        destination = None
        for name in forwarded:
            limit = await asyncio.to_thread(topics.max_batch_bytes, settings, name)
            destination = Destination(name, settings.kafka.partitions, limit, described[name][0])
        identity = TopicIdentity(source, source_id)
        return cls(settings.worker.app_id, identity, changelog, changelog_id, destination)

    def identity(self, partition: int) -> StateIdentity:
        """Identity of the state of a partition."""
        return StateIdentity(self.app_id, partition, self.source, self.changelog_id)


def describe(brokers: Brokers, topics: list[str]) -> dict[str, tuple[str, int]]:
    """(Kafka's id, number of partitions) of each topic.

    Raises
    ------
    KafkaException
        If no broker answers, or a topic does not exist.
    """
    from confluent_kafka import TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(brokers.librdkafka())
    described = admin.describe_topics(TopicCollection(topics), request_timeout=30)
    found = {topic: future.result() for topic, future in described.items()}
    return {topic: (str(d.topic_id), len(d.partitions)) for topic, d in found.items()}
