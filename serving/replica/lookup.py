"""Reads what one snapshot of a partition knows about a user: profile, population, texts and decisions."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.usual import TextOf
from streamguard.errors import ConfigurationError
from streamguard.fold import population as population_layout
from streamguard.fold import profile as profile_layout
from streamguard.fold.dimensions import SKETCHES, WITH_TEXT
from streamguard.fold.present import bring_to_clock
from streamguard.serving.replica.buffer import META_KEY
from streamguard.state import migration
from streamguard.state.codec import StateError
from streamguard.state.decisions import DECISIONS_KEY, LAYOUT_FLAG, decisions_about
from streamguard.state.dictionary import texts_of
from streamguard.state.expiry import last_active
from streamguard.state.identity import StateIdentity
from streamguard.state.partition import HASH_KEY, META
from streamguard.state.profile_cache import Read

POPULATION_KEY = b"p"
"""Key of the population of a partition."""


class UnreadableProfileError(ConfigurationError):
    """A stored profile, or the state around it, has a layout that this version does not know, or is damaged."""


class StoredUser(NamedTuple):
    """What one snapshot of a partition's state knows about a user.

    Attributes
    ----------
    next_offset
        First offset of the events partition that is not in the state.
    topic
        Name of the events topic; None if the state does not say it.
    topic_id
        Kafka's id of this topic.
    profile
        `PROFILE` scalar, decayed to the clock of the partition.
    population
        `POPULATION` scalar.
    decisions
        `DECISION` (n,): the decisions about the user.
    text_of
        Text of a hash, or None.
    """

    partition: int
    next_offset: int
    topic: str | None
    topic_id: str | None
    profile: np.void
    population: np.void
    decisions: NDArray[Any]
    text_of: TextOf


def compile_kernels() -> None:
    """Compile what `stored_user` needs, or load it, so that no question waits some seconds for it."""
    bring_to_clock(np.atleast_1d(profile_layout.blank()), population_layout.blank())


def stored_user(read: Read, partition: int, key: bytes, user: str, forget_ms: int) -> StoredUser | None:
    """Read a user's part of a snapshot; None without a profile, or if it has aged out and counts as none.

    Parameters
    ----------
    read
        Reads values of one snapshot.
    key
        Key of the profile.
    user
        Name that decisions have for the user; empty for a source.
    forget_ms
        Active time without an event after which a profile counts as none.

    Raises
    ------
    UnreadableProfileError
        If the stored values have another layout, or are damaged.
    """
    value, meta, head, hash_key, stored_decisions = read(
        [key, META_KEY, POPULATION_KEY, HASH_KEY, DECISIONS_KEY]
    )
    if value is None or meta is None or head is None:
        return None
    try:
        version, next_offset = META.unpack_from(meta)
        version &= ~LAYOUT_FLAG
        if version not in migration.READABLE:
            raise StateError(f"the state has layout {version}")
        profile = np.atleast_1d(migration.profile(value, "the profile")).copy()
        population = np.atleast_1d(migration.population(head, version, "the population")).copy()
        if last_active(value) < int(population["active_ms"][0]) - forget_ms:
            return None
        decisions = decisions_about(stored_decisions, user, hash_key)
        identity = StateIdentity.decoded(meta[META.size :])
    except (StateError, msgspec.DecodeError, struct.error) as error:
        raise UnreadableProfileError(
            f"a profile in partition {partition} of the state changelog cannot be read ({error}): run "
            "`streamguard serve` of the version of the workers"
        ) from None
    named = profile["sketch_hash"][0, [SKETCHES.index(name) for name in WITH_TEXT]].ravel()
    texts = texts_of(read, [int(value) for value in (*named, *decisions["value"]) if value])
    bring_to_clock(profile, population)
    return StoredUser(
        partition,
        int(next_offset),
        identity.source.topic if identity is not None else None,
        identity.source.id if identity is not None else None,
        profile[0],
        population[0],
        decisions,
        texts.get,
    )
