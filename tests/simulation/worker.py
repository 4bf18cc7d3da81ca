"""A simulated worker process: the worker's own consumer, tasks and publisher, without Faust and without threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from aiokafka.structs import TopicPartition
from faust.types import TP

from streamguard.agents.consumer.chunk_consumer import ChunkConsumer
from streamguard.agents.consumer.fetch_thread import ChunkConsumerThread
from streamguard.agents.consumer.progress import Progress
from streamguard.agents.errors import end
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.process.app import WorkerApp
from streamguard.records.record import Record
from streamguard.settings.schema import Settings
from tests.simulation.broker import Entry
from tests.simulation.clients import Client
from tests.simulation.group import Group

HEARTBEAT_SECONDS = 0.3
COMMIT_SECONDS = 0.5
IDLE_SECONDS = 0.09
"""Pause after a fetch without records; Kafka's would be shorter, and would only cost time here."""


class Fetcher(Client):
    """The consumer of the source topic: positions, fetches and commits, with the names that the fetch thread uses."""

    def __init__(self, group: Group, wall_time: Callable[[], float]) -> None:
        super().__init__()
        self._group = group
        self._wall_time = wall_time
        self._states: dict[TopicPartition, SimpleNamespace] = {}
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=self))
        self._fetches: dict[TP, asyncio.Task[tuple[SimpleNamespace, list[Entry], int]]] = {}
        self.generation = -1

    def state_value(self, tp: TopicPartition) -> SimpleNamespace | None:
        return self._states.get(tp)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._states[tp] = SimpleNamespace(
            position=offset, lso=None, highwater=None, timestamp=None, has_valid_position=True
        )

    def resume(self, tp: TopicPartition) -> None:
        pass

    async def poll(self, partitions: list[TP], timeout: float) -> dict[TP, list[Record]]:
        """Records of the partitions; waits for some up to a time, while unanswered fetches continue."""
        loop = asyncio.get_running_loop()
        for tp in partitions:
            if tp not in self._fetches:
                self._fetches[tp] = loop.create_task(self._fetch(tp))
        fetches = {tp: self._fetches[tp] for tp in partitions}
        await asyncio.wait(list(fetches.values()), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        found = {}
        for tp, fetch in fetches.items():
            if fetch.done():
                del self._fetches[tp]
                if records := self._taken(tp, *fetch.result()):
                    found[tp] = records
        return found

    def _taken(self, tp: TP, state: SimpleNamespace, entries: list[Entry], position: int) -> list[Record]:
        """Move the position past fetched records, unless a seek has made them obsolete."""
        if self._states[TopicPartition(*tp)] is not state:
            return []
        state.position = position
        return [Record(tp.topic, tp.partition, e.offset, e.timestamp, e.key, e.value) for e in entries]

    async def _fetch(self, tp: TP) -> tuple[SimpleNamespace, list[Entry], int]:
        state = self._states[TopicPartition(*tp)]
        broker, limit = self.net.broker, self.net.choose("events of a fetch", (1, 2, 5, 20))

        def read() -> Any:
            log = broker.log(tp.topic, tp.partition)
            if log is None:
                return None
            return log.stable, log.end, *log.read(state.position, limit)

        answer = await self.request(f"fetch {tp.topic}-{tp.partition} from {state.position}", read)
        if answer is None:
            await asyncio.sleep(IDLE_SECONDS)
            return state, [], state.position
        state.lso, state.highwater, entries, position = answer
        state.timestamp = int(self._wall_time() * 1000)
        if position == state.position:
            await asyncio.sleep(IDLE_SECONDS)
        return state, entries, position

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        plain = {tp.partition: found.offset for tp, found in offsets.items()}
        await self.request(
            f"commit offsets {plain}", lambda: self._group.commit(self.process.name, self.generation, plain)
        )


class _Unset:
    """Faust's settings: none is used."""

    def __getattr__(self, name: str) -> None:
        return None


class FetchThread(ChunkConsumerThread):
    """The worker's fetch thread, without a thread."""

    def __init__(self, consumer: Any, fetcher: Fetcher) -> None:
        self.consumer = consumer
        self.app = consumer.app
        self._fetcher = fetcher
        self.__post_init__()

    async def call_thread(self, function: Any, *args: Any) -> Any:
        return await function(*args)

    def _ensure_consumer(self) -> Any:
        return self._fetcher

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float = 0.2, **_: Any
    ) -> Any:
        return await self._fetcher.poll(sorted(active_partitions), timeout)

    async def _fetch(self, partitions: Any, watch: Any) -> Any:
        return dict(sorted((await super()._fetch(partitions, watch)).items()))


class Consumer(ChunkConsumer):
    """The worker's consumer, without Faust's service around it."""

    should_stop = False

    def RebalanceListener(self, thread: Any) -> None:  # noqa: N802 - Faust's name
        """Nothing: the group is simulated."""

    def __init__(self, app: Any, fetcher: Fetcher) -> None:
        self.app = app
        self.flow_active = True
        self.open: dict[TP, Any] = {}
        self._opening = self._watch = self._watching = self._revoked_at = None
        self._committed: dict[TP, int] = {}
        self._assigned_now: set[TP] = set()
        self._thread = FetchThread(self, fetcher)

    def assignment(self) -> set[TP]:
        return self._assigned_now

    async def give_up(self) -> None:
        """What `on_partitions_revoked` does before Faust's part."""
        try:
            await self.release()
        except Exception as error:  # noqa: BLE001 - as in the worker
            end(error)


class Worker:
    """The main coroutine of a worker process.

    Attributes
    ----------
    consumer
        Its consumer, once it has joined the group.
    """

    def __init__(self, settings: Settings, memory: Any, group: Group, wall_time: Callable[[], float]) -> None:
        self._settings = settings
        self._memory = memory
        self._group = group
        self._wall_time = wall_time
        self.consumer: Consumer | None = None
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End the worker as SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Run until stopped; any error ends the process."""
        try:
            await self._run()
        except Exception as error:  # noqa: BLE001 - as in the worker
            end(error)

    async def _run(self) -> None:
        settings = self._settings
        app = SimpleNamespace(
            settings=settings,
            publisher=Publisher(settings),
            memory=self._memory,
            progress=Progress(30.0, lambda: 0.0),
            consumer_generation_id=0,
            conf=_Unset(),
            model=SimpleNamespace(
                chunk=contextlib.nullcontext, shadow=SimpleNamespace(score=lambda folded: None)
            ),
        )
        fetcher = Fetcher(self._group, self._wall_time)
        await app.publisher.start()
        self.consumer = consumer = Consumer(app, fetcher)
        queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
        loop = asyncio.get_running_loop()
        parts = (
            loop.create_task(self._guarded(self._fetch, consumer, queue)),
            loop.create_task(self._guarded(self._fold, app, queue)),
            loop.create_task(self._guarded(self._commit, consumer)),
        )
        membership = loop.create_task(self._guarded(self._follow_group, consumer, fetcher))
        await self._stop.wait()
        membership.cancel()
        await asyncio.wait([membership])
        await consumer.give_up()
        for part in parts:
            part.cancel()
        await fetcher.request("leave", lambda: self._group.leave(fetcher.process.name))
        await app.publisher.stop()
        fetcher.process.exit_code = 0
        fetcher.net.scheduler.kill(fetcher.process)

    async def _guarded(self, part: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await part(*arguments)
        except Exception as error:  # noqa: BLE001 - as in the worker
            end(error)

    async def _fetch(self, consumer: Consumer, queue: asyncio.Queue[Any]) -> None:
        while True:
            if not consumer.open:
                await asyncio.sleep(0.1)
            async for _, message in consumer.getmany(1.0):
                await queue.put(message.value)

    async def _fold(self, app: Any, queue: asyncio.Queue[Any]) -> None:
        while True:
            await WorkerApp._fold_fetch(app, await queue.get())

    async def _commit(self, consumer: Consumer) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            await consumer.commit()

    async def _follow_group(self, consumer: Consumer, fetcher: Fetcher) -> None:
        name, topic = fetcher.process.name, self._settings.kafka.events_topic
        while True:
            assigned, fetcher.generation = await fetcher.insist(
                "join", lambda: self._group.join(name), HEARTBEAT_SECONDS
            )
            consumer._assigned_now = {TP(topic, p) for p in assigned}
            fetcher.net.note(f"assigned {assigned}")
            await consumer.perform_seek()
            while await fetcher.request("heartbeat", lambda: self._group.heartbeat(name, fetcher.generation)):
                await asyncio.sleep(HEARTBEAT_SECONDS)
            fetcher.net.note("revoked")
            await consumer.give_up()
            consumer._assigned_now = set()
