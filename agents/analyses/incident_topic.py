"""Reads one incident from the alerts topic: every committed update of it, from the beginning to the present end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import click
from confluent_kafka import KafkaError, KafkaException

from streamguard.agents.analyses.analyst import History
from streamguard.agents.campaigns.topic_log import TopicLog
from streamguard.agents.task.identity import describe
from streamguard.alerts.published import REFUSALS, published
from streamguard.errors import ConfigurationError, DataError, TemporaryError, UnavailableError
from streamguard.events.event import Withheld
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.records.record import Record
from streamguard.settings.schema import Settings
from streamguard.state.identity import TopicIdentity
from streamguard.text import counted

TAKE_SECONDS = 0.5
"""Longest wait for records."""
SILENCE_SECONDS = 30.0
"""Time without a record after which reading to the end fails."""
NAMED = 5
"""Records passed over that are named one by one; all of them are counted."""


async def read(settings: Settings, wanted: str) -> History:
    """All updates of an incident that the alerts topic has.

    Raises
    ------
    ConfigurationError
        If the topic of incidents does not exist.
    DataError
        If the topic does not have the incident.
    TemporaryError
        If Kafka has deleted records while they were read.
    UnavailableError
        If no broker answers.
    """
    brokers, name = Brokers.of(settings), topics.names(settings)["alerts"]
    try:
        id, partitions = (await asyncio.to_thread(describe, brokers, [name]))[name]
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise
        raise ConfigurationError(
            f"the topic {name} does not exist at {brokers}: run `streamguard topics create`, or give the settings of "
            "the workers with --config"
        ) from None
    alerts = TopicLog(brokers, TopicIdentity(name, id), partitions, "analyze")
    await alerts.open()
    try:
        history = await _to_the_end(alerts, wanted)
    finally:
        await alerts.close()
    if not len(history):
        raise DataError(
            f"the topic {name} has no incident {wanted[:200]!r}: `streamguard incidents list` lists those it has"
        )
    return history


async def _to_the_end(alerts: TopicLog, wanted: str) -> History:
    history, refused = History(), Counter[str]()
    arrived = time.monotonic()
    while not alerts.caught_up():
        taken = await alerts.take(TAKE_SECONDS)
        if taken is None:
            raise TemporaryError(
                f"Kafka has deleted records of {alerts.topic.topic} while they were read: try again"
            )
        if taken:
            arrived = time.monotonic()
        elif time.monotonic() - arrived > SILENCE_SECONDS:
            raise UnavailableError(
                f"no record of {alerts.topic.topic} has arrived for {SILENCE_SECONDS:.0f} s: check that all "
                "partitions have a leader, then try again"
            )
        for record in taken:
            _add(record, wanted, history, refused)
    if refused:
        click.echo(f"{alerts.topic.topic}: {counted(refused.total(), 'record')} passed over", err=True)
    return history


def _add(record: Record, wanted: str, history: History, refused: Counter[str]) -> None:
    if isinstance(record.value, Withheld):
        reason, why = "unreadable", "it cannot be read"
    else:
        found = published(record.value)
        if not isinstance(found, str):
            if found.id == wanted:
                history.add(found)
            return
        reason, why = found, REFUSALS[found]
    refused[reason] += 1
    if refused.total() <= NAMED:
        click.echo(
            f"partition {record.partition} of {record.topic}, offset {record.offset}: the record is passed over, "
            f"because {why}",
            err=True,
        )
