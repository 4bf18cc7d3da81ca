"""Faust's Kafka consumer, made to hand over chunks: one Faust message is one fetch, cut by partition.

A Faust message costs 0.65 ms of CPU, so it carries a fetch and not a record. Private names of faust-streaming
0.15.3 and aiokafka 0.14.0 are used where there is no other way; the versions are pinned, and
tests/integration holds this to what it promises:

* *hold*: nothing is fetched from a partition before its state is recovered, however long that takes;
* *epoch*: a fetch belongs to the `PartitionTask` objects that were open when it began; after a rebalance there
  are others, and no fetch spans the seek that starts one;
* *link*: every chunk continues the one before it, or the process ends (`PartitionTask.fold`);
* *position*: the source is read from the offset inside the state. The group's committed offset follows it for
  those who watch lag, and never says where to go on;
* *committed*: records of open or aborted transactions are not seen, and an offset that the log does not have
  any more ends the worker instead of moving it silently.

`streamguard.agents.consumer.fetch_thread` is the half that lives in aiokafka's thread, this the half in the main thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from streamguard import metrics
from streamguard.agents.consumer.context import WorkerContext
from streamguard.agents.consumer.fetch_thread import ChunkConsumerThread, out_of_group, out_of_range
from streamguard.agents.consumer.progress import GONE_SECONDS
from streamguard.agents.errors import end
from streamguard.agents.task import memory_release
from streamguard.agents.task.compatibility import Topics
from streamguard.agents.task.partition_task import Chunk, PartitionTask
from streamguard.agents.task.restore import recover
from streamguard.errors import UnavailableError
from streamguard.testing import failpoints

REPORT_SECONDS = 0.5
"""How often gauges are set and /readyz is told."""
ASK_SECONDS = 3.0
"""How often it is asked whether a broker is there."""

_log = logging.getLogger(__name__)


class Fetch(list[Chunk]):
    """What one fetch brought: chunks of one or more partitions, those of one partition in order."""


class ChunkConsumer(driver.Consumer):
    """The consumer of one worker: recovers partitions that are assigned, closes those that are revoked."""

    logger = logging.getLogger("faust.consumer")
    app: WorkerContext
    _thread: ChunkConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open: dict[TP, PartitionTask] = {}
        """Partitions whose state is recovered."""
        self._opening: asyncio.Task[None] | None = None
        self._committed: dict[TP, int] = {}
        self._taken_at: float | None = None

    def _new_consumer_thread(self) -> ChunkConsumerThread:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # Assignment

    async def perform_seek(self) -> None:
        """Recover the assigned partitions and start each where its state stands, in the background.

        Faust calls this when streams are to resume, with a time limit that a long recovery would exceed.
        """
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._recover(self._assigned()))

    def _assigned(self) -> list[TP]:
        topic = self.app.settings.kafka.events_topic
        return sorted(tp for tp in self.assignment() if tp.topic == topic)

    async def _recover(self, assigned: list[TP]) -> None:
        progress = self.app.progress
        progress.assigned([tp.partition for tp in assigned])
        memory_release.give_back()  # partitions that were closed, before there are others
        if not assigned:
            return
        try:
            topics = await Topics.describe(self.app.settings)
            worker = self.app.settings.worker
            resident = max(8 * worker.chunk_events, worker.resident_profiles // len(assigned))
            async with asyncio.TaskGroup() as group:
                for tp in assigned:
                    group.create_task(self._recover_one(tp, topics, resident))
            _log.info("ready: %d partitions are scored", len(assigned))
            if self._taken_at is not None:
                metrics.REBALANCE_SECONDS.observe(time.perf_counter() - self._taken_at)
                self._taken_at = None
        except BaseExceptionGroup as errors:
            end(errors.exceptions[0])
        except Exception as error:  # noqa: BLE001
            end(error)

    async def _recover_one(self, tp: TP, topics: Topics, resident: int) -> None:
        app = self.app
        with metrics.RECOVERY_SECONDS.time():
            partition = await recover(tp.partition, app.settings, topics, app.memory, app.publisher, resident)
        try:
            await self._thread.start_fetching(tp, partition)
        except BaseException:
            await partition.close()
            raise
        self.open[tp] = partition
        metrics.LAG_SECONDS.labels(tp.partition).set_function(partition.lag.seconds)
        metrics.CHECKPOINTED_OFFSET.labels(tp.partition).set(partition.processed_offset)
        app.progress.ready(tp.partition)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Save and close everything: the group's eager protocol takes all partitions at once."""
        metrics.REBALANCES.inc()
        self._taken_at = time.perf_counter()
        try:
            await self.release()
        except Exception as error:  # noqa: BLE001 - aiokafka would log it and go on
            end(error)
        await super().on_partitions_revoked(revoked)

    async def release(self) -> None:
        """Close all partitions; each is saved first."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            self._opening = None
        partitions, self.open = self.open, {}
        for partition in partitions.values():
            partition.closed = True
        await asyncio.gather(*(partition.close() for partition in partitions.values()))
        await self._commit_saved(partitions)
        self._committed.clear()
        self.app.progress.assigned([])
        for partition in partitions.values():
            metrics.forget_partition(partition.number)

    async def on_stop(self) -> None:
        try:
            await self.release()
        except Exception as error:  # noqa: BLE001
            end(error)
        await super().on_stop()

    # Fetching

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ARG002
        """Yield at most one message: a `Fetch`."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        if self.should_stop:
            return
        before = dict(self.open)
        if not before:
            await asyncio.sleep(0.02)
            return
        try:
            with metrics.FETCH_SECONDS.time():
                fetched = await self._thread.fetch(before)
        except OffsetOutOfRangeError as error:
            end(out_of_range(error))
        size = self.app.settings.worker.chunk_events
        fetch = Fetch()
        for tp, (records, position) in fetched.items():
            partition = before[tp]
            if not partition.closed:
                fetch.extend(partition.cut(records, position, size))
        if fetch:
            tp = TP(self.app.settings.kafka.events_topic, fetch[0].partition.number)
            yield tp, self._message(tp, fetch)

    def _message(self, tp: TP, fetch: Fetch) -> ConsumerMessage:
        # Offset 0, always: Faust's own accounting of offsets, gaps and acks has nothing to do here.
        return ConsumerMessage(
            tp.topic, tp.partition, 0, 0.0, 0, [], b"", fetch, None, 0, 0, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: the queue's blocking put is the back-pressure."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Nothing; see `on_buffer_full`."""

    def ack(self, message: Any) -> bool:  # noqa: ARG002
        """Nothing: a checkpoint moves the position, not the end of a message."""
        return False

    # Watching

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Commit what the checkpoints reached. Faust calls this at its commit interval."""
        await self._commit_saved(self.open)
        return True

    async def _commit_saved(self, partitions: dict[TP, PartitionTask]) -> None:
        offsets = {
            tp: p.checkpointed_offset
            for tp, p in partitions.items()
            if p.checkpointed_offset is not None and p.checkpointed_offset != self._committed.get(tp)
        }
        if offsets and await self._thread.commit_for_monitoring(offsets):
            self._committed.update(offsets)
            for tp, offset in offsets.items():
                metrics.COMMITTED_OFFSET.labels(tp.partition).set(offset)
            failpoints.reach("offset-committed")

    @Service.task
    async def _report_progress(self) -> None:
        """Tell /readyz and the gauges how far each partition is."""
        while not self.should_stop:
            for tp, partition in list(self.open.items()):
                log_end = self._thread.log_end(tp)
                position, last = (
                    log_end
                    if log_end is not None
                    else (partition.processed_offset, partition.processed_offset)
                )
                waiting = max(0, last - position) + partition.fetched_offset - partition.processed_offset
                self.app.progress.observe(
                    tp.partition, partition.checkpointed_offset, waiting=waiting > 0 or partition.unsaved
                )
                partition.lag.observed(position, last)
                metrics.LAG.labels(tp.partition).set(waiting)
                export(partition)
            self.app.progress.beat()
            due = time.perf_counter() + REPORT_SECONDS
            await self.sleep(REPORT_SECONDS)
            metrics.LOOP_DELAY_SECONDS.observe(max(0.0, time.perf_counter() - due))

    @Service.task
    async def _watch_group(self) -> None:
        """End the worker when its group does not take it: it would be idle for ever."""
        while not self.should_stop:
            try:
                await self._thread.check_group()
            except KafkaError as error:
                if not error.retriable:
                    end(out_of_group(error, self.app.settings.worker.app_id))
                _log.warning("the group is not reached (%s); trying again", error)
            await self.sleep(0.5)

    @Service.task
    async def _watch_brokers(self) -> None:
        """End the worker when no broker answers any more: without events nothing else would tell."""
        progress = self.app.progress
        while not self.should_stop:
            if await self._thread.reaches_broker():
                progress.heard()
            elif progress.brokers_gone:
                end(
                    UnavailableError(
                        f"no broker at {self.app.settings.kafka.bootstrap_servers} has answered for {GONE_SECONDS:.0f} "
                        "s; started again, the worker folds again what it has not saved"
                    )
                )
            await self.sleep(ASK_SECONDS)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust judges by offsets that are not kept here; /readyz watches instead."""


def export(partition: PartitionTask) -> None:
    """Set a partition's gauges."""
    number = partition.number
    metrics.PROCESSED_OFFSET.labels(number).set(partition.processed_offset)
    if partition.checkpointed_offset is not None:
        metrics.CHECKPOINTED_OFFSET.labels(number).set(partition.checkpointed_offset)
    metrics.PROFILES_RESIDENT.labels(number).set(partition.state.resident)
    metrics.STORED_KEYS.labels(number).set(partition.store.estimated_keys)
    metrics.STORED_BYTES.labels(number).set(partition.store.disk_bytes)
    for found, count in partition.newly_found().items():
        metrics.PROFILE_LOOKUPS.labels(found).inc(count)


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer = ChunkConsumer
