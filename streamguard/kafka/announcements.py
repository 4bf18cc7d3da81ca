"""The models topic: what is said on it, how a promotion is announced, and how a worker reads and writes it."""

from __future__ import annotations

import logging
from typing import Annotated, TypeVar

import msgspec
from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings

_log = logging.getLogger(__name__)

PROMOTED_KEY = b"current"
"""Key of `Promoted` messages; every other key is a worker's own."""
MAX_BYTES = 1024
"""Longer messages are not looked at."""

Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12}\Z")]


class Promoted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A registry's pointer moved. Only a hint to look there: what is current, the registry decides."""

    version: Version
    previous: Version | None = None


class InUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker of an application scores with."""

    app_id: Annotated[str, msgspec.Meta(max_length=255)]
    version: Version | None


Announcement = TypeVar("Announcement", Promoted, InUse)


def decode(value: bytes, kind: type[Announcement]) -> Announcement | None:
    """A message of this kind; None if it is too long or anything else.

    Examples
    --------
    >>> decode(b'{"version": "0123456789ab", "previous": null}', Promoted)
    Promoted(version='0123456789ab', previous=None)
    >>> decode(b'{"version": "../../elsewhere"}', Promoted) is None
    True
    """
    if len(value) > MAX_BYTES:
        return None
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


TIMEOUT_SECONDS = 10.0


class AnnounceError(UnavailableError):
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


class ModelsTopic:
    """The models topic, read from its end without a group, by one thread.

    No trouble of a broker is raised, and none is logged again before the topic has worked in between.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.kafka.models_topic
        self._troubled = False
        common = Brokers.of(settings).librdkafka() | {
            "client.id": "streamguard-models",
            "topic.metadata.refresh.interval.ms": 30_000,
            "allow.auto.create.topics": False,
            "error_cb": self._trouble,
        }
        self._consumer = Consumer(
            common
            | {
                "group.id": "-",  # demanded, but never joined
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "queued.max.messages.kbytes": 1024,
            }
        )
        self._producer = Producer(common | {"message.timeout.ms": 10_000, "on_delivery": self._delivered})
        self._consumer.assign([TopicPartition(self._topic, 0, OFFSET_END)])

    def read(self, timeout: float) -> list[tuple[bytes | None, bytes | None]]:
        """(key, value) of messages that are there, at most 100; waits up to `timeout` seconds for the first."""
        first = self._consumer.poll(timeout)
        self._producer.poll(0)
        messages = [] if first is None else [first, *self._consumer.consume(99, 0)]
        good = []
        for message in messages:
            if message.error() is not None:
                self._trouble(message.error())
            else:
                self._troubled = False
                good.append((message.key(), message.value()))
        return good

    def tell(self, key: bytes, said: InUse | None) -> None:
        """Say what a worker uses; None: it is gone."""
        try:
            self._producer.produce(self._topic, said and msgspec.json.encode(said), key, partition=0)
        except KafkaException as error:
            self._trouble(error.args[0])
        except BufferError:
            pass  # a broker that is away for long: the next repetition says the same

    def close(self) -> None:
        """Send what is unsent, for a second at the most."""
        self._producer.flush(1.0)
        self._consumer.close()

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._trouble(error)

    def _trouble(self, error: KafkaError) -> None:
        if not self._troubled:
            self._troubled = True
            _log.warning(
                "the models topic %s does not work (%s): promotions are seen at the next look at the registry",
                self._topic, error.str(),
            )  # fmt: skip
