"""What the state of a partition says of all its users together: their number, and that of the events."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from streamguard.serving.replica.buffer import META_KEY
from streamguard.serving.replica.lookup import POPULATION_KEY, UnreadableProfileError
from streamguard.serving.replica.partition_copy import PartitionCopy
from streamguard.state import migration
from streamguard.state.codec import StateError
from streamguard.state.decisions import LAYOUT_FLAG
from streamguard.state.expiry import last_active
from streamguard.state.identity import StateIdentity
from streamguard.state.partition import META

MAX_COUNTED = 200_000
"""Profiles of a partition that are counted when somebody asks; more take seconds."""


class PartitionTotals(msgspec.Struct, frozen=True):
    """One partition at a source offset.

    Attributes
    ----------
    offset
        Offset of the first event that is not counted.
    topic_id
        Kafka's id of the events topic; None if the state does not state it.
    events
        All events so far.
    users
        Profiles that have not aged out, those of sources of events without a user included; None if there are more
        than `MAX_COUNTED`.
    active_ms
        Active time of the partition, in milliseconds: no profile can have been silent for longer.
    event_time
        Clock of the partition, epoch milliseconds.
    """

    partition: int
    offset: int
    topic_id: str | None
    events: int
    users: int | None
    active_ms: int
    event_time: int


def partition_totals(copy: PartitionCopy, forget_ms: int) -> PartitionTotals | None:
    """Count one partition; None if its state has no event.

    Parameters
    ----------
    forget_ms
        Active time without an event after which a profile counts as none.

    Raises
    ------
    NotReadyError
        If the copy has no exact snapshot, or is being closed.
    UnreadableProfileError
        If the stored values have another layout, or are damaged.
    """
    with copy.frozen([META_KEY, POPULATION_KEY]) as ((meta, head), profiles):
        if meta is None or head is None:
            return None
        try:
            version, next_offset = META.unpack_from(meta)
            population = migration.population(head, version & ~LAYOUT_FLAG, "the population")[0]
            identity = StateIdentity.decoded(meta[META.size :])
            oldest = int(population["active_ms"]) - forget_ms
            users = _count(profiles, oldest)
        except (StateError, msgspec.DecodeError, struct.error) as error:
            raise UnreadableProfileError(
                f"partition {copy.number} of the state changelog cannot be read ({error}): run `streamguard serve` of "
                "the version of the workers"
            ) from None
    return PartitionTotals(
        copy.number,
        int(next_offset),
        identity.source.id if identity is not None else None,
        round(float(population["events"])),
        users,
        int(population["active_ms"]),
        int(population["clock"]),
    )


def _count(profiles: Iterator[bytes], oldest: int) -> int | None:
    users = 0
    for place, value in enumerate(profiles):
        if place >= MAX_COUNTED:
            return None
        users += last_active(value) >= oldest
    return users
