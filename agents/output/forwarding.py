"""Selects the events that go to the sources topic, and holds their records until the next checkpoint writes them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np

from streamguard.agents.output.dead_letter import origin
from streamguard.events.indicators import AUTHENTICATION, FAILED
from streamguard.events.subject import profile_key, subject_of
from streamguard.history.partitioner import partition_of
from streamguard.metrics import FORWARDED_TOO_LARGE
from streamguard.records.record import Headers, Record
from streamguard.state.partition import Folded

FULL_BYTES = 4 << 20
"""Size of the records that a partition holds from which a checkpoint is due."""
BATCH_BYTES = 512 << 10
"""Size of a batch of several records; it is below the limit of a producer's batch and of most topics."""
OVERHEAD_BYTES = 512
"""What a record takes in addition to key and value, at most: the names and values of its headers, and its batch."""
ADDRESS_CHARACTERS = 45
"""Characters of the longest address. Other texts, such as a sender's megabyte, are not kept in the cache of places."""

_log = logging.getLogger(__name__)


class Forwarded(NamedTuple):
    """A record for the sources topic.

    Attributes
    ----------
    size
        Upper limit of its size in a batch, the batch's own header included.
    """

    key: bytes
    value: bytes
    timestamp: int
    headers: Headers
    size: int


class ForwardedBatch(NamedTuple):
    """Records for one partition of the sources topic, few enough for one batch."""

    topic: str
    partition: int
    records: list[Forwarded]


class Destination(NamedTuple):
    """The sources topic, as it was at the assignment.

    Attributes
    ----------
    limit
        Size of the largest batch that it accepts, in bytes.
    id
        Kafka's id of it.
    """

    topic: str
    partitions: int
    limit: int
    id: str = ""


class Forwarding:
    """What the next checkpoint of one partition forwards.

    The records are written in the transaction of the checkpoint whose state contains their events. So a reader of
    committed records finds each event once, through any crash.

    Parameters
    ----------
    destination
        None if nothing is forwarded.

    Attributes
    ----------
    size
        Size of the held records, in bytes.
    """

    def __init__(self, destination: Destination | None) -> None:
        self._destination = destination
        self._held: defaultdict[int, list[Forwarded]] = defaultdict(list)
        self.size = 0

    def add(self, records: Sequence[Record], folded: Folded) -> None:
        """Hold the records of a chunk's failures and logins that have a source address."""
        destination = self._destination
        if destination is None:
            return
        addresses, index, held = folded.columns.text("source"), folded.index, self._held
        chosen = np.flatnonzero(folded.columns.flags & np.uint32(FAILED | AUTHENTICATION)).tolist()
        topic, number, _ = origin(records[0])  # a chunk is of one partition
        for event in chosen:
            if not (address := addresses[event]):
                continue
            record = records[index[event]]
            place = _place if len(address) <= ADDRESS_CHARACTERS else _place.__wrapped__
            key, partition = place(address, destination.partitions)
            value = cast(bytes, record.value)  # an event was parsed from it
            size = len(key) + len(value) + OVERHEAD_BYTES
            headers = [topic, number, ("sg.offset", b"%d" % record.offset)]
            forwarded = Forwarded(key, value, record.timestamp, headers, size)
            if size > destination.limit:
                self._leave_out(forwarded, record, destination)
                continue
            held[partition].append(forwarded)
            self.size += size

    def _leave_out(self, forwarded: Forwarded, record: Record, destination: Destination) -> None:
        FORWARDED_TOO_LARGE.inc()
        _log.warning(
            "the event at offset %d of partition %d has %d bytes and does not fit into the topic %s, so its source is "
            "judged without it: run `streamguard topics create --alter`, which raises max.message.bytes, and start "
            "the worker again",
            record.offset,
            record.partition,
            forwarded.size,
            destination.topic,
        )

    @property
    def full(self) -> bool:
        """Whether a checkpoint is due."""
        return self.size >= FULL_BYTES

    @property
    def overfull(self) -> bool:
        """Whether the next chunk has to wait for a checkpoint."""
        return self.size >= 2 * FULL_BYTES

    def take(self) -> list[ForwardedBatch]:
        """The held records, for a checkpoint; later ones are held for the next one."""
        destination = self._destination
        if destination is None:
            return []
        held, self._held, self.size = self._held, defaultdict(list), 0
        limit = min(destination.limit, BATCH_BYTES)
        return [
            ForwardedBatch(destination.topic, partition, part)
            for partition, records in held.items()
            for part in _cut(records, limit)
        ]


def _cut(records: list[Forwarded], limit: int) -> list[list[Forwarded]]:
    """Parts whose records are no larger than the limit together; a larger record is a part of its own."""
    parts: list[list[Forwarded]] = []
    size = limit
    for record in records:
        size += record.size
        if size > limit:
            parts.append([])
            size = record.size
        parts[-1].append(record)
    return parts


@lru_cache(65_536)
def _place(address: str, partitions: int) -> tuple[bytes, int]:
    """Key of an address, shortened as its profile's is, and the partition of that key."""
    key = profile_key(subject_of("", address))[1:]
    return key, partition_of(key, partitions)
