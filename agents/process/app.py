"""The Faust application: group membership, assignment, the agent with its stream, timers and supervision."""

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
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.state.store import StoreMemory

_log = logging.getLogger(__name__)


class _Boot(BootStrategy):
    enable_kafka_producer = False
    enable_web = False


def _credentials(brokers: Brokers) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """Credentials that Faust passes to its Kafka clients; None for a connection without TLS and SASL."""
    context, security = brokers.ssl_context(), brokers.security
    if security.username:
        return faust.SASLCredentials(
            username=security.username,
            password=brokers.password,
            ssl_context=context,
            mechanism=security.mechanism,
        )
    return faust.SSLCredentials(context) if context is not None else None


class _NoTables(TableManager):
    """Faust's table manager, which runs the rebalance, without its pause of one second for tables."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class _AsFetched(Schema):
    """Passes messages on undecoded, because an exception while decoding would kill Faust's consumer."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:  # noqa: ARG002
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.value


class WorkerApp(faust.App):
    """Faust's application with the objects that a worker shares: settings, publisher, memory, model and progress."""

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
            # In a larger buffer chunks queue: the median latency at 1,000 events/s is then 17-31 ms instead of 5-12.
            stream_buffer_maxsize=1,
            stream_recovery_delay=0.0,
            consumer_group_instance_id=worker.instance_id or None,
            broker_commit_interval=1.0,
            broker_session_timeout=worker.session_timeout_seconds,
            broker_heartbeat_interval=min(3.0, worker.session_timeout_seconds / 4),
            broker_rebalance_timeout=60.0,
            broker_request_timeout=90.0,
            # A restore may take longer than any interval between fetches; /readyz detects a stall instead.
            broker_max_poll_interval=86_400.0,
        )
        self.agent(self.topic(settings.kafka.events_topic, schema=_AsFetched()), name="fold")(self._fold)

    async def _fold(self, stream: Any) -> None:
        """The agent: fold each chunk whose partition is still assigned to this worker."""
        try:
            async for event in stream.noack().events():
                await self._fold_fetch(event.value)
        except Exception as error:  # noqa: BLE001 - Faust would restart the agent and continue
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
        """Create no directories for Faust: `streamguard.state.store` creates its own."""

    def _crash(self, reason: BaseException) -> None:
        if isinstance(reason, asyncio.CancelledError):  # Faust's fetcher restarts this way during a rebalance
            super()._crash(reason)
        else:
            end(reason)
