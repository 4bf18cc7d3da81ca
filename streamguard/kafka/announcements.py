"""The models topic: its messages, the announcement of a promotion, and a worker's reports."""

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
from streamguard.kafka.connection import Brokers, diagnosis
from streamguard.settings.schema import Settings

_log = logging.getLogger(__name__)

PROMOTED_KEY = b"current"
"""Key of `Promoted` messages; every other key identifies a worker."""
MAX_BYTES = 1024
"""Longer messages are ignored."""

Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12}\Z")]


class Promoted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pointer of a registry has moved. The message is only a hint: workers read the version from the registry."""

    version: Version
    previous: Version | None = None


class InUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version that a worker of an application uses."""

    app_id: Annotated[str, msgspec.Meta(max_length=255)]
    version: Version | None


Announcement = TypeVar("Announcement", Promoted, InUse)


def decode(value: bytes, kind: type[Announcement]) -> Announcement | None:
    """Decode a message of this kind; None if it is too long or malformed.

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
"""How long Kafka may take to acknowledge an announcement."""


class AnnounceError(UnavailableError):
    """A promotion was not announced; the message names the topic and the reason. The promotion itself is valid."""


def announce(settings: Settings, version: str, previous: str | None) -> None:
    """Announce a promotion and wait until Kafka has acknowledged the message.

    Parameters
    ----------
    settings
        Brokers and topic.
    version
        Current version of the registry.
    previous
        Version that was current before, or None.

    Raises
    ------
    AnnounceError
        If Kafka does not accept the message in time. Workers then notice the promotion when they next check the
        registry.
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
        unreachable = diagnosis(Brokers.of(settings))
        reason = unreachable or (failures[0].str() if failures else "no answer")
        raise AnnounceError(
            f"version {version} is promoted, but could not be announced on {kafka.models_topic} at "
            f"{kafka.bootstrap_servers} ({reason}); workers notice it when they next check the registry, within "
            f"{settings.models.poll_seconds:g} s"
        )


class ModelsTopic:
    """Client of the models topic for one thread; reads from the end of the topic, without a group.

    Errors of a broker are not raised. One is logged; the next one is logged only after the topic has worked again.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.kafka.models_topic
        self._failing = False
        common = Brokers.of(settings).librdkafka() | {
            "client.id": "streamguard-models",
            "topic.metadata.refresh.interval.ms": 30_000,
            "allow.auto.create.topics": False,
            "error_cb": self._log_once,
        }
        self._consumer = Consumer(
            common
            | {
                "group.id": "-",  # librdkafka requires an id, but the group is never joined
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "queued.max.messages.kbytes": 1024,
            }
        )
        self._producer = Producer(common | {"message.timeout.ms": 10_000, "on_delivery": self._delivered})
        self._consumer.assign([TopicPartition(self._topic, 0, OFFSET_END)])

    def read(self, timeout: float) -> list[tuple[bytes | None, bytes | None]]:
        """Read at most 100 messages as (key, value); waits up to `timeout` seconds for the first one."""
        first = self._consumer.poll(timeout)
        self._producer.poll(0)
        messages = [] if first is None else [first, *self._consumer.consume(99, 0)]
        good = []
        for message in messages:
            if message.error() is not None:
                self._log_once(message.error())
            else:
                self._failing = False
                good.append((message.key(), message.value()))
        return good

    def report(self, key: bytes, in_use: InUse | None) -> None:
        """Report the version that a worker uses, or None if the worker ends."""
        try:
            self._producer.produce(self._topic, in_use and msgspec.json.encode(in_use), key, partition=0)
        except KafkaException as error:
            self._log_once(error.args[0])
        except BufferError:
            pass  # no broker has answered for a long time; the next report repeats this one

    def close(self) -> None:
        """Send pending messages for at most one second, and disconnect."""
        self._producer.flush(1.0)
        self._consumer.close()

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._log_once(error)

    def _log_once(self, error: KafkaError) -> None:
        if not self._failing:
            self._failing = True
            _log.warning(
                "the models topic %s cannot be used (%s): the worker notices promotions when it next checks the "
                "registry; check the brokers, and the topic with `streamguard topics check`",
                self._topic, error.str(),
            )  # fmt: skip
