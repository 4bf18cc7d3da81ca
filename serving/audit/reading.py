"""Reads the audit log from its topic: all of it, or the latest records."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import KafkaException

from streamguard.errors import ConfigurationError, TemporaryError, UnavailableError
from streamguard.kafka.connection import Brokers
from streamguard.serving.audit.record import AuditRecord, NotARecordError, decode
from streamguard.serving.log.reader import LogReader, TopicState, topic_state
from streamguard.serving.log.record import LogRecord

SILENCE_SECONDS = 20.0
"""How long the brokers may be silent while the topic is read."""
_TAKE_SECONDS = 0.5


def state_of(brokers: Brokers, topic: str) -> TopicState:
    """What the brokers say of the topic.

    Raises
    ------
    ConfigurationError
        If it does not exist.
    UnavailableError
        If no broker answers.
    """
    found = topic_state(brokers, topic)
    if found is None:
        raise ConfigurationError(
            f"Kafka at {brokers} has no topic {topic}: run `streamguard topics create`, or correct kafka.audit_topic"
        )
    return found


def records_of(brokers: Brokers, topic: str, positions: dict[int, int]) -> Iterator[LogRecord]:
    """The records of the topic from these offsets to the end that it has now.

    Raises
    ------
    TemporaryError
        If the brokers fall silent.
    UnavailableError
        If they refuse a request.
    """
    reader = LogReader(brokers, topic, positions)
    try:
        while True:
            yield from reader.take(_TAKE_SECONDS)
            if reader.at_end:
                return
            if time.monotonic() - reader.answered > SILENCE_SECONDS:
                raise TemporaryError(f"Kafka at {brokers} does not answer with records of {topic}: try again")
    except KafkaException as error:
        raise UnavailableError(
            f"Kafka at {brokers} refused to give records of {topic}: {error.args[0].str()}; `streamguard topics acls` "
            "prints the rights that are needed"
        ) from None
    finally:
        reader.close()


def latest(brokers: Brokers, topic: str, limit: int) -> tuple[AuditRecord, ...]:
    """The latest records about people, the latest first; the server's own and what is no record are passed over.

    Parameters
    ----------
    limit
        Records of the end of the topic that are looked at.
    """
    bounds = state_of(brokers, topic).bounds
    positions = {partition: max(one.start, one.end - limit) for partition, one in bounds.items()}
    found = []
    for record in records_of(brokers, topic, positions):
        try:
            known = decode(record.value)
        except NotARecordError:
            continue
        if known.kind == "event":
            found.append(known)
    return tuple(reversed(found))
