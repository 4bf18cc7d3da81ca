"""The thread that runs aiokafka: it fetches, seeks and commits while the main thread folds."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streamguard.agents.consumer import drain
from streamguard.agents.errors import RefusedError, translated
from streamguard.agents.task.topic_watch import PAUSE_SECONDS, TopicWatch
from streamguard.errors import StreamGuardError, TemporaryError, UnavailableError
from streamguard.records import reader

if TYPE_CHECKING:
    from streamguard.agents.task.partition_task import PartitionTask

FETCH_WAIT_MS = 4
"""How long the broker collects events for one fetch: a longer wait costs latency, more fetches cost CPU."""
FETCH_MIN_BYTES = 64 << 10
"""The broker answers a fetch at once when it has this many bytes."""
ANSWER_SECONDS = 10.0
"""How long a broker may take to answer the request that checks its presence."""
POLL_SECONDS = 0.2
"""Longest duration of one fetch. A partition that becomes ready while the others are quiet is fetched after it."""

_log = logging.getLogger(__name__)


class LogEnd(NamedTuple):
    """Where the reading of a partition stands, and where its log ended at the last answer to a fetch."""

    position: int
    """First offset that is not fetched yet."""
    last_stable_offset: int
    """First offset of the oldest open transaction, or the high watermark; a worker reads up to it."""
    high_watermark: int
    """First offset after the last record."""
    answered_ms: int
    """When the partition's leader answered the fetch, by this machine's clock."""


class ChunkConsumerThread(driver.AIOKafkaConsumerThread):
    """Runs aiokafka in its own thread, so that heartbeats continue while the main thread folds."""

    logger = logging.getLogger("faust.consumer")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fetch_lock = asyncio.Lock()
        self._fetch_ended = time.monotonic()
        self._fetched_for: WeakValueDictionary[TP, PartitionTask] = WeakValueDictionary()
        """Weak references, because a revoked partition may never be assigned again, and its profiles are large."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        reader.install()
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_min_bytes = FETCH_MIN_BYTES
        consumer._isolation_level = "read_committed"
        consumer._auto_offset_reset = "none"
        # Without tables, Faust would use round robin, which moves every partition whenever the membership changes.
        self._assignor = self.app.assignor
        consumer._partition_assignment_strategy = (self._assignor,)
        return consumer

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._ensure_consumer().pause(*(TopicPartition(*tp) for tp in assigned))
        await super().on_partitions_assigned(assigned, generation_id)

    async def start_fetching(self, tp: TP, partition: PartitionTask) -> None:
        """Begin to fetch a partition at the offset that its state has reached."""
        await self.call_thread(self._start_fetching, tp, partition)

    async def _start_fetching(self, tp: TP, partition: PartitionTask) -> None:
        consumer = self._ensure_consumer()
        async with self._fetch_lock:
            consumer.seek(TopicPartition(*tp), partition.processed_offset)
            consumer.resume(TopicPartition(*tp))
            self._fetched_for[tp] = partition

    async def fetch(
        self, partitions: dict[TP, PartitionTask], watch: TopicWatch
    ) -> dict[TP, tuple[list[Any], int]]:
        """Fetch (records, next position) of each partition, unless the partition has been replaced in a rebalance.

        The position also passes transaction markers and aborted records, so it may move without any record. After a
        pause without a fetch or without an answer, `watch` is in doubt.
        """
        fetched: dict[TP, tuple[list[Any], int]] = await self.call_thread(self._fetch, partitions, watch)
        return fetched

    async def _fetch(self, partitions: dict[TP, PartitionTask], watch: TopicWatch) -> Any:
        if time.monotonic() - self._fetch_ended > PAUSE_SECONDS:
            watch.doubt()
        try:
            return await self._fetch_active(partitions, watch)
        finally:
            self._fetch_ended = time.monotonic()

    async def _fetch_active(self, partitions: dict[TP, PartitionTask], watch: TopicWatch) -> Any:
        async with self._fetch_lock:
            active = {tp for tp, partition in partitions.items() if self._fetched_for.get(tp) is partition}
            if not active:
                return {}
            try:
                fetched = await self._fetch_records(self._ensure_consumer(), active, timeout=POLL_SECONDS)
            except NoOffsetForPartitionError:
                # A rebalance has intervened, and the group has no offset. The seek will set the position.
                return {}
            # Nothing is awaited from here on, so the positions directly follow the fetched records.
            if self._silence(active) > PAUSE_SECONDS:
                watch.doubt()
            ends = {tp: self.log_end(tp) for tp in active}
            return {tp: (fetched.get(tp, []), end.position) for tp, end in ends.items() if end is not None}

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float = POLL_SECONDS, **_: Any
    ) -> Any:
        """Called in aiokafka's thread; Faust's method does the same without a bound on memory."""
        if not self.consumer.flow_active:
            return {}
        if consumer._closed:
            raise ConsumerStoppedError
        fetcher = consumer._fetcher
        with fetcher._subscriptions.fetch_context():
            return await drain.take(fetcher, active_partitions, timeout)

    def _silence(self, partitions: set[TP]) -> float:
        """Seconds for which the brokers have not answered a fetch of the partition that has waited longest."""
        assignment = self._ensure_consumer()._subscription.subscription.assignment
        states = [assignment.state_value(TopicPartition(*tp)) for tp in partitions] if assignment else []
        answers = [state.timestamp or 0 for state in states if state is not None]
        return time.time() - min(answers, default=0) / 1000

    async def check_group(self) -> None:
        """Raise the error with which the group has rejected this worker, if any.

        aiokafka keeps the error until a caller checks for it, and a worker that does not check would wait for ever.

        Raises
        ------
        KafkaError
            The broker's error.
        """
        if self._consumer is not None:
            await self.call_thread(self._check_group)

    async def _check_group(self) -> None:
        self._ensure_consumer()._coordinator.check_errors()

    async def reaches_broker(self) -> bool:
        """Whether a broker answers a request for metadata; a worker without events sends few other requests."""
        return self._consumer is None or bool(await self.call_thread(self._reaches_broker))

    async def _reaches_broker(self) -> bool:
        update = self._ensure_consumer()._client.force_metadata_update()
        try:
            async with asyncio.timeout(
                ANSWER_SECONDS
            ):  # wait_for may swallow a cancellation, before Python 3.12
                return bool(await update)
        except TimeoutError:
            return False

    async def commit_for_monitoring(self, offsets: dict[TP, int]) -> bool:
        """Commit the checkpointed offsets to the group, for monitoring.

        A failure is only logged, because the state does not depend on these offsets.

        Returns
        -------
        bool
            Whether the group accepted the offsets.
        """
        accepted: bool = await self.call_thread(self._commit_for_monitoring, offsets)
        return accepted

    async def _commit_for_monitoring(self, offsets: dict[TP, int]) -> bool:
        try:
            await self._ensure_consumer().commit(
                {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
            )
        except CommitFailedError:
            _log.warning(
                "the group rejected this worker's offsets because another worker has replaced it in the group; the "
                "state is not affected%s",
                _instance_id_remedy(self.app.settings.worker.instance_id),
            )
        except KafkaError as error:
            _log.warning(
                "the offsets could not be committed to the group (%s); the state is not affected, and the worker "
                "tries again",
                error,
            )
        else:
            return True
        return False

    def log_end(self, tp: TP) -> LogEnd | None:
        """Position and end of a partition; None before the first answer to a fetch."""
        assignment = self._ensure_consumer()._subscription.subscription.assignment
        state = assignment.state_value(TopicPartition(*tp)) if assignment is not None else None
        if state is None or not state.has_valid_position or state.lso is None:
            return None
        return LogEnd(state.position, state.lso, state.highwater, state.timestamp)


def _instance_id_remedy(instance_id: str) -> str:
    # Kafka has a specific error code for this case, but does not return it to the requests that aiokafka sends.
    if not instance_id:
        return ""
    return f". If this repeats, another worker uses worker.instance_id {instance_id!r} too: give each its own"


def rejected_by_group(error: KafkaError, group: str) -> StreamGuardError:
    """The error for a worker that its group rejects, with a remedy for each cause.

    A missing right has the same exit code as everywhere else; it passes when the right is granted.
    """
    known = translated(error)
    if isinstance(known, UnavailableError):
        return known
    if isinstance(error, InvalidSessionTimeoutError):
        remedy = (
            "set worker.session_timeout_seconds to a value that the broker allows, from group.min.session.timeout.ms "
            "(6 s by default) to group.max.session.timeout.ms"
        )
    elif isinstance(error, InconsistentGroupProtocolError):
        remedy = (
            "a client that is not a StreamGuard worker is in the group: stop it, or set another worker.app_id"
        )
    else:
        remedy = "check the broker's log, worker.app_id and worker.instance_id"
    return RefusedError(f"the group {group} rejects this worker ({type(error).__name__}: {error}); {remedy}")


def offset_error(error: OffsetOutOfRangeError) -> TemporaryError:
    """The error for offsets that the log no longer contains; if it still lacks them, the next start names the cause."""
    where = "; ".join(
        f"partition {tp.partition} of {tp.topic} at offset {o}" for tp, o in error.args[0].items()
    )
    return TemporaryError(
        f"Kafka no longer has {where}: the records expired before they were read, or the log was truncated; start the "
        "worker again: its start checks the offsets and reports the cause with a remedy"
    )
