"""Forgets a user: deletes the user's profile from the changelog, through which the deletion reaches every copy."""

from __future__ import annotations

from streamguard.agents.errors import FencedError
from streamguard.agents.task.changelog import ChangelogWriter, CommittedReader
from streamguard.agents.task.compatibility import check_stable
from streamguard.agents.task.identity import Topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.state.profile_cache import user_key

_ATTEMPTS = 3


async def erase(settings: Settings, user: str) -> list[int]:
    """Delete the profile of a user from every partition that has one.

    All partitions are searched, because senders are not forced to send all events of a user to one partition. The
    worker that owns a partition with a profile is fenced: it loses the changes in memory that are not saved yet, and
    the next owner folds those events again into a state without the profile.

    Returns
    -------
    list of int
        Partitions that had a profile.

    Raises
    ------
    TopicsMismatchError
        If the topics differ from the settings.
    OpenTransactionError
        If an open transaction hides records of the changelog.
    FencedError
        If a partition changes owners faster than it can be written.
    """
    topics = await Topics.describe(settings)
    brokers, key = Brokers.of(settings), user_key(user)
    found = [
        partition
        for partition in range(settings.kafka.partitions)
        if await _has(brokers, topics.changelog, partition, key)
    ]
    for partition in found:
        await _delete(brokers, settings.worker.app_id, topics.changelog, partition, key)
    return found


async def _has(brokers: Brokers, changelog: str, partition: int, key: bytes) -> bool:
    present = False
    async with CommittedReader(brokers, changelog, partition) as reader:
        bounds = await reader.settled()
        check_stable(changelog, partition, bounds)
        async for changes, _ in reader.batches(bounds.start, bounds.stable):
            for changed, value in changes:
                if changed == key:
                    present = value is not None
    return present


async def _delete(brokers: Brokers, app_id: str, changelog: str, partition: int, key: bytes) -> None:
    for attempt in range(_ATTEMPTS):
        writer = await ChangelogWriter.fence(brokers, app_id, changelog, partition)
        try:
            await writer.commit([(key, None)])
            return
        except FencedError:
            if attempt + 1 == _ATTEMPTS:
                raise
        finally:
            await writer.close()
