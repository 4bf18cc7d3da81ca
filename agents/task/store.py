"""Where one partition's state lies on disk: a RocksDB that knows up to where it has read its changelog.

Not a `faust.Table`. Faust's recovery compares offsets with the end of the log and never ends when the last
offsets are transaction markers; it reads uncommitted records; it leaves RocksDB open when a partition is
revoked; and its tables count an event twice after a crash, because a record and the source offset it stands
for are not one write.
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
"""First byte of the keys that are not the state's: `LOCAL` and `streamguard.agents.task.compatibility.SOURCE`."""

LOCAL = RESERVED + b"local"
"""Key of `Local`; written in the same batch as what it describes, and never sent to the changelog."""


class Local(msgspec.Struct, frozen=True):
    """Up to where this RocksDB is a copy of its changelog partition."""

    changelog_id: str
    """Kafka's id of the changelog topic; a topic made again under the same name has another one."""
    position: int
    """The first changelog offset that is not in here."""
    complete_ms: int = 0
    """When it was last known to lack nothing of the changelog (Unix time); 0 while it never was."""


def now_ms() -> int:
    """This machine's clock, as Unix time."""
    return time.time_ns() // 1_000_000


class StoreMemory:
    """StoreMemory of all tables of a worker: one block cache and one limit for what is not yet flushed.

    Parameters
    ----------
    cache
        Bytes of the block cache shared by all tables, indices and filters included. What is not yet flushed may take
        half as much again; it has its own account, lest a checkpoint push the indices out.
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
    options.set_compression_type(rocksdict.DBCompressionType.none())  # values come compressed
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

    The write-ahead log is off: the changelog is the log. What a crash loses from memory is a suffix of whole
    batches, and each batch carries the changelog position it reaches, so the position on disk always fits the
    data on disk and the rest is read again.

    Parameters
    ----------
    path
        Directory of this partition's RocksDB.
    memory
        Shared by all tables of the process.

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
            # Without its name the column family of a directory that is there gets what was stored with it: a cache
            # of its own instead of the shared one.
            self._db = rocksdict.Rdict(str(path), options, column_families={"default": options})
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if "No space left" in str(error):
                raise CannotWriteError(f"cannot open the local state in {path}: {error}: make room") from None
            raise RefusedError(
                f"cannot open the local state in {path}: {error}. If another worker uses this directory, "
                "give each its own --data-dir; if the files are damaged, delete the directory: it is read "
                "again from the changelog"
            ) from None
        self._memory = memory
        without_log = rocksdict.WriteOptions()
        without_log.disable_wal = True
        self._db.set_write_options(without_log)
        stored = self._db.get(LOCAL)
        self.local: Local | None = msgspec.json.decode(stored, type=Local) if stored is not None else None

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values as of the last write; None for what is not there."""
        values: list[bytes | None] = self._db.get(keys)
        return values

    def write(self, changes: Iterable[Change], local: Local) -> None:
        """Apply `changes` and move the changelog position, both or neither; what is deleted leaves the files too."""
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
        """Close it, delete the directory, and begin anew."""
        self.close()
        shutil.rmtree(self.path)
        return StateStore(self.path, self._memory)

    @property
    def estimated_keys(self) -> int:
        """HistoryMetadata how many keys are stored."""
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    @property
    def disk_bytes(self) -> int:
        """Size of the files; what is not flushed yet is in none."""
        return self._db.property_int_value("rocksdb.total-sst-files-size") or 0

    def items(self) -> dict[bytes, bytes]:
        """Everything but `RESERVED` keys: for checks and tests."""
        return {k: v for k, v in self._db.items() if not k.startswith(RESERVED)}

    def close(self) -> None:
        """Flush and close, so that another process may open the directory."""
        with contextlib.suppress(rocksdict.DbClosedError):
            self._db.flush()
            self._db.close()
