"""The Faust application: membership, assignment, the agent and its stream, timers, supervision."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.serializers.schemas import Schema
from faust.tables.manager import TableManager
from yarl import URL

from streamguard.agents.consumer.chunk_consumer import ChunkConsumer, ChunkTransport, Fetch
from streamguard.agents.consumer.progress import Progress
from streamguard.agents.errors import end
from streamguard.agents.model.watcher import ModelWatcher
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.task.store import StoreMemory
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings

_log = logging.getLogger(__name__)


class _Boot(BootStrategy):
    enable_kafka_producer = False
    enable_web = False


def _credentials(brokers: Brokers) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """What Faust hands on to its clients; None for a plain connection."""
    context, one = brokers.ssl_context(), brokers.security
    if one.username:
        return faust.SASLCredentials(
            username=one.username, password=brokers.password, ssl_context=context, mechanism=one.mechanism
        )
    return faust.SSLCredentials(context) if context is not None else None


class _NoTables(TableManager):
    """Faust's store manager runs the rebalance; without tables there is nothing to wait a second for."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class _AsFetched(Schema):
    """Leaves messages as they are: an exception while decoding here would kill Faust's consumer."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:  # noqa: ARG002
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.value


class WorkerApp(faust.App):
    """Faust's application with what a worker shares: settings, publisher, memory, model, progress."""

    BootStrategy = _Boot
    logger = logging.getLogger("faust.app")
    consumer: ChunkConsumer

    def __init__(self, settings: Settings) -> None:
        worker = settings.worker
        self.settings = settings
        self.publisher = Publisher(settings)
        self.memory = StoreMemory(worker.block_cache_mb << 20)
        self.model = ModelWatcher(settings)
        self.progress = Progress(stall_seconds=10 * worker.checkpoint_seconds + 20)
        super().__init__(
            worker.app_id,
            broker=[
                URL(f"kafka://{server.strip()}") for server in settings.kafka.bootstrap_servers.split(",")
            ],
            broker_credentials=_credentials(Brokers.of(settings)),
            datadir=worker.data_dir,
            TableManager=_NoTables,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            stream_buffer_maxsize=1,  # deeper, chunks queue: p50 17-31 ms at 1,000 events/s against 5-12
            stream_recovery_delay=0.0,
            consumer_group_instance_id=worker.instance_id or None,
            broker_commit_interval=1.0,
            broker_session_timeout=worker.session_timeout_seconds,
            broker_heartbeat_interval=min(3.0, worker.session_timeout_seconds / 4),
            broker_rebalance_timeout=60.0,
            broker_request_timeout=90.0,
            # A recovery may take longer than any interval between fetches; /readyz watches for stand-still
            # instead.
            broker_max_poll_interval=86_400.0,
        )
        self.agent(self.topic(settings.kafka.events_topic, schema=_AsFetched()), name="fold")(self._fold)

    async def _fold(self, stream: Any) -> None:
        """The agent: fold each chunk whose partition is still ours."""
        try:
            async for event in stream.noack().events():
                await self._fold_fetch(event.value)
        except Exception as error:  # noqa: BLE001 - Faust would restart the agent and go on
            end(error)

    async def _fold_fetch(self, fetch: Fetch) -> None:
        for chunk in fetch:
            partition = chunk.partition
            await partition.make_room()
            if partition.closed:
                continue
            with self.model.chunk() as forest:
                folded = partition.fold(chunk, forest)
            await asyncio.sleep(0)
            if folded is not None:
                self.model.shadow.score(folded)

    async def on_start(self) -> None:
        await self.publisher.start()
        await super().on_start()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        await self.publisher.stop()

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """None of Faust's: `streamguard.agents.task.store` makes its own."""

    def _crash(self, reason: BaseException) -> None:
        if isinstance(reason, asyncio.CancelledError):  # the fetcher's way to restart during a rebalance
            super()._crash(reason)
        else:
            end(reason)
