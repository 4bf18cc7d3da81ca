"""Says on the models topic that another version is current, so that workers look at once."""

from __future__ import annotations

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamguard.brokers import Brokers
from streamguard.models.announcement import PROMOTED_KEY, Promoted
from streamguard.settings import Settings

TIMEOUT_SECONDS = 10.0


class AnnounceError(RuntimeError):
    """A promotion was not announced; the message says where and why. The promotion itself stands."""


def announce(settings: Settings, version: str, previous: str | None) -> None:
    """Produce the hint and wait until Kafka has it.

    Parameters
    ----------
    settings
        Brokers and topic.
    version
        What the registry's pointer names now.
    previous
        What it named before; None if nothing.

    Raises
    ------
    AnnounceError
        If Kafka does not take it in time. Workers then see the promotion at their next look at the registry.
    """
    kafka = settings.kafka
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(
        Brokers.of(settings).librdkafka()
        | {
            "client.id": "streamguard-announce",
            "message.timeout.ms": int(TIMEOUT_SECONDS * 1000),
            "topic.metadata.propagation.max.ms": int(TIMEOUT_SECONDS * 100),
            "allow.auto.create.topics": False,
            "acks": "all",
        }
    )
    try:
        producer.produce(
            kafka.models_topic,
            msgspec.json.encode(Promoted(version, previous)),
            PROMOTED_KEY,
            on_delivery=delivered,
        )
        unsent = producer.flush(2 * TIMEOUT_SECONDS)
    except KafkaException as error:
        failures.append(error.args[0])
        unsent = 0
    if failures or unsent:
        reason = failures[0].str() if failures else "no answer"
        raise AnnounceError(
            f"version {version} is promoted, but not announced on {kafka.models_topic} at "
            f"{kafka.bootstrap_servers} ({reason}); workers see it at their next look at the registry, within "
            f"{settings.models.poll_seconds:g} s"
        )
