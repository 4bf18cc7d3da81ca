"""Forgets a user: deletes the profile and the decisions about the user from the changelog, and so from every copy."""

from __future__ import annotations

from dataclasses import dataclass

from streamguard.agents.errors import FencedError
from streamguard.agents.task.changelog import ChangelogWriter, CommittedReader
from streamguard.agents.task.compatibility import check_stable
from streamguard.agents.task.identity import Topics
from streamguard.events.hashing import UNKEYED
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.state.decisions import DECISIONS_KEY, without
from streamguard.state.partition import HASH_KEY
from streamguard.state.profile_cache import user_key
from streamguard.state.store import Change

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Erased:
    """What was deleted from one partition.

    Attributes
    ----------
    profile, decisions
        Whether the partition had a profile of the user, and decisions about the user.
    """

    partition: int
    profile: bool
    decisions: bool


async def erase(settings: Settings, user: str) -> list[Erased]:
    """Delete the profile of a user, and the decisions about the user, from every partition that has them.

    All partitions are searched, because senders are not forced to send all events of a user to one partition. The
    worker that owns such a partition is fenced: it loses the changes in memory that are not saved yet, and the next
    owner folds those events again into a state without the user. A decision among them is folded again, too.

    Returns
    -------
    list of Erased
        Partitions that had a profile or decisions.

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
    brokers = Brokers.of(settings)
    erased = []
    for partition in range(settings.kafka.partitions):
        if await _changes(brokers, topics.changelog, partition, user):
            changes = await _delete(brokers, settings.worker.app_id, topics.changelog, partition, user)
            keys = {key for key, _ in changes}
            erased.append(Erased(partition, user_key(user) in keys, DECISIONS_KEY in keys))
    return erased


async def _changes(brokers: Brokers, changelog: str, partition: int, user: str) -> list[Change]:
    """What has to be written to delete the user from the state that the changelog holds now."""
    wanted = {user_key(user), DECISIONS_KEY, HASH_KEY}
    found: dict[bytes, bytes | None] = {}
    async with CommittedReader(brokers, changelog, partition) as reader:
        bounds = await reader.settled()
        check_stable(changelog, partition, bounds)
        async for changes, _ in reader.batches(bounds.start, bounds.stable):
            found.update(change for change in changes if change[0] in wanted)
    out: list[Change] = []
    if found.get(user_key(user)) is not None:
        out.append((user_key(user), None))
    decisions, hash_key = found.get(DECISIONS_KEY), found.get(HASH_KEY)
    if decisions is not None:
        kept = without(decisions, user, UNKEYED if hash_key is None else hash_key)
        if kept is not None:
            out.append((DECISIONS_KEY, kept))
    return out


async def _delete(brokers: Brokers, app_id: str, changelog: str, partition: int, user: str) -> list[Change]:
    """Fence the owner, delete the user from the state that it has saved last, and return what was written."""
    for attempt in range(_ATTEMPTS):
        writer = await ChangelogWriter.fence(brokers, app_id, changelog, partition)
        try:
            # The decisions are read after the fence: nobody else can change them from here on.
            changes = await _changes(brokers, changelog, partition, user)
            if changes:
                await writer.commit(changes)
            return changes
        except FencedError:
            if attempt + 1 == _ATTEMPTS:
                raise
        finally:
            await writer.close()
    return []
