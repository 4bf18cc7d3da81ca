"""What leaves the worker at once: incidents to the alerts topic, refused records to the dead-letter topic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer

from agents.changelog import REQUEST_TIMEOUT
from agents.exits import end
from agents.metrics import ALERT_PATTERNS, ALERTS, DEAD_LETTERS, EVENT_TO_ALERT_SECONDS
from streamguard.alerts import Incident
from streamguard.events import Refusal
from streamguard.settings import Kafka
from streamguard.state import Folded

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

DETAIL_CHARACTERS = 500
"""A header is no place for a whole event."""


class Publisher:
    """An idempotent producer that is told what a chunk came to.

    Incidents go out before the checkpoint of their chunk: after a crash the chunk is folded again and gives
    the same incidents with the same ids, so a reader that keeps one of each id sees each incident once.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._in_order = asyncio.Lock()

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            client_id="streamguard-publisher",
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_request_size=8 << 20,
            request_timeout_ms=int(REQUEST_TIMEOUT * 1000),
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    def publish(self, records: Sequence[ConsumerRecord], folded: Folded) -> asyncio.Future[None] | None:
        """Send a chunk's incidents and refused records in the background.

        Returns
        -------
        asyncio.Future or None
            Done when all are acknowledged; a failure ends the process. None if there is nothing to send. It
            outlives the caller: a cancelled agent must not lose an incident whose events are in the state.
        """
        if not folded.incidents and not folded.refused:
            return None
        return asyncio.get_running_loop().create_task(self._publish(records, folded))

    async def _publish(self, records: Sequence[ConsumerRecord], folded: Folded) -> None:
        try:
            async with self._in_order:  # an incident's rise must not overtake its beginning
                sent = [await self._send_incident(records[i.index], i) for i in folded.incidents]
                dead = [await self._send_refused(records[r.index], r) for r in folded.refused]
            for future, incident in zip(sent, folded.incidents, strict=True):
                await future
                EVENT_TO_ALERT_SECONDS.observe(
                    max(0.0, time.time() - records[incident.index].timestamp / 1000)
                )
                ALERTS.labels(incident.severity).inc()
                for pattern in incident.patterns:
                    ALERT_PATTERNS.labels(pattern).inc()
            for future, refusal in zip(dead, folded.refused, strict=True):
                await future
                DEAD_LETTERS.labels(refusal.reason).inc()
        except Exception as error:  # noqa: BLE001 - whatever it is, the checkpoint must not follow
            end(error)

    async def _send_incident(self, record: ConsumerRecord, incident: Incident) -> Any:
        assert self._producer is not None
        incident.locate(record.topic)
        headers = [("sg.incident", incident.id.encode()), *_origin(record)]
        return await self._producer.send(
            self._kafka.alerts_topic, incident.encode(), key=incident.entity.encode(), headers=headers
        )

    async def _send_refused(self, record: ConsumerRecord, refusal: Refusal) -> Any:
        assert self._producer is not None
        headers = [
            *record.headers,
            ("sg.reason", refusal.reason.encode()),
            ("sg.detail", refusal.detail[:DETAIL_CHARACTERS].encode(errors="replace")),
            *_origin(record),
        ]
        return await self._producer.send(
            self._kafka.dead_letter_topic, record.value, key=record.key, headers=headers
        )


def _origin(record: ConsumerRecord) -> list[tuple[str, bytes]]:
    return [
        ("sg.topic", record.topic.encode()),
        ("sg.partition", str(record.partition).encode()),
        ("sg.offset", str(record.offset).encode()),
    ]
