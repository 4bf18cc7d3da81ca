"""Publishes incidents to the alerts topic and refused records to the dead-letter topic."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from streamguard.agents.errors import RefusedError, end
from streamguard.agents.output.dead_letter import Allowance, Message, dead_letters, origin
from streamguard.agents.output.source_incidents import source_incident
from streamguard.alerts.incident import TRUNCATED, Incident, encode
from streamguard.kafka.connection import REQUEST_TIMEOUT, Brokers
from streamguard.metrics import (
    DEAD_LETTERS,
    EVENT_TO_ALERT_SECONDS,
    INCIDENT_PATTERNS,
    PUBLISHED_INCIDENTS,
    SUMMARISED,
)
from streamguard.records.record import Record
from streamguard.settings.schema import Settings
from streamguard.state.partition import Folded

if TYPE_CHECKING:
    from aiokafka.structs import RecordMetadata

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Publisher:
    """The producer of incidents and dead letters.

    Incidents are published before the checkpoint of their chunk. After a crash the chunk is folded again and gives
    the same incidents with the same ids, so a reader that keeps the latest record of each id sees each incident once.

    Notes
    -----
    The producer is not idempotent: aiokafka counts a batch that the broker refuses for its size, so every later
    batch of that partition would be out of sequence. Idempotence would gain nothing, because readers drop repetitions
    in any case. The order holds, because each partition has one batch in flight at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self._kafka = settings.kafka
        self._brokers = Brokers.of(settings)
        self._producer: AIOKafkaProducer | None = None
        self._in_order = asyncio.Lock()
        self._allowances: defaultdict[int, Allowance] = defaultdict(Allowance)
        """By partition."""

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            **self._brokers.aiokafka(),
            client_id="streamguard-publisher",
            acks="all",
            compression_type="lz4",
            linger_ms=0,
            max_request_size=8 << 20,
            request_timeout_ms=int(REQUEST_TIMEOUT * 1000),
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    def publish(self, records: Sequence[Record], folded: Folded) -> asyncio.Future[None] | None:
        """Send a chunk's incidents and refused records in the background.

        Returns
        -------
        asyncio.Future or None
            Done when all records are acknowledged; a failure ends the process. None if there is nothing to send. The
            future outlives the caller: a cancelled agent must not lose an incident whose events are in the state.
        """
        if not folded.incidents and not folded.refused:
            return None
        return asyncio.get_running_loop().create_task(self._publish(records, folded))

    async def _publish(self, records: Sequence[Record], folded: Folded) -> None:
        alerts, dead_letter_topic = self._kafka.alerts_topic, self._kafka.dead_letter_topic
        incidents = self._selected(records, folded)
        try:
            async with self._in_order:  # an update of an incident must not overtake its first record
                sent = [await self._send(alerts, _message(*one)) for one in incidents]
                allowance = self._allowances[records[0].partition]
                letters = dead_letters(records, folded.refused, allowance)
                dead = [await self._send(dead_letter_topic, letter.message) for letter in letters]
            for future, (incident, record) in zip(sent, incidents, strict=True):
                try:
                    await future
                except _TOO_LARGE:
                    truncated = msgspec.structs.replace(incident, event=TRUNCATED)
                    await self._send_smallest(alerts, _message(truncated, record))
                EVENT_TO_ALERT_SECONDS.observe(max(0.0, time.time() - record.timestamp / 1000))
                PUBLISHED_INCIDENTS.labels(incident.severity, incident.entity.kind).inc()
                for pattern in incident.patterns:
                    INCIDENT_PATTERNS.labels(pattern.name).inc()
            for future, letter in zip(dead, letters, strict=True):
                try:
                    await future
                except _TOO_LARGE:
                    await self._send_smallest(dead_letter_topic, letter.smallest())
                DEAD_LETTERS.labels(letter.reason).inc(letter.count)
                if letter.summary:
                    SUMMARISED.labels(letter.reason).inc(letter.count)
        except Exception as error:  # noqa: BLE001 - after any failure the checkpoint must not follow
            end(error)

    def _selected(self, records: Sequence[Record], folded: Folded) -> list[tuple[Incident, Record]]:
        """Each incident to publish, and the record of its event."""
        found = [(update.incident, records[folded.index[update.event]]) for update in folded.incidents]
        if not self._kafka.folds_sources:
            return found
        return [one for incident, record in found if (one := source_incident(incident, record)) is not None]

    async def _send(self, topic: str, message: Message) -> asyncio.Future[RecordMetadata]:
        assert self._producer is not None
        sent: asyncio.Future[RecordMetadata] = await self._producer.send(
            topic, message.value, key=message.key, headers=message.headers
        )
        return sent

    async def _send_smallest(self, topic: str, message: Message) -> None:
        """Send a record in a batch of its own: the limit of a topic is that of a batch."""
        assert self._producer is not None
        try:
            async with self._in_order:
                await self._producer.flush()
                await (await self._send(topic, message))
        except _TOO_LARGE:
            raise RefusedError(
                f"the topic {topic} refuses a record of {message.size} bytes, the smallest that can be published:"
                " run `streamguard topics create --alter`, which raises its max.message.bytes"
            ) from None


def _message(incident: Incident, record: Record) -> Message:
    """The record of the alerts topic, keyed by entity."""
    headers = [("sg.incident", incident.id.encode()), *origin(record)]
    return Message(encode(incident), incident.entity.value.encode(), headers)
