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
from streamguard.agents.task.partition_task import Partition
from streamguard.agents.task.store import Local, Memory, PartitionTable, now_ms
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
    memory: Memory,
    publisher: Publisher,
    resident: int,
) -> Partition:
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
    table = None
    try:
        table = _open(Path(settings.worker.data_dir) / app_id / f"partition-{number:04d}", number, memory)
        async with CommittedReader(brokers, topics.changelog, number) as reader:
            records = await _catch_up(table, reader, topics, number)
            bounds = await reader.bounds(topics.source.topic)
        (found,) = table.get_many([SOURCE])
        source = msgspec.json.decode(found, type=Source) if found is not None else None
        checkpointer = Checkpointer(table, writer, topics.changelog_id)
        try:
            state = PartitionState(number, checkpointer.read, resident=resident, detection=settings.detection)
        except StateError as error:
            raise RefusedError(str(error)) from None
        if state.next_offset is None:
            committed = await committed_offset(brokers, app_id, topics.source.topic, number)
            check_unlearned(topics.source.topic, topics.changelog, number, app_id, committed)
        start = check_source(topics.source, number, *bounds, source, state.next_offset)
        partition = Partition(
            settings, publisher, checkpointer, state, start, topics.source if source is None else None
        )
    except BaseException:
        if table is not None:
            table.close()
        await writer.close()
        raise
    failpoints.point("recovery-done")
    metrics.RECOVERED_RECORDS.inc(records)
    _log.info(
        "partition %d recovered",
        number,
        extra={"records": records, "offset": start, "seconds": round(time.perf_counter() - started, 3)},
    )
    partition.save_regularly()
    return partition


def _open(path: Path, number: int, memory: Memory) -> PartitionTable:
    """The local copy; an empty one if it is too old."""
    table = PartitionTable(path, memory)
    if table.local is None or now_ms() - table.local.complete_ms <= COPY_MS:
        return table
    _log.info("partition %d: the copy here is older than deletions are kept: it is read anew", number)
    return table.emptied()


async def _catch_up(table: PartitionTable, reader: CommittedReader, topics: Topics, number: int) -> int:
    """Read what the local copy lacks of the changelog; how many records that were."""
    began, count = now_ms(), 0
    start, end = await reader.bounds()
    position = check_changelog(topics.changelog, number, topics.changelog_id, start, end, table.local)
    complete = table.local.complete_ms if table.local is not None else 0
    async for changes, reached in reader.batches(position, end):
        table.write(changes, Local(topics.changelog_id, reached, complete))
        count += len(changes)
        failpoints.point("recovery-batch-written")
    if table.local is not None:
        table.write([], Local(topics.changelog_id, end, began))
    return count
