"""The state store of one partition: a RocksDB database that also stores the changelog offset it has reached.

It replaces `faust.Table`, which has four defects here. Faust's recovery compares offsets with the end of the log and
never ends when the last offsets are transaction markers. It reads uncommitted records. It leaves RocksDB open when a
partition is revoked. And after a crash its tables count an event twice, because a record and its source offset are
not written together.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import rocksdict

from streamguard.agents.errors import RefusedError
from streamguard.errors import CannotWriteError

Change = tuple[bytes, bytes | None]
"""A key and its value; None deletes it."""

RESERVED = b"\x00"
"""First byte of keys that do not belong to the state: `LOCAL` and `streamguard.agents.task.compatibility.TOPIC_KEY`."""

LOCAL = RESERVED + b"local"
"""Key of `ChangelogPosition`. It is written in one batch with the changes that it describes; the changelog has none."""


class ChangelogPosition(msgspec.Struct, frozen=True):
    """How far this RocksDB database is a copy of its changelog partition."""

    changelog_id: str
    """Kafka's id of the changelog topic; a topic that is created again under the same name has another id."""
    position: int
    """First changelog offset that is not in this database."""
    complete_ms: int = 0
    """Last time at which the database contained the whole changelog (Unix time in ms); 0 if it never did."""


def now_ms() -> int:
    """Unix time of this machine's clock, in milliseconds."""
    return time.time_ns() // 1_000_000


class StoreMemory:
    """Memory that all state stores of a worker share: one block cache, and one limit for unflushed writes.

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
    RefusedError, CannotWriteError
        If RocksDB cannot be opened, or the disk is full; the message names the directory and the remedy.
    """

    def __init__(self, path: Path, memory: StoreMemory) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        options = _options(memory)
        try:
            # The column family must be named: otherwise an existing database opens it with its stored options, and
            # so with a separate cache instead of the shared one.
            self._db = rocksdict.Rdict(str(path), options, column_families={"default": options})
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if "No space left" in str(error):
                raise CannotWriteError(
                    f"the local state in {path} cannot be opened: {error}; free disk space and start the worker again"
                ) from None
            raise RefusedError(
                f"the local state in {path} cannot be opened: {error}. If another worker uses this directory, give "
                "each worker its own --data-dir. If the files are damaged, delete the directory: the worker reads "
                "the state from the changelog again"
            ) from None
        self._memory = memory
        without_log = rocksdict.WriteOptions()
        without_log.disable_wal = True
        self._db.set_write_options(without_log)
        stored = self._db.get(LOCAL)
        self.local: ChangelogPosition | None = (
            msgspec.json.decode(stored, type=ChangelogPosition) if stored is not None else None
        )

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values as of the last write; None for a missing key."""
        values: list[bytes | None] = self._db.get(keys)
        return values

    def write(self, changes: Iterable[Change], local: ChangelogPosition) -> None:
        """Apply `changes` and move the changelog position atomically; deleted values leave the files, too."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        deleted = []
        for key, value in changes:
            if value is None:
                batch.delete(key)
                deleted.append(key)
            else:
                batch.put(key, value)
        batch.put(LOCAL, msgspec.json.encode(local))
        self._db.write(batch)
        self.local = local
        for key in deleted:
            self._db.compact_range(key, key + b"\x00")

    def emptied(self) -> StateStore:
        """Close the store, delete its directory, and open an empty store."""
        self.close()
        shutil.rmtree(self.path)
        return StateStore(self.path, self._memory)

    @property
    def estimated_keys(self) -> int:
        """RocksDB's estimate of the number of stored keys."""
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    @property
    def disk_bytes(self) -> int:
        """Size of the files, without unflushed writes."""
        return self._db.property_int_value("rocksdb.total-sst-files-size") or 0

    def items(self) -> dict[bytes, bytes]:
        """All entries except those with `RESERVED` keys, for checks and tests."""
        return {k: v for k, v in self._db.items() if not k.startswith(RESERVED)}

    def close(self) -> None:
        """Flush and close, so that another process may open the directory."""
        with contextlib.suppress(rocksdict.DbClosedError):
            self._db.flush()
            self._db.close()
