"""The copy of one partition of the changelog in RocksDB: an exact snapshot that readers see between two checkpoints."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import msgspec

from streamguard.errors import TemporaryError
from streamguard.fold.dimensions import VERSION
from streamguard.kafka.topics import DELETION_MS
from streamguard.serving.log.reader import Bounds
from streamguard.serving.log.record import LogRecord
from streamguard.serving.replica.buffer import CheckpointBuffer
from streamguard.state.profile_cache import Read
from streamguard.state.store import (
    COMPLETE_KEY,
    RESERVED,
    Change,
    ChangelogPosition,
    DamagedCopyError,
    StateStore,
    StoreMemory,
    now_ms,
)
from streamguard.text import counted

ORIGIN_KEY = RESERVED + b"origin"
"""Key of `Origin`; the changelog has none."""
BUFFER_BYTES = 32 << 20
"""Memory for changes of a partition that wait for the end of their checkpoint. A checkpoint of a worker with default
settings changes up to 20,000 profiles, which take about 20 MiB; more is applied in parts, and until the end of the log
the copy is not exact."""
LOAD_BYTES = 4 << 20
"""Memory for changes of a partition that is loaded: nobody reads it yet, so they are written in parts."""
MAX_AGE_MS = DELETION_MS - 86_400_000
"""Age from which a copy is built again, because it may have missed the deletion of a user. It is one day shorter than
the changelog keeps deletions, to allow for clocks that differ."""

_log = logging.getLogger(__name__)


class Origin(msgspec.Struct, frozen=True):
    """What a copy was built from, and whether it is an exact snapshot."""

    partitions: int
    """Number of partitions of the changelog."""
    layout: int
    """Layout of the state that the program knew."""
    first: int
    """Changelog offset from which on it was read."""
    exact: bool
    """Whether it is the state at a source offset, and not a part of a state that is being loaded."""


class NotReadyError(TemporaryError):
    """A copy contains no exact snapshot yet, or is being closed."""


class PartitionCopy:
    """Follows one partition of a changelog.

    One thread adds records; any thread may read. A copy that does not fit the changelog any more is deleted and built
    again when it is opened, because the changelog has all of it.

    Parameters
    ----------
    path
        Directory of the copy.
    number
        Number of the partition.
    topic_id, partitions, bounds
        Kafka's id of the changelog, its number of partitions, and the offsets of this one.
    memory
        Memory shared by all copies.

    Attributes
    ----------
    position
        Offset of the next record to read.
    reflected, reflected_ms
        Offset of the first record that the snapshot does not contain, and the time of the record before it, epoch
        milliseconds; 0 until one was read.
    rebuilt
        Why the directory was deleted; empty if it was used, or if there was none.
    applied
        Number of records that were written since it was opened.
    checkpoints
        Number of exact snapshots since it was opened.
    ignored
        Number of records without a key, which no worker writes.
    damaged
        Whether its files turned out to be damaged, so that it has to be opened again.

    Raises
    ------
    CannotWriteError
        If the disk is full, or the directory cannot be written.
    TemporaryError
        If another process has opened the directory.
    """

    def __init__(
        self, path: Path, number: int, topic_id: str, partitions: int, bounds: Bounds, memory: StoreMemory
    ) -> None:
        self.number = number
        self._topic_id = topic_id
        self._lock = threading.Lock()
        self._scanning = threading.Lock()
        """Held while all profiles are read, which takes long: the copy is not closed meanwhile."""
        self._buffer = CheckpointBuffer()
        self._open = True
        self._current = False
        """Whether the end of the log was reached since the opening."""
        self._is_whole = False
        self.damaged = False
        self.applied = self.checkpoints = self.ignored = 0
        self.rebuilt = ""
        try:
            self._store = StateStore(path, memory)
            origin = _origin(self._store)
        except DamagedCopyError as error:
            self.rebuilt, origin = f"is damaged ({error.reason})", None
        else:
            self.rebuilt = _misfit(self._store, origin, topic_id, partitions, bounds)
            if self.rebuilt:
                self._store.close()
        if self.rebuilt:
            _log.warning("the copy of partition %d %s: it is deleted and built again", number, self.rebuilt)
            _remove(path)
            self._store = StateStore(path, memory)
            origin = None
        local = self._store.local
        self._origin = origin or Origin(partitions, VERSION, bounds.start, exact=False)
        self.position = local.position if local is not None else bounds.start
        self._exact_ms = local.complete_ms if local is not None else 0
        self.reflected, self.reflected_ms, self._read_ms = self.position, 0, 0

    @property
    def ready(self) -> bool:
        """Whether it is an exact snapshot of a changelog that was whole, and has reached its end since the opening."""
        return self._open and not self.damaged and self._current and self._origin.exact and self._is_whole

    def add(self, records: Iterable[LogRecord]) -> None:
        """Add the next records of the partition."""
        for record in records:
            self.position, self._read_ms = record.offset + 1, record.timestamp
            if record.key is None:
                self.ignored += 1
                continue
            if self._buffer.add(record):
                self._apply(exact=True)
            elif self._buffer.size >= (BUFFER_BYTES if self._origin.exact else LOAD_BYTES):
                self._apply(exact=False)

    def reach_end(self, position: int) -> None:
        """State that the log ends at this position: what was read until there is an exact snapshot."""
        self.position = position
        self._buffer.reach_end(position)
        self._exact_ms = now_ms()
        if self._buffer.changes or not self._origin.exact:
            self._apply(exact=True)
        self.reflected = position
        if not self._current:
            self._is_whole = self._check_whole()
            self._current = True

    def _apply(self, *, exact: bool) -> None:
        """Write all changes that were read, with the position and what the copy is after them."""
        origin = msgspec.structs.replace(self._origin, exact=exact)
        changes = self._buffer.take()
        with self._lock:
            self._write(changes, origin)
            self._origin = origin
        self.applied += len(changes)
        if exact:
            self.checkpoints += 1
            self.reflected, self.reflected_ms = self.position, self._read_ms
        if any(key == COMPLETE_KEY for key, _ in changes):
            self._is_whole = self._check_whole()

    def _write(self, changes: list[Change], origin: Origin) -> None:
        local = ChangelogPosition(self._topic_id, self.position, self._exact_ms)
        self._store.write([*changes, (ORIGIN_KEY, msgspec.json.encode(origin))], local)

    def _check_whole(self) -> bool:
        """Whether the changelog had all keys when the copy was begun; its beginning may have been deleted."""
        (found,) = self._store.get_many([COMPLETE_KEY])
        whole = self._origin.first <= int(found or 0)
        if not whole:
            _log.error(
                "partition %d of the changelog starts at offset %d, and its records before were deleted "
                "(cleanup.policy must be `compact`): profiles of this partition are not served until its worker has "
                "written the whole state again, which it does when it is started",
                self.number,
                self._origin.first,
            )
        return whole

    @contextmanager
    def snapshot(self) -> Iterator[Read]:
        """A function that reads values of one exact snapshot; no checkpoint is applied in the block.

        Raises
        ------
        NotReadyError
            If there is none.
        """
        with self._reading() as store:
            yield store.get_many

    @contextmanager
    def frozen(self, keys: list[bytes]) -> Iterator[tuple[list[bytes | None], Iterator[bytes]]]:
        """Values of some keys and all stored profiles, as of one exact snapshot; checkpoints are applied meanwhile.

        Raises
        ------
        NotReadyError
            If there is none, or if the copy is closed while the profiles are read.
        """
        with self._scanning:
            with self._reading() as store:
                values, profiles = store.get_many(keys), store.frozen_profiles()
            try:
                yield values, self._while_open(profiles)
            except DamagedCopyError as error:
                self.damaged = True
                _log.warning("the copy of partition %d is damaged (%s)", self.number, error.reason)
                raise NotReadyError from None

    def _while_open(self, profiles: Iterator[bytes]) -> Iterator[bytes]:
        for value in profiles:
            if not self._open:
                raise NotReadyError
            yield value

    def profile_keys(self, start: bytes, limit: int) -> list[bytes]:
        """Keys of stored profiles in ascending order, from `start` on, at most `limit`.

        Raises
        ------
        NotReadyError
            If there is no exact snapshot.
        """
        with self._reading() as store:
            return [key for key, _ in islice(store.profiles(start), limit)]

    @contextmanager
    def _reading(self) -> Iterator[StateStore]:
        with self._lock:
            if not self.ready:
                raise NotReadyError
            try:
                yield self._store
            except DamagedCopyError as error:
                self.damaged = True
                _log.warning("the copy of partition %d is damaged (%s)", self.number, error.reason)
                raise NotReadyError from None

    def contents(self) -> dict[bytes, bytes]:
        """All keys and values of the state, for comparisons."""
        with self._lock:
            return self._store.items()

    def close(self) -> None:
        """Flush and close; what was read of an unfinished checkpoint is read again at the next start."""
        with self._lock:
            if not self._open:
                return
            self._open = False  # ends a scan
        with self._scanning, self._lock:
            try:
                if self._origin.exact and not self._buffer.changes:
                    self._write([], self._origin)
            except DamagedCopyError as error:
                _log.warning("the copy of partition %d is damaged: %s", self.number, error)
            finally:
                self._store.close()


def _origin(store: StateStore) -> Origin | None:
    (stored,) = store.get_many([ORIGIN_KEY])
    try:
        return msgspec.json.decode(stored, type=Origin) if stored is not None else None
    except msgspec.DecodeError:
        return None


def _misfit(store: StateStore, origin: Origin | None, topic_id: str, partitions: int, bounds: Bounds) -> str:
    """Why a copy cannot be continued; empty if it can, or if it is new."""
    local = store.local
    if local is None:
        return ""
    if origin is None:
        return "does not state what it was built from"
    if local.changelog_id != topic_id:
        return f"is of another changelog (id {local.changelog_id}, now {topic_id})"
    if origin.partitions != partitions:
        return f"is of a changelog with {counted(origin.partitions, 'partition')}, which now has {partitions}"
    if origin.layout != VERSION:
        return f"was built for layout {origin.layout} of the state, and this program has layout {VERSION}"
    if not bounds.start <= local.position <= bounds.end:
        return f"has reached offset {local.position}, and the changelog has the offsets {bounds.start} to {bounds.end}"
    if origin.exact and not abs(now_ms() - local.complete_ms) <= MAX_AGE_MS:
        return "is so old that it may have missed the deletion of a user"
    if not origin.exact:
        return "is unfinished"
    return ""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
