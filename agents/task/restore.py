"""Restores an assigned partition: fences other writers, completes the local state, and finds the source offset."""

from __future__ import annotations

import logging
import time
from itertools import chain
from pathlib import Path

import msgspec

from streamguard import metrics
from streamguard.agents.errors import FencedError, RefusedError
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.task.changelog import ChangelogWriter, CommittedReader
from streamguard.agents.task.checkpoint import Checkpointer
from streamguard.agents.task.compatibility import (
    TOPIC_KEY,
    Bounds,
    check_identity,
    check_source,
    check_stable,
    check_unlearned,
    check_whole,
    committed_offset,
    continues,
)
from streamguard.agents.task.local_copy import LocalCopy
from streamguard.agents.task.partition_task import PartitionTask
from streamguard.agents.task.topic_watch import TopicWatch
from streamguard.decisions.signing import Binding
from streamguard.events.hashing import UNKEYED, new_key
from streamguard.kafka.connection import Brokers
from streamguard.models.key import key_of
from streamguard.settings.schema import Settings
from streamguard.state.codec import StateError
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.partition import HASH_KEY, PartitionState
from streamguard.state.store import (
    COMPLETE_KEY,
    ChangelogPosition,
    DamagedCopyError,
    StateStore,
    StoreMemory,
    now_ms,
)
from streamguard.testing import failpoints
from streamguard.text import counted

_log = logging.getLogger(__name__)


async def restore(
    number: int,
    settings: Settings,
    watch: TopicWatch,
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
    watch
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
    OpenTransactionError
        If a transaction of another program hides the end of the changelog.
    FencedError
        If another process has taken the partition over meanwhile.
    """
    started = time.perf_counter()
    topics = watch.topics
    identity = topics.identity(number)
    writer = await ChangelogWriter.fence(Brokers.of(settings), identity.app_id, topics.changelog, number)
    copy = None
    try:
        path = Path(settings.worker.data_dir) / identity.app_id / f"partition-{number:04d}"
        copy = LocalCopy(path, identity, memory)
        try:
            partition, records = await _open(copy, writer, settings, watch, publisher, resident)
        except DamagedCopyError as error:
            copy.replace("damaged", f"is damaged ({error.reason}); nothing is lost")
            partition, records = await _open(copy, writer, settings, watch, publisher, resident)
    except BaseException:
        if copy is not None:
            copy.close()
        await writer.close()
        raise
    failpoints.reach("restore-done")
    metrics.RESTORED_RECORDS.inc(records)
    _log.info(
        "the state of partition %d is restored",
        number,
        extra={
            "records": records,
            "offset": partition.processed_offset,
            "seconds": round(time.perf_counter() - started, 3),
        },
    )
    partition.save_regularly()
    return partition


async def _open(
    copy: LocalCopy,
    writer: ChangelogWriter,
    settings: Settings,
    watch: TopicWatch,
    publisher: Publisher,
    resident: int,
) -> tuple[PartitionTask, int]:
    """Complete the copy, check it and the topics, and return the partition and the number of records read."""
    topics = watch.topics
    identity, source = topics.identity(writer.partition), topics.source
    brokers = Brokers.of(settings)
    async with CommittedReader(brokers, topics.changelog, identity.partition) as reader:
        changelog = await reader.settled()
        check_stable(topics.changelog, identity.partition, changelog)
        records = await _catch_up(copy, reader, topics.changelog, identity, changelog)
        _check_owned(topics.changelog, identity.partition, changelog, await reader.bounds())
        bounds = await reader.bounds(source.topic)
    writer.end = changelog.end
    checkpointer = Checkpointer(copy.store, writer, identity, watch)
    try:
        state = PartitionState(
            identity.partition,
            checkpointer.read,
            resident=resident,
            detection=settings.detection,
            topic=source.topic,
            hash_key=new_key(),
            identity=identity.encoded(),
        )
    except StateError as error:
        raise RefusedError(str(error)) from None
    warn_of_missing_key(state)
    stored = StateIdentity.decoded(state.stored_identity)
    check_identity(topics.changelog, identity, stored)
    if state.next_offset is None:
        committed = await committed_offset(brokers, identity.app_id, source.topic, identity.partition)
        check_unlearned(source.topic, topics.changelog, identity.partition, identity.app_id, committed)
    saved_source = stored.source if stored is not None else _saved_source(copy.store)
    start = check_source(source, identity.partition, bounds, saved_source, state.next_offset)
    if state.next_offset is None and start:
        _report_missing(source.topic, identity.partition, start)
    await _repair(copy.store, writer, topics.changelog, identity, changelog)
    if state.next_offset is None and state.unsaved_hash_key is not None:
        # Saved before the first event is folded: a crash then folds the same events to the same bits.
        await checkpointer.save([(HASH_KEY, state.unsaved_hash_key)], [])
        state.clean()
    binding = Binding(source.topic, source.id, key_of(settings.models))
    task = PartitionTask(settings, publisher, checkpointer, state, start, binding, topics.destination)
    return task, records


def _check_owned(changelog: str, partition: int, restored: Bounds, now: Bounds) -> None:
    """Check that no other process has written to the changelog while it was read.

    Its records replace older ones, which compaction may have removed before they were read. The state would then be
    incomplete, and its incidents wrong, until the first checkpoint of this worker is rejected.

    Raises
    ------
    FencedError
        If one has: it is the owner of the partition now.
    """
    if now.end != restored.end:
        raise FencedError(
            f"partition {partition} was taken over by another worker, or by `streamguard forget` to delete a user, "
            f"while this worker restored it: {changelog} had {counted(now.end - restored.end, 'offset')} more at the "
            "end; no event is lost: start this worker again"
        )


async def _catch_up(
    copy: LocalCopy, reader: CommittedReader, changelog: str, identity: StateIdentity, bounds: Bounds
) -> int:
    """Write the missing records of the changelog to the local copy, and return their number."""
    began, count = now_ms(), 0
    local = copy.store.local
    if not continues(local, identity, bounds):
        check_whole(changelog, identity, bounds, local, await reader.saved(bounds))
        if local is not None:
            copy.replace(
                "superseded",
                "is of another changelog than the present one, or misses records that were deleted",
            )
            local = None
    position, complete = (local.position, local.complete_ms) if local is not None else (bounds.start, 0)
    deleted = set[bytes]()
    async for changes, reached in reader.batches(position, bounds.stable):
        deleted.update(key for key, value in changes if value is None)
        copy.store.write(changes, ChangelogPosition.at(reached, identity, complete))
        count += len(changes)
        failpoints.reach("restore-batch-written")
    if copy.store.local is not None:
        copy.store.write([], ChangelogPosition.at(bounds.stable, identity, began))
        copy.store.purge(deleted)
    return count


async def _repair(
    store: StateStore, writer: ChangelogWriter, changelog: str, identity: StateIdentity, bounds: Bounds
) -> None:
    """Write the state into the changelog again if its beginning was deleted; the copy is complete here."""
    (found,) = store.get_many([COMPLETE_KEY])
    if bounds.start <= int(found or 0):
        return
    complete = (COMPLETE_KEY, str(bounds.end).encode())
    position = await writer.repair(chain(store.entries(), [complete]))
    store.write([complete], ChangelogPosition.at(position, identity, now_ms()))
    metrics.CHANGELOG_REPAIRS.inc()
    _log.warning(
        "the records of partition %d of the changelog %s before offset %d were deleted; the local copy was complete, "
        "so the worker has written the whole state into the changelog again and nothing is lost. Find out who deleted "
        "them: cleanup.policy must be `compact`",
        identity.partition,
        changelog,
        bounds.start,
    )


def _report_missing(topic: str, partition: int, start: int) -> None:
    metrics.MISSING_OFFSETS.inc(start)
    _log.warning(
        "partition %d of %s is read for the first time and starts at offset %d: %s before were deleted unread, by "
        "retention or by hand, and are never scored. If events with old timestamps were sent, set "
        "message.timestamp.type=LogAppendTime on the topic",
        partition,
        topic,
        start,
        counted(start, "offset"),
    )


def warn_of_missing_key(state: PartitionState) -> None:
    """Warn of a state that version 0.1 began; it keeps the hash without a key, because hashes cannot be converted."""
    if state.next_offset is None or state.hash_key != UNKEYED:
        return
    _log.warning(
        "the state of partition %d was begun by version 0.1 and keeps its hash without a key: a sender can choose a "
        "text with the hash of another one, which may then appear in incidents of other users. To get a key, set "
        "another worker.app_id, run `streamguard topics create` and start the workers: they learn again from the first "
        "event that Kafka still has",
        state.partition,
    )


def _saved_source(store: StateStore) -> TopicIdentity | None:
    """The topic of a state that was saved before checkpoints had an identity."""
    (found,) = store.get_many([TOPIC_KEY])
    return msgspec.json.decode(found, type=TopicIdentity) if found is not None else None
