"""Follows the state changelog into the copies of its partitions, through outages, deletions and new topics."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.errors import ConfigurationError, UnavailableError
from streamguard.kafka.connection import Brokers
from streamguard.metrics import (
    REPLICA_RESULTS,
    SERVE_REPLICA_CHECKPOINTS,
    SERVE_REPLICA_REBUILT,
    SERVE_REPLICA_RECORDS,
)
from streamguard.serving.log.freshness import AsOf, Position, Progress
from streamguard.serving.log.reader import DeletedError, LogReader, TopicState, topic_state
from streamguard.serving.log.record import LogRecord
from streamguard.serving.replica.partition_copy import PartitionCopy
from streamguard.state.store import DamagedCopyError, StoreMemory
from streamguard.text import counted

CACHE_BYTES = 32 << 20
"""Block cache of all copies together: as much as a worker has by default; the files are in the system's cache, too."""
TAKE_SECONDS = 0.1
"""Time for which the client collects records; it waits so long even if some have arrived, so this is their delay."""
EXAMINE_SECONDS = 10.0
"""Time between two questions to the brokers: whether they answer, whether the topic is the same, and where it ends."""
RETRY_SECONDS = 2.0
"""Time before the next attempt when the topic cannot be read."""

_log = logging.getLogger(__name__)


class ReplicaCounters(msgspec.Struct, frozen=True):
    """What a replica has done since its start, for metrics."""

    applied: int = 0
    """Changes that were written."""
    checkpoints: int = 0
    """Exact snapshots that were reached."""
    ignored: int = 0
    """Records without a key, which no worker writes."""
    damaged: int = 0
    """Offsets that were passed over, because their batches cannot be read."""
    rebuilt: int = 0
    """Copies that were deleted and built again."""
    lag: int = 0
    """Offsets of the changelog that are not read yet, as of the last answer of the brokers."""


class Follower:
    """Keeps a copy of each partition of a changelog up to date.

    Parameters
    ----------
    brokers, topic
        The changelog.
    directory
        Directory for its copies.
    partitions
        Partitions to hold; None: all.

    Attributes
    ----------
    copies
        The copies by partition, open while `follow` runs; empty until the brokers have described the topic.
    partitions
        Number of partitions of the topic; 0 until then.
    """

    def __init__(
        self, brokers: Brokers, topic: str, directory: Path, partitions: Collection[int] | None
    ) -> None:
        self._brokers = brokers
        self._topic = topic
        self._directory = directory
        self._held = None if partitions is None else frozenset(partitions)
        self._memory = StoreMemory(CACHE_BYTES)
        self._progress = Progress(topic)
        self._past = ReplicaCounters()
        self._ends: dict[int, int] = {}
        self._answered = False
        """Whether the brokers have answered the last question."""
        self._damaged = 0
        self._reported = ReplicaCounters()
        self.trouble = ""
        """Why the changelog cannot be followed now; empty if it can."""
        self.copies: dict[int, PartitionCopy] = {}
        self.partitions = 0

    def follow(self, stop: threading.Event) -> None:
        """Follow the log until `stop` is set, then close the copies.

        Raises
        ------
        CannotWriteError
            If the disk is full, or the directory cannot be written.
        TemporaryError
            If another process has opened the directory.
        ConfigurationError
            If the topic does not have a partition that is to be held.
        """
        try:
            while not stop.is_set():
                try:
                    self._session(stop)
                except (DeletedError, UnavailableError) as error:
                    self._answered, self.trouble = False, str(error)
                    _log.warning(
                        "the state changelog %s cannot be read (%s); the next attempt follows in %g s",
                        self._topic,
                        error,
                        RETRY_SECONDS,
                    )
                    stop.wait(RETRY_SECONDS)
                except DamagedCopyError as error:  # its files are marked, so it is built again
                    _log.warning("%s", error)
        finally:
            self._close()

    def as_of(self) -> AsOf:
        """How far the changelog is reflected in the copies."""
        return self._progress.as_of()

    def counters(self) -> ReplicaCounters:
        """What was done so far."""
        copies = list(self.copies.values())
        lag = sum(max(self._ends.get(copy.number, 0) - copy.position, 0) for copy in copies)
        return _added(self._past, copies, lag, self._damaged)

    def _report(self) -> None:
        """Add what was done since the last report to the metrics."""
        now, before = self.counters(), self._reported
        for name in REPLICA_RESULTS:
            SERVE_REPLICA_RECORDS.labels(name).inc(getattr(now, name) - getattr(before, name))
        SERVE_REPLICA_CHECKPOINTS.inc(now.checkpoints - before.checkpoints)
        SERVE_REPLICA_REBUILT.inc(now.rebuilt - before.rebuilt)
        self._reported = now

    def _session(self, stop: threading.Event) -> None:
        """Follow the topic as it is now; returns when it has become another one, or a copy is damaged."""
        described = self._examine()
        if described is None:
            self.trouble = f"the topic {self._topic} does not exist: run `streamguard topics create`"
            _log.warning(
                "the state changelog %s does not exist yet: `streamguard topics create` creates it",
                self._topic,
            )
            stop.wait(RETRY_SECONDS)
            return
        self.partitions = len(described.bounds)
        self._open(described)
        positions = {number: copy.position for number, copy in self.copies.items()}
        reader = LogReader(self._brokers, self._topic, positions)
        try:
            examined = time.monotonic()
            while not stop.is_set() and not any(copy.damaged for copy in self.copies.values()):
                known = reader.unreadable
                records = reader.take(TAKE_SECONDS)
                self._damaged += reader.unreadable - known  # the reader has logged where
                self._apply(records, reader)
                self._report()
                if self._answered:
                    self.trouble = ""
                if time.monotonic() - examined >= EXAMINE_SECONDS:
                    if not self._is_same(described):
                        return
                    examined = time.monotonic()
        finally:
            reader.close()

    def _examine(self) -> TopicState | None:
        described = topic_state(self._brokers, self._topic)
        self._answered = True
        self._ends = {} if described is None else {p: bounds.end for p, bounds in described.bounds.items()}
        return described

    def _is_same(self, described: TopicState) -> bool:
        """Whether the brokers still have this topic; one that does not answer says nothing against it."""
        try:
            now = self._examine()
        except UnavailableError as error:
            self._answered, self.trouble = False, str(error)
            _log.warning("%s; profiles are as old as `staleness_ms` says", error)
            return True
        return now is not None and now.id == described.id and len(now.bounds) == len(described.bounds)

    def _open(self, described: TopicState) -> None:
        self._close()
        if self._held is not None and not self._held <= described.bounds.keys():
            raise ConfigurationError(
                f"partition {max(self._held)} is to be held, but {self._topic} has only "
                f"{counted(len(described.bounds), 'partition')}: name partitions from 0 to {len(described.bounds) - 1}"
            )
        path = self._directory
        names = {
            f"partition-{number:04d}": number
            for number in sorted(described.bounds)
            if self._held is None or number in self._held
        }
        for found in path.glob("partition-*"):
            if found.name not in names:  # it could keep the profile of a user who is to be forgotten
                shutil.rmtree(found)
        copies = {}
        try:
            for name, number in names.items():
                copies[number] = PartitionCopy(
                    path / name,
                    number,
                    described.id,
                    len(described.bounds),
                    described.bounds[number],
                    self._memory,
                )
        finally:
            self.copies = copies

    def _apply(self, records: list[LogRecord], reader: LogReader) -> None:
        before = sum(copy.applied for copy in self.copies.values())
        by_partition: dict[int, list[LogRecord]] = {}
        for record in records:
            by_partition.setdefault(record.partition, []).append(record)
        for number, part in by_partition.items():
            self.copies[number].add(part)
        positions, ended = reader.positions, reader.ended
        for number in ended:
            self.copies[number].reach_end(positions[number])
        current = self._answered and len(ended) == len(self.copies)
        self._progress.reached(
            {number: _position(copy) for number, copy in self.copies.items()},
            whole=current and all(copy.ready for copy in self.copies.values()),
            changed=sum(copy.applied for copy in self.copies.values()) > before,
        )

    def _close(self) -> None:
        copies, self.copies = self.copies, {}
        for copy in copies.values():
            copy.close()
        self._past = _added(self._past, copies.values(), 0, 0)
        self._report()


def _position(copy: PartitionCopy) -> Position:
    return Position(copy.number, copy.reflected, rfc3339(copy.reflected_ms) if copy.reflected_ms else None)


def _added(
    past: ReplicaCounters, copies: Collection[PartitionCopy], lag: int, damaged: int
) -> ReplicaCounters:
    return ReplicaCounters(
        applied=past.applied + sum(copy.applied for copy in copies),
        checkpoints=past.checkpoints + sum(copy.checkpoints for copy in copies),
        ignored=past.ignored + sum(copy.ignored for copy in copies),
        damaged=damaged,
        rebuilt=past.rebuilt + sum(bool(copy.rebuilt) for copy in copies),
        lag=lag,
    )
