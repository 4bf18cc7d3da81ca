"""The thread in which aiokafka lives: it fetches, seeks and commits while the main thread folds."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streamguard.agents.consumer import headers
from streamguard.agents.errors import RefusedError

if TYPE_CHECKING:
    from streamguard.agents.task.partition_task import PartitionTask

FETCH_WAIT_MS = 4
"""How long the broker collects events for one fetch: waiting costs latency, more fetches cost CPU."""
FETCH_MIN_BYTES = 64 << 10
"""A fetch that has this much is not held back."""
ANSWER_SECONDS = 10.0
"""How long a broker may take to answer whether it is there."""
POLL_SECONDS = 0.2
"""How soon a partition that becomes ready is noticed while others are quiet."""

_log = logging.getLogger(__name__)


class ChunkConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka lives: heartbeats go on while the main thread folds."""

    logger = logging.getLogger("faust.consumer")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fetch_lock = asyncio.Lock()
        self._fetched_for: WeakValueDictionary[TP, PartitionTask] = WeakValueDictionary()
        """Weak, because a partition that was taken away may never come back, and its profiles are large."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        headers.install()
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_min_bytes = FETCH_MIN_BYTES
        consumer._isolation_level = "read_committed"
        consumer._auto_offset_reset = "none"
        # Without tables Faust would fall back to round robin, which moves every partition at every change.
        self._assignor = self.app.assignor
        consumer._partition_assignment_strategy = (self._assignor,)
        return consumer

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._ensure_consumer().pause(*(TopicPartition(*tp) for tp in assigned))
        await super().on_partitions_assigned(assigned, generation_id)

    async def start_fetching(self, tp: TP, partition: PartitionTask) -> None:
        """Begin to fetch a partition where its state stands."""
        await self.call_thread(self._start_fetching, tp, partition)

    async def _start_fetching(self, tp: TP, partition: PartitionTask) -> None:
        consumer = self._ensure_consumer()
        async with self._fetch_lock:
            consumer.seek(TopicPartition(*tp), partition.processed_offset)
            consumer.resume(TopicPartition(*tp))
            self._fetched_for[tp] = partition

    async def fetch(self, partitions: dict[TP, PartitionTask]) -> dict[TP, tuple[list[Any], int]]:
        """(records, position behind them) of these partitions, if they are still the ones that are fetched.

        The position passes transaction markers and aborted records too, so it may move without any record.
        """
        fetched: dict[TP, tuple[list[Any], int]] = await self.call_thread(self._fetch, partitions)
        return fetched

    async def _fetch(self, partitions: dict[TP, PartitionTask]) -> Any:
        async with self._fetch_lock:
            active = {tp for tp, partition in partitions.items() if self._fetched_for.get(tp) is partition}
            if not active:
                return {}
            try:
                fetched = await self._fetch_records(self._ensure_consumer(), active, timeout=POLL_SECONDS)
            except NoOffsetForPartitionError:
                # A rebalance came between, and the group has no offset; the position comes with the seek.
                return {}
            # Nothing is awaited from here on: the positions are those behind exactly these records.
            ends = {tp: self.log_end(tp) for tp in active}
            return {tp: (fetched.get(tp, []), end[0]) for tp, end in ends.items() if end is not None}

    async def check_group(self) -> None:
        """See whether the group still takes this worker; aiokafka would wait for ever to be asked.

        Raises
        ------
        KafkaError
            What the broker said.
        """
        if self._consumer is not None:
            await self.call_thread(self._check_group)

    async def _check_group(self) -> None:
        self._ensure_consumer()._coordinator.check_errors()

    async def reaches_broker(self) -> bool:
        """Whether a broker answers; one that is not asked for anything else would not be missed."""
        return self._consumer is None or bool(await self.call_thread(self._reaches_broker))

    async def _reaches_broker(self) -> bool:
        asked = self._ensure_consumer()._client.force_metadata_update()
        try:
            return bool(await asyncio.wait_for(asked, ANSWER_SECONDS))
        except TimeoutError:
            return False

    async def commit_for_monitoring(self, offsets: dict[TP, int]) -> bool:
        """Tell the group how far the checkpoints are; the state does not depend on it, so a failure is only logged.

        Returns
        -------
        bool
            Whether the group took it.
        """
        taken: bool = await self.call_thread(self._commit_for_monitoring, offsets)
        return taken

    async def _commit_for_monitoring(self, offsets: dict[TP, int]) -> bool:
        try:
            await self._ensure_consumer().commit(
                {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
            )
        except CommitFailedError:
            _log.warning(
                "the group's offsets were not committed: another worker has taken this one's place in the group; "
                "the state is not affected%s",
                _namesake(self.app.settings.worker.instance_id),
            )
        except KafkaError as error:
            _log.warning("the group's offsets were not committed (%s); the state is not affected", error)
        else:
            return True
        return False

    def log_end(self, tp: TP) -> tuple[int, int] | None:
        """(position, end of what can be read) of a partition; None before its first fetch."""
        assignment = self._ensure_consumer()._subscription.subscription.assignment
        state = assignment.state_value(TopicPartition(*tp)) if assignment is not None else None
        if state is None or not state.has_valid_position or state.lso is None:
            return None
        return state.position, state.lso


def _namesake(instance_id: str) -> str:
    # The broker says so in a code of its own, but not in answer to the requests that aiokafka sends.
    if not instance_id:
        return ""
    return f". If this repeats, another worker has worker.instance_id {instance_id!r} too: give each its own"


def out_of_group(error: KafkaError, group: str) -> RefusedError:
    """What a person can do about a group that does not take this worker."""
    if isinstance(error, InvalidSessionTimeoutError):
        remedy = (
            "set worker.session_timeout_seconds to what the broker allows, from group.min.session.timeout.ms "
            "(6 s unless set) to group.max.session.timeout.ms"
        )
    elif isinstance(error, GroupAuthorizationFailedError):
        remedy = "give this worker's user the right to read the group, or set another worker.app_id"
    elif isinstance(error, InconsistentGroupProtocolError):
        remedy = "something else than a StreamGuard worker is in the group: set another worker.app_id"
    else:
        remedy = "look into the broker's log, and at worker.app_id and worker.instance_id"
    return RefusedError(
        f"the group {group} does not take this worker ({type(error).__name__}: {error}); {remedy}"
    )


def out_of_range(error: OffsetOutOfRangeError) -> RefusedError:
    """Which offsets are gone."""
    where = "; ".join(
        f"partition {tp.partition} of {tp.topic} at offset {o}" for tp, o in error.args[0].items()
    )
    return RefusedError(
        f"Kafka does not have {where} any more: the records expired before they were read, or the log was "
        f"truncated; start the worker again, it will say which and what can be done"
    )
