"""Reads the part of a partition's state that is not about a single user: its offset, topic, population and sources."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.events.address import with_network
from streamguard.events.columns import TEXTS
from streamguard.events.hashing import UNKEYED, hash_texts
from streamguard.fold import population as layout
from streamguard.fold.present import bring_sources_to_clock, page_of_source, usual_counts
from streamguard.serving.replica.buffer import META_KEY
from streamguard.serving.replica.lookup import POPULATION_KEY, UnreadableProfileError
from streamguard.state import migration
from streamguard.state.codec import StateError
from streamguard.state.decisions import LAYOUT_FLAG
from streamguard.state.dictionary import texts_of
from streamguard.state.partition import HASH_KEY, META
from streamguard.state.profile_cache import Read

PAGES = layout.SOURCES // layout.SOURCES_PER_PAGE
"""Pages of failing sources in a state."""


class Head(NamedTuple):
    """The population of a partition at a source offset.

    Attributes
    ----------
    population
        `POPULATION` (1,).
    """

    partition: int
    version: int
    next_offset: int
    hash_key: bytes
    population: NDArray[Any]

    @property
    def clock(self) -> int:
        """Event time of the partition, epoch milliseconds."""
        return int(self.population["clock"][0])


class Failing(NamedTuple):
    """A failing source, with its decayed record and the estimated numbers of users."""

    record: np.void
    failed_users: float
    welcome_users: float
    text: str | None


def compile_head() -> None:
    """Compile what the functions of this module need, or load it."""
    page_of_source(np.uint64(0))
    usual_counts(layout.blank(), 0, np.zeros(len(layout.CLASSES)))
    bring_sources_to_clock(np.zeros(1, layout.SOURCE_RECORD), 0, np.zeros(1), np.zeros(1))


def head(read: Read, partition: int) -> Head | None:
    """The population of a snapshot; None if it has no event.

    Raises
    ------
    UnreadableProfileError
        If the state has another layout, or is damaged.
    """
    meta, population, key = read([META_KEY, POPULATION_KEY, HASH_KEY])
    if meta is None or population is None:
        return None
    try:
        version, next_offset = META.unpack_from(meta)
        version &= ~LAYOUT_FLAG
        decoded = np.atleast_1d(migration.population(population, version, "the population")).copy()
    except (StateError, struct.error) as error:
        raise _unreadable(partition, error) from None
    return Head(partition, version, int(next_offset), UNKEYED if key is None else key, decoded)


def usual_now(of: Head) -> NDArray[np.float64]:
    """How many events of each class are usual within minutes at the hour of the clock."""
    out = np.zeros(len(layout.CLASSES))
    usual_counts(of.population, (of.clock // 3_600_000 + 72) % 168, out)
    return out


def failing_sources(read: Read, of: Head, address: str | None = None) -> list[Failing]:
    """The sources that have failed within hours, with their texts as far as the dictionary has them.

    Parameters
    ----------
    address
        In the canonical spelling: only this one; None: all.

    Raises
    ------
    UnreadableProfileError
        If a page has another layout, or is damaged.
    """
    wanted = None if address is None else _hash(address, of.hash_key)
    pages = range(PAGES)
    if wanted is not None:
        page = int(page_of_source(np.uint64(wanted)))
        pages = range(page, page + 1)
    try:
        stored = [
            migration.page(value, layout.SOURCE_RECORD, of.version, "a page of sources")
            for value in read([b"s" + page.to_bytes(2, "big") for page in pages])
            if value is not None
        ]
    except StateError as error:
        raise _unreadable(of.partition, error) from None
    if not stored:
        return []
    records = np.concatenate(stored)
    records = records[(records["hash"] == wanted) if wanted is not None else (records["hash"] != 0)].copy()
    failed, welcome = np.zeros(len(records)), np.zeros(len(records))
    seen = records["last_ts"].copy()
    bring_sources_to_clock(records, of.clock, failed, welcome)
    records["last_ts"] = seen  # of the source's own event, and not the clock
    try:
        texts = texts_of(read, map(int, records["hash"].tolist())) if address is None else {}
    except msgspec.DecodeError as error:
        raise _unreadable(of.partition, error) from None
    return [
        Failing(record, float(f), float(w), address or texts.get(int(record["hash"])))
        for record, f, w in zip(records, failed, welcome, strict=True)
    ]


def _hash(address: str, key: bytes) -> int:
    """Hash of an address as events have it."""
    texts = [with_network(address) if ":" in address else address, *[""] * (len(TEXTS) - 1)]
    return int(hash_texts(texts, len(TEXTS), key)[0][0, 0])


def _unreadable(partition: int, error: Exception) -> UnreadableProfileError:
    return UnreadableProfileError(
        f"partition {partition} of the state changelog cannot be read ({error}): run `streamguard serve` of the "
        "version of the workers"
    )
