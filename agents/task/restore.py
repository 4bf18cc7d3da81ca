"""From a number that the group has assigned to a partition that can fold: nobody else writes it, nothing is missing."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from streamguard import metrics
from streamguard.agents.errors import RefusedError
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.task.changelog import ChangelogWriter, CommittedReader
from streamguard.agents.task.checkpoint import Checkpointer
from streamguard.agents.task.compatibility import (
    SOURCE,
    Source,
    Topics,
    check_changelog,
    check_source,
    check_unlearned,
    committed_offset,
)
from streamguard.agents.task.partition_task import PartitionTask
from streamguard.agents.task.store import Local, StateStore, StoreMemory, now_ms
from streamguard.kafka.connection import Brokers
from streamguard.kafka.topics import DELETION_MS
from streamguard.settings.schema import Settings
from streamguard.state.codec import StateError
from streamguard.state.partition import PartitionState
from streamguard.testing import failpoints

COPY_MS = DELETION_MS - 86_400_000
"""A local copy that has been behind for longer may have missed that a user was forgotten; a day is for clocks."""

_log = logging.getLogger(__name__)


async def recover(
    number: int,
    settings: Settings,
    topics: Topics,
    memory: StoreMemory,
    publisher: Publisher,
    resident: int,
) -> PartitionTask:
    """Fence former owners, bring the local copy up to date, and find where to go on in the source.

    Fencing comes first: only when nobody else can commit does "the end of the changelog" mean anything.

    Parameters
    ----------
    number
        The partition.
    resident
        Profiles held in memory at the most.

    Raises
    ------
    RefusedError
        If stored state and topics do not fit together.
    """
    started = time.perf_counter()
    brokers, app_id = Brokers.of(settings), settings.worker.app_id
    writer = await ChangelogWriter.fence(brokers, app_id, topics.changelog, number)
    store = None
    try:
        store = _open(Path(settings.worker.data_dir) / app_id / f"partition-{number:04d}", number, memory)
        async with CommittedReader(brokers, topics.changelog, number) as reader:
            records = await _catch_up(store, reader, topics, number)
            bounds = await reader.bounds(topics.source.topic)
        (found,) = store.get_many([SOURCE])
        source = msgspec.json.decode(found, type=Source) if found is not None else None
        checkpointer = Checkpointer(store, writer, topics.changelog_id)
        try:
            state = PartitionState(
                number,
                checkpointer.read,
                resident=resident,
                detection=settings.detection,
                topic=topics.source.topic,
            )
        except StateError as error:
            raise RefusedError(str(error)) from None
        if state.next_offset is None:
            committed = await committed_offset(brokers, app_id, topics.source.topic, number)
            check_unlearned(topics.source.topic, topics.changelog, number, app_id, committed)
        start = check_source(topics.source, number, *bounds, source, state.next_offset)
        partition = PartitionTask(
            settings, publisher, checkpointer, state, start, topics.source if source is None else None
        )
    except BaseException:
        if store is not None:
            store.close()
        await writer.close()
        raise
    failpoints.reach("recovery-done")
    metrics.RECOVERED_RECORDS.inc(records)
    _log.info(
        "partition %d recovered",
        number,
        extra={"records": records, "offset": start, "seconds": round(time.perf_counter() - started, 3)},
    )
    partition.save_regularly()
    return partition


def _open(path: Path, number: int, memory: StoreMemory) -> StateStore:
    """The local copy; an empty one if it is too old."""
    store = StateStore(path, memory)
    if store.local is None or now_ms() - store.local.complete_ms <= COPY_MS:
        return store
    _log.info("partition %d: the copy here is older than deletions are kept: it is read anew", number)
    return store.emptied()


async def _catch_up(store: StateStore, reader: CommittedReader, topics: Topics, number: int) -> int:
    """Read what the local copy lacks of the changelog; how many records that were."""
    began, count = now_ms(), 0
    start, end = await reader.bounds()
    position = check_changelog(topics.changelog, number, topics.changelog_id, start, end, store.local)
    complete = store.local.complete_ms if store.local is not None else 0
    async for changes, reached in reader.batches(position, end):
        store.write(changes, Local(topics.changelog_id, reached, complete))
        count += len(changes)
        failpoints.reach("recovery-batch-written")
    if store.local is not None:
        store.write([], Local(topics.changelog_id, end, began))
    return count
