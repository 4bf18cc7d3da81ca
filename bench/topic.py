"""Reads all records of a topic with another client than the worker's."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Consumer, Message, TopicPartition

from streamguard.settings.schema import Settings


def read(chosen: Settings, topic: str) -> Iterator[Message]:
    """All records that the topic has now; the records of one partition are in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": chosen.kafka.bootstrap_servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    partitions = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    ended: set[int] = set()
    while len(ended) < len(partitions):
        for message in consumer.consume(10_000, 0.1):
            if message.error():
                ended.add(message.partition())
            else:
                yield message
    consumer.close()
