"""Faust's Kafka consumer, adapted to deliver chunks: one Faust message carries one fetch, cut into chunks by partition.

A Faust message costs 0.65 ms of CPU, so it carries a fetch instead of a record. This module uses private names of
faust-streaming 0.15.3 and aiokafka 0.14.0 where no public ones exist. Both versions are pinned, and the integration
tests check five invariants:

* *hold*: nothing is fetched from a partition before its state is restored, however long that takes;
* *epoch*: a fetch belongs to the `PartitionTask` objects that were open when it began. A rebalance replaces these
  objects, and no fetch spans the seek that starts a new one;
* *link*: every chunk continues the previous one, or the process ends (`PartitionTask.fold`);
* *position*: the source is read from the offset stored in the state. The group's committed offset follows it for
  lag monitoring only; reading never resumes from it;
* *committed*: records of open or aborted transactions are not read, and an offset that the log no longer contains
  ends the worker instead of moving its position silently.

This module runs in the main thread; `streamguard.agents.consumer.fetch_thread` runs in aiokafka's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, NoReturn

from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from confluent_kafka import KafkaException
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from streamguard import memory_release, metrics
from streamguard.agents.consumer.context import WorkerContext
from streamguard.agents.consumer.fetch_thread import (
    ChunkConsumerThread,
    LogEnd,
    offset_error,
    rejected_by_group,
)
from streamguard.agents.consumer.liveness import GONE_SECONDS
from streamguard.agents.errors import end
from streamguard.agents.task.identity import Topics
from streamguard.agents.task.partition_task import Chunk, PartitionTask
from streamguard.agents.task.profile_share import share_of
from streamguard.agents.task.restore import restore
from streamguard.agents.task.topic_watch import TopicWatch
from streamguard.errors import StreamGuardError, TemporaryError, UnavailableError
from streamguard.kafka.connection import Brokers
from streamguard.testing import failpoints
from streamguard.text import counted

REPORT_SECONDS = 0.5
"""Interval at which the gauges and the state of /readyz are updated."""
ASK_SECONDS = 3.0
"""Pause between two checks that a broker answers."""

_log = logging.getLogger(__name__)


class Fetch(list[Chunk]):
    """Chunks of one fetch, of one or more partitions; those of one partition are in order."""


class ChunkConsumer(driver.Consumer):
    """The consumer of one worker: restores assigned partitions and closes revoked ones."""

    logger = logging.getLogger("faust.consumer")
    app: WorkerContext
    _thread: ChunkConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open: dict[TP, PartitionTask] = {}
        """Partitions whose state is restored."""
        self._share = share_of(self.app.settings.worker, self.app.settings.kafka.partitions)
        self._opening: asyncio.Task[None] | None = None
        self._watch: TopicWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._committed: dict[TP, int] = {}
        self._revoked_at: float | None = None

    def _new_consumer_thread(self) -> ChunkConsumerThread:
        return ChunkConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # Assignment

    async def perform_seek(self) -> None:
        """Restore the assigned partitions in the background, and start each at the offset of its state.

        Faust calls this method to resume its streams. The call has a time limit, which a long restore would exceed.
        """
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._restore(self._assigned()))

    def _assigned(self) -> list[TP]:
        topic = self.app.settings.kafka.events_topic
        return sorted(tp for tp in self.assignment() if tp.topic == topic)

    async def _restore(self, assigned: list[TP]) -> None:
        progress = self.app.progress
        progress.assigned([tp.partition for tp in assigned])
        memory_release.give_back()  # memory of the closed partitions, before new ones are opened
        if not assigned:
            return
        try:
            settings = self.app.settings
            self._watch = watch = TopicWatch.of(Brokers.of(settings), await Topics.describe(settings))
            self._watching = asyncio.get_running_loop().create_task(watch.run())
            # A rebalance closes all partitions, so no other partition is open when these get their shares.
            self._share = share_of(settings.worker, len(assigned))
            async with asyncio.TaskGroup() as group:
                for tp in assigned:
                    group.create_task(self._restore_one(tp, watch, self._share.profiles))
            _log.info("the worker is ready and scores the events of %s", counted(len(assigned), "partition"))
            if self._revoked_at is not None:
                metrics.REBALANCE_SECONDS.observe(time.perf_counter() - self._revoked_at)
                self._revoked_at = None
        except BaseExceptionGroup as errors:
            end(errors.exceptions[0])
        except Exception as error:  # noqa: BLE001
            end(error)

    async def _restore_one(self, tp: TP, watch: TopicWatch, resident: int) -> None:
        app = self.app
        with metrics.RESTORE_SECONDS.time():
            partition = await restore(tp.partition, app.settings, watch, app.memory, app.publisher, resident)
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
        """Checkpoint and close all partitions: the group's eager protocol revokes all of them at once."""
        metrics.REBALANCES.inc()
        self._revoked_at = time.perf_counter()
        try:
            await self.release()
        except Exception as error:  # noqa: BLE001 - aiokafka would log it and continue
            end(error)
        await super().on_partitions_revoked(revoked)

    async def release(self) -> None:
        """Close all partitions, each after a checkpoint."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            self._opening = None
        partitions, self.open = self.open, {}
        for partition in partitions.values():
            partition.closed = True
        await asyncio.gather(*(partition.close() for partition in partitions.values()))
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        await self._commit_checkpointed(partitions)
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
        """Yield at most one message, whose value is a `Fetch`."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        if self.should_stop:
            return
        before, watch = dict(self.open), self._watch
        if not before or watch is None:
            await asyncio.sleep(0.02)
            return
        try:
            with metrics.FETCH_SECONDS.time():
                fetched = await self._thread.fetch(before, watch)
        except OffsetOutOfRangeError as error:
            await self._explain(offset_error(error), watch)
        fetch = Fetch()
        for tp, (records, position) in fetched.items():
            partition = before[tp]
            if not partition.closed:
                fetch.extend(partition.cut(records, position, self._share.chunk_events))
        if fetch:
            try:
                await watch.confirm()
            except (StreamGuardError, KafkaException) as error:
                end(error)
            tp = TP(self.app.settings.kafka.events_topic, fetch[0].partition.number)
            yield tp, self._message(tp, fetch)

    async def _explain(self, error: TemporaryError, watch: TopicWatch) -> NoReturn:
        """End with the cause of an invalid offset: usually the topic was created again."""
        watch.doubt()
        try:
            await watch.confirm()
        except (StreamGuardError, KafkaException) as cause:
            end(cause)
        end(error)

    def _message(self, tp: TP, fetch: Fetch) -> ConsumerMessage:
        # The offset is always 0: Faust's own accounting of offsets, gaps and acks is not used.
        return ConsumerMessage(
            tp.topic, tp.partition, 0, 0.0, 0, [], b"", fetch, None, 0, 0, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: the blocking put of the queue provides back-pressure."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing; see `on_buffer_full`."""

    def ack(self, message: Any) -> bool:  # noqa: ARG002
        """Do nothing: a checkpoint moves the position, not the end of a message."""
        return False

    # Monitoring

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Commit the checkpointed offsets to the group. Faust calls this at its commit interval."""
        await self._commit_checkpointed(self.open)
        return True

    async def _commit_checkpointed(self, partitions: dict[TP, PartitionTask]) -> None:
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
        """Update the state of /readyz and the gauges of each partition."""
        while not self.should_stop:
            for tp, partition in list(self.open.items()):
                waiting = partition.fetched_offset - partition.processed_offset
                log_end = self._thread.log_end(tp)
                if log_end is not None:
                    waiting += max(0, log_end.last_stable_offset - log_end.position)
                    self._report_log_end(partition, log_end)
                self.app.progress.observe(
                    tp.partition, partition.checkpointed_offset, waiting=waiting > 0 or partition.unsaved
                )
                export(partition)
            self.app.progress.beat()
            due = time.perf_counter() + REPORT_SECONDS
            await self.sleep(REPORT_SECONDS)
            metrics.LOOP_DELAY_SECONDS.observe(max(0.0, time.perf_counter() - due))

    def _report_log_end(self, partition: PartitionTask, log_end: LogEnd) -> None:
        """Measure the lag against the high watermark: records behind an open transaction wait as well."""
        number, progress = partition.number, self.app.progress
        progress.answered(number, log_end.answered_ms)
        blocked = progress.blocked(number, log_end.last_stable_offset, log_end.high_watermark)
        partition.lag.observed(log_end.position, log_end.high_watermark)
        fetched = partition.fetched_offset - partition.processed_offset
        metrics.LAG.labels(number).set(max(0, log_end.high_watermark - log_end.position) + fetched)
        metrics.BLOCKED.labels(number).set(max(0, log_end.high_watermark - log_end.last_stable_offset))
        metrics.BLOCKED_SECONDS.labels(number).set(blocked)

    @Service.task
    async def _watch_group(self) -> None:
        """End the worker if its group rejects it, because it would stay idle for ever."""
        group = self.app.settings.worker.app_id
        while not self.should_stop:
            try:
                await self._thread.check_group()
            except KafkaError as error:
                if not error.retriable:
                    end(rejected_by_group(error, group))
                _log.warning(
                    "the coordinator of the group %s cannot be reached (%s); the worker tries again",
                    group,
                    error,
                )
            await self.sleep(0.5)

    @Service.task
    async def _watch_brokers(self) -> None:
        """End the worker if no broker answers any more; without events, nothing else would detect this."""
        progress = self.app.progress
        while not self.should_stop:
            if await self._thread.reaches_broker():
                progress.broker_answered()
            elif progress.brokers_gone:
                end(
                    UnavailableError(
                        f"no broker at {self.app.settings.kafka.bootstrap_servers} has answered for {GONE_SECONDS:.0f} "
                        "s: check the brokers and the network, then start the worker again; no event is lost, it folds "
                        "everything after its last checkpoint again"
                    )
                )
            await self.sleep(ASK_SECONDS)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust would compare offsets that this consumer does not keep; /readyz detects a stall instead."""


def export(partition: PartitionTask) -> None:
    """Update the gauges and counters of a partition."""
    number = partition.number
    metrics.PROCESSED_OFFSET.labels(number).set(partition.processed_offset)
    if partition.checkpointed_offset is not None:
        metrics.CHECKPOINTED_OFFSET.labels(number).set(partition.checkpointed_offset)
    metrics.PROFILES_RESIDENT.labels(number).set(partition.state.resident)
    metrics.STORED_KEYS.labels(number).set(partition.store.estimated_keys)
    metrics.STORED_BYTES.labels(number).set(partition.store.disk_bytes)
    for place, count in partition.new_profile_lookups().items():
        metrics.PROFILE_LOOKUPS.labels(place).inc(count)


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with `ChunkConsumer`."""

    Consumer = ChunkConsumer
