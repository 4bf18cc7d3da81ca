"""Reads every committed record of a topic, from its beginning, without a consumer group."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streamguard.agents.campaigns.closing import closed
from streamguard.agents.consumer import drain
from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers
from streamguard.records import reader
from streamguard.records.record import Record
from streamguard.state.identity import TopicIdentity

FETCH_WAIT_MS = 200
"""How long a broker waits for records before it answers without any."""
ANSWER_SECONDS = 10.0
"""How long a broker may take to answer the request that checks its presence."""
SETTLE_SECONDS = 30.0
"""How long the leaders of all partitions may take to answer at the start."""


class TopicLog:
    """A topic from the offsets at which its log begins.

    Parameters
    ----------
    brokers
        The brokers.
    topic
        Name of the topic, and Kafka's id, with which it is compared later.
    partitions
        Number of its partitions.
    role
        What the brokers' logs call this client, after `streamguard-`.

    Attributes
    ----------
    starts
        Offset at which the log of each partition begins, as it was when reading began.
    """

    def __init__(self, brokers: Brokers, topic: TopicIdentity, partitions: int, role: str) -> None:
        reader.install()
        self.topic = topic
        self.partitions = partitions
        self._tps = [TopicPartition(topic.topic, partition) for partition in range(partitions)]
        self._consumer = AIOKafkaConsumer(
            **brokers.aiokafka(),
            client_id=f"streamguard-{role}",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=1 << 20,
        )
        self.starts: dict[TopicPartition, int] = {}
        self._goal: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        """Connect, and note where the log begins and where it ends now.

        Raises
        ------
        KafkaError
            If the brokers do not answer.
        """
        try:
            await self._consumer.start()
            self._consumer.assign(self._tps)
            self.starts = await self.beginnings()
            for tp, offset in self.starts.items():
                self._consumer.seek(tp, offset)
            self._goal = dict(await self._answer(self._consumer.end_offsets(self._tps)))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect; a broker that is away does not answer, so this takes a few seconds at most."""
        await closed(self._consumer.stop())

    async def beginnings(self) -> dict[TopicPartition, int]:
        """Offset at which the log of each partition begins now; it rises when Kafka deletes old records."""
        return dict(await self._answer(self._consumer.beginning_offsets(self._tps)))

    async def _answer(self, request: Any) -> Any:
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                return await request
        except TimeoutError:
            raise UnavailableError(
                f"no leader of a partition of {self.topic.topic} has answered for {SETTLE_SECONDS:.0f} s: give each "
                "partition a leader (`kafka-topics.sh --describe`), then start the campaigns process again"
            ) from None

    async def take(self, seconds: float) -> list[Record] | None:
        """Records that have arrived, after at most so many seconds; None if Kafka has deleted the next ones."""
        fetcher = self._consumer._fetcher
        try:
            with fetcher._subscriptions.fetch_context():
                taken = await drain.take(fetcher, set(self._tps), seconds)
        except OffsetOutOfRangeError:
            return None
        return [record for records in taken.values() for record in records]

    def caught_up(self) -> bool:
        """Whether everything was read that the topic had when reading began."""
        return all(self._position(tp) >= end for tp, end in self._goal.items())

    def lag(self) -> int:
        """Offsets that were not read yet, as of the last answers of the leaders."""
        return sum(max((self._consumer.highwater(tp) or 0) - self._position(tp), 0) for tp in self._tps)

    def _position(self, tp: TopicPartition) -> int:
        """First offset that is not read; -1 while it is unknown."""
        state = self._consumer._subscription.subscription.assignment.state_value(tp)
        return int(state.position) if state.has_valid_position else -1

    async def reaches_broker(self) -> bool:
        """Whether a broker answers a request for metadata."""
        update = self._consumer._client.force_metadata_update()
        try:
            async with asyncio.timeout(
                ANSWER_SECONDS
            ):  # wait_for may swallow a cancellation, before Python 3.12
                return bool(await update)
        except TimeoutError:
            return False
