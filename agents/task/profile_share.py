"""Divides the worker's profiles in memory among its partitions, and bounds their chunks so that each finds room."""

from __future__ import annotations

from typing import NamedTuple

from streamguard.settings.schema import SettingsError, Worker
from streamguard.text import counted

PROFILES_PER_EVENT = 4
"""Profiles in memory for each event of a chunk.

Every event of a chunk may need a profile of its own, and less than half of the profiles are unsaved when a chunk begins
(`PartitionTask.make_room`), so two are enough. With four, a checkpoint is saved after two chunks of new users at the
earliest.
"""


class ProfileShare(NamedTuple):
    """Limits of one partition.

    Attributes
    ----------
    profiles
        Maximum number of profiles in memory.
    chunk_events
        Maximum number of events in a chunk.
    """

    profiles: int
    chunk_events: int


def share_of(worker: Worker, partitions: int) -> ProfileShare:
    """The limits of each partition of a worker that has this number of them.

    All partitions together keep at most `worker.resident_profiles`. Where that is little for their number, their chunks
    are smaller than `worker.chunk_events`; results do not depend on the size of chunks.

    Raises
    ------
    SettingsError
        If there is too little room even for chunks of one event.

    Examples
    --------
    >>> share_of(Worker(), 4), share_of(Worker(), 64)
    (ProfileShare(profiles=16384, chunk_events=1000), ProfileShare(profiles=1024, chunk_events=256))
    """
    profiles = worker.resident_profiles // partitions
    if profiles < PROFILES_PER_EVENT:
        raise SettingsError(
            f"worker.resident_profiles is {worker.resident_profiles:,}, which is too few for "
            f"{counted(partitions, 'partition')}: set it to {PROFILES_PER_EVENT * partitions:,} or more, and to "
            f"{whole_chunks(worker, partitions):,} for whole chunks"
        )
    return ProfileShare(profiles, min(worker.chunk_events, profiles // PROFILES_PER_EVENT))


def whole_chunks(worker: Worker, partitions: int) -> int:
    """The `worker.resident_profiles` with which chunks may have `worker.chunk_events`."""
    return PROFILES_PER_EVENT * worker.chunk_events * partitions
