"""Restores an assigned partition: fences other writers, completes the local state, and finds the source offset."""

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
    TOPIC_KEY,
    TopicIdentity,
    Topics,
    check_changelog,
    check_source,
    check_unlearned,
    committed_offset,
)
from streamguard.agents.task.partition_task import PartitionTask
from streamguard.agents.task.store import ChangelogPosition, StateStore, StoreMemory, now_ms
from streamguard.events.hashing import new_key
from streamguard.kafka.connection import Brokers
from streamguard.kafka.topics import DELETION_MS
from streamguard.settings.schema import Settings
from streamguard.state.codec import StateError
from streamguard.state.partition import HASH_KEY, PartitionState
from streamguard.testing import failpoints

COPY_MS = DELETION_MS - 86_400_000
"""Age from which a local copy is discarded, because it may have missed the deletion of a user. It is one day shorter
than the changelog keeps deletions, to allow for clocks that differ."""

_log = logging.getLogger(__name__)


async def restore(
    number: int,
    settings: Settings,
    topics: Topics,
    memory: StoreMemory,
    publisher: Publisher,
    resident: int,
) -> PartitionTask:
    """Fence previous owners, bring the local copy up to date, and find the source offset from which to continue.

    Fencing comes first: the end of the changelog is only final when no other process can commit.

    Parameters
    ----------
    number
        The partition's number.
    settings
        Brokers, data directory, application id and detection.
    topics
        Events topic and changelog.
    memory
        Memory shared by all state stores of the worker.
    publisher
        Publishes the partition's incidents and dead letters.
    resident
        Maximum number of profiles in memory.

    Raises
    ------
    RefusedError
        If the stored state and the topics do not belong together.
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
        (found,) = store.get_many([TOPIC_KEY])
        source = msgspec.json.decode(found, type=TopicIdentity) if found is not None else None
        checkpointer = Checkpointer(store, writer, topics.changelog_id)
        try:
            state = PartitionState(
                number,
                checkpointer.read,
                resident=resident,
                detection=settings.detection,
                topic=topics.source.topic,
                hash_key=new_key(),
            )
        except StateError as error:
            raise RefusedError(str(error)) from None
        if state.next_offset is None:
            committed = await committed_offset(brokers, app_id, topics.source.topic, number)
            check_unlearned(topics.source.topic, topics.changelog, number, app_id, committed)
            if state.unsaved_hash_key is not None:
                # Saved before the first event is folded: a crash then folds the same events to the same bits.
                await checkpointer.save([(HASH_KEY, state.unsaved_hash_key)], [])
                state.clean()
        start = check_source(topics.source, number, *bounds, source, state.next_offset)
        partition = PartitionTask(
            settings, publisher, checkpointer, state, start, topics.source if source is None else None
        )
    except BaseException:
        if store is not None:
            store.close()
        await writer.close()
        raise
    failpoints.reach("restore-done")
    metrics.RESTORED_RECORDS.inc(records)
    _log.info(
        "the state of partition %d is restored",
        number,
        extra={"records": records, "offset": start, "seconds": round(time.perf_counter() - started, 3)},
    )
    partition.save_regularly()
    return partition


def _open(path: Path, number: int, memory: StoreMemory) -> StateStore:
    """Open the local copy; replace it by an empty one if it is too old."""
    store = StateStore(path, memory)
    if store.local is None or now_ms() - store.local.complete_ms <= COPY_MS:
        return store
    _log.info(
        "the local state of partition %d is so old that it may have missed the deletion of a user: the worker reads "
        "the whole changelog again",
        number,
    )
    return store.emptied()


async def _catch_up(store: StateStore, reader: CommittedReader, topics: Topics, number: int) -> int:
    """Write the missing records of the changelog to the local copy, and return their number."""
    began, count = now_ms(), 0
    start, end = await reader.bounds()
    position = check_changelog(topics.changelog, number, topics.changelog_id, start, end, store.local)
    complete = store.local.complete_ms if store.local is not None else 0
    async for changes, reached in reader.batches(position, end):
        store.write(changes, ChangelogPosition(topics.changelog_id, reached, complete))
        count += len(changes)
        failpoints.reach("restore-batch-written")
    if store.local is not None:
        store.write([], ChangelogPosition(topics.changelog_id, end, began))
    return count
