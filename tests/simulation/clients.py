"""Clients with the interfaces of aiokafka and confluent-kafka, whose requests go to the simulated broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import confluent_kafka
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition
from confluent_kafka import KafkaError, KafkaException

from streamguard.agents.output.forwarding import OVERHEAD_BYTES
from tests.simulation.broker import Headers, Session
from tests.simulation.network import Network, network
from tests.simulation.scheduler import DiedError, require_alive

T = TypeVar("T")

RETRY_SECONDS = 0.05
"""Pause before a request is sent again."""
GIVE_UP_SECONDS = 30.0
"""A record that no broker has acknowledged for this long fails."""


class Client:
    """One connection to the broker: its requests arrive in the order in which they were sent."""

    def __init__(self) -> None:
        self.process = require_alive()
        self.net: Network = network()
        self._last = 0.0

    async def request(self, name: str, act: Callable[[], T]) -> T:
        """Send a request; `act` runs when it arrives at the broker."""
        if not self.process.alive:
            raise DiedError
        answer, self._last = self.net.send(self.process, name, act, self._last)
        return await answer

    async def insist(self, name: str, act: Callable[[], T | None], pause: float = RETRY_SECONDS) -> T:
        """Send a request until the answer differs from None.

        Raises
        ------
        KafkaTimeoutError
            If the broker has not accepted it for `GIVE_UP_SECONDS`.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + GIVE_UP_SECONDS
        while (answer := await self.request(name, act)) is None:
            if loop.time() > patience:
                raise KafkaTimeoutError(f"{name} was not accepted")
            await asyncio.sleep(pause)
        return answer


class Batch:
    """A record batch under construction; it holds so few records that tests see several batches."""

    LIMIT = 7

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None, Headers]] = []

    def append(
        self, *, key: bytes, value: bytes | None, timestamp: int | None, headers: Headers = ()
    ) -> object | None:
        if len(self.records) >= self.LIMIT:
            return None
        self.records.append((key, value, headers))
        return self

    def record_count(self) -> int:
        return len(self.records)

    def close(self) -> None:
        pass


class Producer(Client):
    """aiokafka's AIOKafkaProducer: transactional if it has a transactional id."""

    def __init__(self, *, client_id: str = "", transactional_id: str | None = None, **_: Any) -> None:
        super().__init__()
        self._id = transactional_id
        self._session: Session | None = None
        self._sent: list[asyncio.Future[Any]] = []
        self._in_order = asyncio.Lock()

    async def start(self) -> None:
        identity = self._id
        if identity is not None:
            name = self.process.name
            self._session = await self.insist(
                f"init {identity}", lambda: self.net.broker.register(identity, name)
            )

    async def stop(self) -> None:
        if not self.process.alive:
            raise DiedError
        if self._session is None and self._sent:
            await asyncio.wait(self._sent)

    async def begin_transaction(self) -> None:
        self._sent = []

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        return self._send(topic, partition, batch.records)

    async def send(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, headers: Any = ()
    ) -> asyncio.Future[Any]:
        return self._send(topic, 0, [(key, value, headers)])

    def _send(self, topic: str, partition: int, records: Sequence[Any]) -> asyncio.Future[Any]:
        if not self.process.alive:
            raise DiedError
        sent = asyncio.get_running_loop().create_task(self._deliver(topic, partition, records))
        self._sent = [s for s in self._sent if not s.done() or self._session is not None]
        self._sent.append(sent)
        return sent

    async def _deliver(self, topic: str, partition: int, records: Sequence[Any]) -> Any:
        broker, session = self.net.broker, self._session

        def append() -> int | None:
            log = broker.log(topic, partition)
            if log is None:
                return None
            if session is not None:
                return broker.append_in(session, log, records)
            return log.append(records, broker.clock())

        async with self._in_order:
            # A producer without idempotence that misses an acknowledgement sends the records again.
            if session is None and self.net.chance("repeated produce", 0.03):
                await self.insist(f"produce {topic}", append)
            lost = self.net.lost("record")
            if lost != "request":
                offset = await self.insist(f"produce {topic}", append)
            if lost:
                raise KafkaTimeoutError(f"{topic} was not acknowledged")
        return SimpleNamespace(offset=offset)

    async def commit_transaction(self) -> None:
        await self._end(commit=True)

    async def abort_transaction(self) -> None:
        await self._end(commit=False)

    async def _end(self, *, commit: bool) -> None:
        session = self._session
        assert session is not None
        for sent in self._sent:
            await sent
        self._sent = []
        decision = "commit" if commit else "abort"
        lost = self.net.lost(decision)
        if lost == "request":
            raise KafkaTimeoutError(f"{decision} was not sent")
        await self.request(
            f"{decision} {session.transactional_id}", lambda: self.net.broker.end(session, commit=commit)
        )
        if lost == "answer":
            raise KafkaTimeoutError(f"{decision} was not acknowledged")


class Consumer(Client):
    """aiokafka's AIOKafkaConsumer without a group."""

    def __init__(self, *, isolation_level: str = "read_uncommitted", **_: Any) -> None:
        super().__init__()
        self._committed = isolation_level == "read_committed"
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        await self.request("connect", lambda: None)

    async def stop(self) -> None:
        if not self.process.alive:
            raise DiedError

    def assign(self, partitions: list[TopicPartition]) -> None:
        pass

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: await self._offset("start", tp) for tp in partitions}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        what = "stable" if self._committed else "end"
        return {tp: await self._offset(what, tp) for tp in partitions}

    async def _offset(self, what: str, tp: TopicPartition) -> int:
        def find() -> int | None:
            log = self.net.broker.log(tp.topic, tp.partition)
            return getattr(log, what) if log is not None else None

        try:
            return await self.insist(f"{what} {tp.topic}-{tp.partition}", find)
        except KafkaTimeoutError:
            raise UnknownTopicOrPartitionError from None

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        (tp,) = self._positions
        limit = min(max_records, self.net.choose("records of a fetch", (1, 3, 10, 500)))

        def read() -> Any:
            log = self.net.broker.log(tp.topic, tp.partition)
            return (
                log.read(self._positions[tp], limit, committed=self._committed) if log is not None else None
            )

        answer = await self.request(f"fetch {tp.topic}-{tp.partition}", read)
        if answer is None or answer[1] == self._positions[tp]:
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        records, self._positions[tp] = answer
        return {tp: records} if records else {}


class AdminClient:
    """confluent-kafka's AdminClient; it is called in threads, so its calls have no latency of their own."""

    def __init__(self, _: dict[str, Any]) -> None:
        self._net = network()

    def describe_topics(self, topics: Any, request_timeout: float) -> dict[str, Any]:
        silent = self._net.chance("silent describe", 0.02)
        names = [str(name) for name in topics.topic_names]
        self._net.note(f"describe {' '.join(names)}")
        return {name: _Described(self._net, name, silent) for name in names}

    def describe_configs(self, resources: list[Any]) -> dict[Any, Any]:
        names = [resource.name for resource in resources]
        self._net.note(f"describe the settings of {' '.join(names)}")
        silent = self._net.chance("silent describe", 0.02)
        return {resource: _Settings(silent) for resource in resources}


class _Settings:
    """A topic's settings: it accepts batches of three forwarded records, so that tests see several batches."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent

    def result(self, timeout: float) -> Any:
        if self._silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return {"max.message.bytes": SimpleNamespace(value=str(4 * OVERHEAD_BYTES))}


class _Described:
    def __init__(self, net: Network, name: str, silent: bool) -> None:
        self._topic = net.broker.topics.get(name)
        self._silent = silent

    def result(self) -> Any:
        if self._silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if self._topic is None:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        return SimpleNamespace(topic_id=self._topic.id, partitions=self._topic.logs)


class GroupReader:
    """confluent-kafka's Consumer, as far as it reads the committed offsets of a group."""

    def __init__(self, _: dict[str, Any]) -> None:
        self._net = network()

    def committed(self, partitions: list[Any], timeout: float) -> list[Any]:
        (tp,) = partitions
        offset = self._net.broker.offsets.get((tp.topic, tp.partition), confluent_kafka.OFFSET_INVALID)
        self._net.judge.answered(tp.partition, offset)
        self._net.note(f"committed {tp.topic}-{tp.partition} = {offset}")
        return [SimpleNamespace(offset=offset, error=None)]

    def close(self) -> None:
        pass
