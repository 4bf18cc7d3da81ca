"""Forgets a user: their profile is deleted from the changelog, from where every copy learns that it is gone."""

from __future__ import annotations

from streamguard.agents.errors import FencedError
from streamguard.agents.task.changelog import ChangelogWriter, CommittedReader
from streamguard.agents.task.compatibility import Topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.state.profile_cache import user_key

_ATTEMPTS = 3


async def erase(settings: Settings, user: str) -> list[int]:
    """Delete a user's profile wherever it is.

    All partitions are looked through, because nothing makes senders put a user's events into one. Who owns a
    partition with a profile is fenced: what it has in memory and has not saved is lost with it, and its successor
    folds those events again, onto a state without the profile.

    Returns
    -------
    list of int
        Partitions that had one.

    Raises
    ------
    RefusedError
        If the topics are not those of the settings.
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
    there = False
    async with CommittedReader(brokers, changelog, partition) as reader:
        start, end = await reader.bounds()
        async for changes, _ in reader.batches(start, end):
            for changed, value in changes:
                if changed == key:
                    there = value is not None
    return there


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
