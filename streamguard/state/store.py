"""The state store of one partition: a RocksDB database that also stores the changelog offset it has reached.

It replaces `faust.Table`, which has four defects here. Faust's recovery compares offsets with the end of the log and
never ends when the last offsets are transaction markers. It reads uncommitted records. It leaves RocksDB open when a
partition is revoked. And after a crash its tables count an event twice, because a record and its source offset are
not written together.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import rocksdict

from streamguard.errors import CannotWriteError, TemporaryError
from streamguard.state.expiry import PROFILE_KINDS
from streamguard.state.identity import StateIdentity

Change = tuple[bytes, bytes | None]
"""A key and its value; None deletes it."""

RESERVED = b"\x00"
"""First byte of keys that do not belong to the state: `LOCAL`, `COMPLETE_KEY`, and those of former states."""

LOCAL = RESERVED + b"local"
"""Key of `ChangelogPosition`. It is written in one batch with the changes that it describes; the changelog has none."""

COMPLETE_KEY = RESERVED + b"complete"
"""Changelog key of the offset from which on the changelog contains every key; 0 if the record does not exist."""


PURGE_SECONDS = 7 * 86_400
"""Age at which RocksDB rewrites a file in the background, which removes deleted values from it. The changelog keeps
deletions as long."""

PURGE_RANGES = 16
"""Maximum number of key ranges that `StateStore.purge` rewrites one after the other: each rewrites whole files, and
with more ranges, several would rewrite the same file."""


class ChangelogPosition(msgspec.Struct, frozen=True):
    """How far this RocksDB database is a copy of its changelog partition."""

    changelog_id: str
    """Kafka's id of the changelog topic; a topic that is created again under the same name has another id."""
    position: int
    """First changelog offset that is not in this database."""
    complete_ms: int = 0
    """Last time at which the database contained the whole changelog (Unix time in ms); 0 if it never did."""
    identity: StateIdentity | None = None
    """What the copy belongs to; None if it was written before copies had an identity."""

    @classmethod
    def at(cls, position: int, identity: StateIdentity, complete_ms: int) -> ChangelogPosition:
        """The position of a copy with this identity."""
        return cls(identity.changelog_id, position, complete_ms, identity)


class DamagedCopyError(TemporaryError):
    """The files of a local copy are damaged. Nothing is lost: the changelog has all of it, and is read again."""

    def __init__(self, path: Path, reason: object) -> None:
        self.reason = str(reason)
        super().__init__(
            f"the local copy of the state in {path} is damaged ({reason}); nothing is lost: start again; the program "
            "replaces the copy and reads the state from the changelog"
        )


_DAMAGED = "DAMAGED"
"""Name of the file that marks a copy as damaged: not every damage is found again when the files are opened."""

_PASSING = (
    "Too many open files",
    "No space left",
    "quota exceeded",
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "Input/output error",
    "Cannot allocate memory",
    "Device or resource busy",
    "Resource temporarily unavailable",
    "Interrupted system call",
    "Stale file handle",
    "Connection timed out",
    "Transport endpoint is not connected",
)
"""Reasons of the system that say nothing about the files; RocksDB reports some of them as a corruption."""

_INCOMPLETE = ("No such file or directory", "Is a directory", "Not a directory")


_LOCKED = ("lock hold by", "While lock file")
"""Reasons of RocksDB if another process has opened the files."""


def _is_damage(error: Exception, *, opening: bool = False) -> bool:
    """Whether an error of RocksDB means that the files are damaged. It is reported only in the text of the message.

    RocksDB has many messages for files that do not fit together, so everything that prevents the opening and does not
    pass counts as damage: the copy is put aside, and nothing is lost. While the database is open, only a corruption or
    a missing file does.
    """
    text = str(error)
    if type(error) is not Exception or any(reason in text for reason in _PASSING):
        return False
    if opening:
        return not any(reason in text for reason in _LOCKED)
    return text.startswith("Corruption") or any(reason in text for reason in _INCOMPLETE)


def now_ms() -> int:
    """Unix time of this machine's clock, in milliseconds."""
    return time.time_ns() // 1_000_000


class StoreMemory:
    """Memory that all state stores of a process share: one block cache, and one limit for unflushed writes.

    Parameters
    ----------
    cache
        Size in bytes of the shared block cache, which also holds indices and filters. Unflushed writes may take
        another half of this size. They have a separate limit, so that a checkpoint does not evict the indices.
    """

    def __init__(self, cache: int) -> None:
        self.cache = rocksdict.Cache(cache)
        self.writes = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
            cache // 2, False, rocksdict.Cache(cache // 2)
        )


def _options(memory: StoreMemory) -> rocksdict.Options:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(8 << 20)
    options.set_max_write_buffer_number(2)
    options.set_write_buffer_manager(memory.writes)
    options.set_compression_type(rocksdict.DBCompressionType.none())  # values are compressed already
    options.set_max_background_jobs(2)
    options.set_max_open_files(128)
    options.set_keep_log_file_num(2)
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(memory.cache)
    blocks.set_bloom_filter(10, False)
    blocks.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(blocks)
    return options


class StateStore:
    """The stored state of one partition.

    RocksDB's write-ahead log is off, because the changelog serves as the log. A crash loses the last batches from
    memory, each of them as a whole. Every batch contains the changelog position that it reaches, so the position on
    disk always matches the data on disk, and the rest is read from the changelog again.

    Parameters
    ----------
    path
        Directory of this partition's RocksDB database.
    memory
        Memory shared by all state stores of the process.

    Raises
    ------
    DamagedCopyError
        If the files are damaged, here and in every other method.
    CannotWriteError
        If the disk is full, or the files cannot be opened for another reason that passes.
    TemporaryError
        If another process has opened the directory.
    """

    def __init__(self, path: Path, memory: StoreMemory) -> None:
        if path.exists() and not path.is_dir():
            raise DamagedCopyError(path, "it is not a directory")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        if (path / _DAMAGED).exists():
            raise DamagedCopyError(path, "it was marked when this was found")
        options = _options(memory)
        try:
            # The column family must be named: otherwise an existing database opens it with its stored options, and
            # so with a separate cache instead of the shared one.
            self._db = rocksdict.Rdict(str(path), options, column_families={"default": options})
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if _is_damage(error, opening=True):
                raise DamagedCopyError(path, error) from None
            if any(reason in str(error) for reason in _LOCKED):
                raise TemporaryError(
                    f"another process has opened the local state in {path} ({error}): start this one again when that "
                    "process has ended; if both are to run, give each its own --data-dir"
                ) from None
            raise CannotWriteError(
                f"the local state in {path} cannot be opened: {error}; remove the cause (free disk space, raise the "
                "limit of open files, or make the disk writable) and start the program again; nothing is lost"
            ) from None
        self._memory = memory
        without_log = rocksdict.WriteOptions()
        without_log.disable_wal = True
        self._db.set_write_options(without_log)
        try:
            with self._reported():
                stored = self._db.get(LOCAL)
                self.local: ChangelogPosition | None = (
                    msgspec.json.decode(stored, type=ChangelogPosition) if stored is not None else None
                )
        except BaseException:
            self._db.close()
            raise
        self._db.set_options({"periodic_compaction_seconds": str(PURGE_SECONDS)})

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Raise `DamagedCopyError` if the files turn out to be damaged, and mark them for the next start."""
        try:
            yield
        except Exception as error:
            if not (_is_damage(error) or isinstance(error, msgspec.DecodeError)):
                raise
            with contextlib.suppress(OSError):
                (self.path / _DAMAGED).touch()
            raise DamagedCopyError(self.path, error) from None

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values as of the last write; None for a missing key."""
        with self._reported():
            values: list[bytes | None] = self._db.get(keys)
        return values

    def write(self, changes: Iterable[Change], local: ChangelogPosition) -> None:
        """Apply `changes` and move the changelog position atomically.

        Deleted values leave the files within `PURGE_SECONDS`, or with `purge`.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in changes:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(LOCAL, msgspec.json.encode(local))
        with self._reported():
            self._db.write(batch)
            self.local = local

    def purge(self, keys: Iterable[bytes]) -> None:
        """Rewrite the files that contain deleted values of these keys, so that the values leave the disk at once."""
        ordered = sorted(keys)
        size = max(1, -(-len(ordered) // PURGE_RANGES))
        with self._reported():
            for first in range(0, len(ordered), size):
                part = ordered[first : first + size]
                self._db.compact_range(part[0], part[-1] + b"\x00")

    def profiles(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The stored profiles from a key on, in the order of their keys; the block cache keeps what it has."""
        options = rocksdict.ReadOptions()
        options.fill_cache(False)
        with self._reported():
            for kind in PROFILE_KINDS:
                for key, value in self._db.items(from_key=max(start, kind), read_opt=options):
                    if key[:1] != kind:
                        break
                    yield key, value

    def frozen_profiles(self) -> Iterator[bytes]:
        """The stored profiles of this moment, whatever is written meanwhile; the block cache keeps what it has."""
        options = rocksdict.ReadOptions()
        options.fill_cache(False)
        with self._reported():
            # An iterator of RocksDB shows the moment at which it was made; a snapshot of rocksdict shows later writes.
            items = self._db.items(from_key=PROFILE_KINDS[0], read_opt=options)
        return self._profiles_of(items)

    def _profiles_of(self, items: Iterator[tuple[bytes, bytes]]) -> Iterator[bytes]:
        with self._reported():
            for key, value in items:
                if key[:1] > PROFILE_KINDS[-1]:
                    return
                if key[:1] in PROFILE_KINDS:
                    yield value

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Everything that the changelog contains, one entry after the other."""
        with self._reported():
            for key, value in self._db.items():
                if key != LOCAL:
                    yield key, value

    @property
    def estimated_keys(self) -> int:
        """RocksDB's estimate of the number of stored keys."""
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    @property
    def disk_bytes(self) -> int:
        """Size of the files, without unflushed writes."""
        return self._db.property_int_value("rocksdb.total-sst-files-size") or 0

    def items(self) -> dict[bytes, bytes]:
        """All entries except those with `RESERVED` keys."""
        with self._reported():
            return {k: v for k, v in self._db.items() if not k.startswith(RESERVED)}

    def close(self) -> None:
        """Flush and close, so that another process may open the directory."""
        with contextlib.suppress(rocksdict.DbClosedError), self._reported():
            try:
                self._db.flush()
            finally:
                self._db.close()
