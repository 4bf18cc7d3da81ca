"""A simulated disk: paths, and RocksDB databases without a write-ahead log, which lose unflushed writes in a crash."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from tests.simulation.network import Network, network
from tests.simulation.scheduler import EPOCH, Process, require_alive


class Directory:
    """A directory with a database.

    Attributes
    ----------
    durable
        Contents that survive a crash.
    memory
        Contents with the writes that are not flushed yet.
    files
        Names of other files.
    owner
        The process that has opened the database.
    fault
        Text with which RocksDB fails; empty if it works.
    """

    def __init__(self, created: float) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.memory: dict[bytes, bytes] = {}
        self.files: set[str] = set()
        self.owner: Process | None = None
        self.fault = ""
        self.created = created

    def copied(self) -> Directory:
        """A copy of what is durable, as a backup has it."""
        copy = Directory(self.created)
        copy.durable = dict(self.durable)
        copy.memory = dict(self.durable)
        return copy


class Disk:
    """All directories by path."""

    def __init__(self) -> None:
        self.directories: dict[str, Directory] = {}
        self.flush = 0.15
        """Probability that RocksDB flushes its memory after a write."""
        self.full: set[str] = set()
        """Beginnings of paths on which no write succeeds."""


_active: list[Disk] = []


def activate(disk: Disk) -> None:
    """Make a disk the one that paths refer to."""
    _active[:] = [disk]


class SimulatedPath:
    """The part of `pathlib.Path` that the worker uses."""

    def __init__(self, path: str) -> None:
        self._path = str(path)
        self._disk = _active[-1]

    def __truediv__(self, name: str) -> SimulatedPath:
        return SimulatedPath(f"{self._path}/{name}")

    def __str__(self) -> str:
        return self._path

    def __lt__(self, other: SimulatedPath) -> bool:
        return self._path < other._path

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> SimulatedPath:
        return SimulatedPath(self._path.rpartition("/")[0])

    def with_name(self, name: str) -> SimulatedPath:
        return self.parent / name

    def exists(self) -> bool:
        directory, _, name = self._path.rpartition("/")
        inside = self._disk.directories.get(directory)
        return self._path in self._disk.directories or (inside is not None and name in inside.files)

    def is_dir(self) -> bool:
        return self._path in self._disk.directories

    def is_symlink(self) -> bool:
        return False

    def mkdir(self, *, parents: bool, exist_ok: bool) -> None:
        require_alive()
        self._disk.directories.setdefault(self._path, Directory(_now()))

    def touch(self) -> None:
        require_alive()
        self._disk.directories[str(self.parent)].files.add(self.name)

    def rename(self, target: SimulatedPath) -> None:
        require_alive()
        directory = self._disk.directories.pop(self._path)
        directory.created = _now()
        self._disk.directories[str(target)] = directory

    def unlink(self, *, missing_ok: bool) -> None:
        require_alive()

    def glob(self, pattern: str) -> Iterator[SimulatedPath]:
        beginning = f"{self._path}/{pattern.partition('*')[0]}"
        for path in list(self._disk.directories):
            if path.startswith(beginning) and "-" in path[len(beginning) :]:
                yield SimulatedPath(path)

    def stat(self) -> Any:
        return SimpleNamespace(st_ctime=self._disk.directories[self._path].created)


def remove_tree(path: SimulatedPath) -> None:
    """`shutil.rmtree`."""
    require_alive()
    del _active[-1].directories[str(path)]


def _now() -> float:
    return EPOCH + network().scheduler.now


class WriteBatch:
    """rocksdict's WriteBatch."""

    def __init__(self, raw_mode: bool) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        self.changes.append((key, None))


class DbClosedError(Exception):
    """rocksdict's error for a database that is closed."""


class Rdict:
    """rocksdict's Rdict."""

    def __init__(self, path: str, options: Any, column_families: Any) -> None:
        self._process = require_alive()
        self._net: Network = network()
        self._path = path
        self._disk = _active[-1]
        self._directory = directory = self._disk.directories[path]
        self._fail()
        if directory.owner is not None and directory.owner.alive:
            raise Exception(f"IO error: While lock file: {path}/LOCK: Resource temporarily unavailable")
        directory.owner = self._process
        directory.memory = dict(directory.durable)
        self._open = True

    def _fail(self) -> None:
        if not self._process.alive:
            require_alive()
        if self._directory.fault:
            raise Exception(self._directory.fault)

    def set_write_options(self, options: Any) -> None:
        pass

    def get(self, keys: bytes | list[bytes]) -> Any:
        self._fail()
        memory = self._directory.memory
        return [memory.get(key) for key in keys] if isinstance(keys, list) else memory.get(keys)

    def write(self, batch: WriteBatch) -> None:
        self._fail()
        if any(self._path.startswith(full) for full in self._disk.full):
            raise Exception("IO error: No space left on device: While appending to file")
        memory = self._directory.memory
        for key, value in batch.changes:
            if value is None:
                memory.pop(key, None)
            else:
                memory[key] = value
        if self._net.random.random() < self._disk.flush:
            self._directory.durable = dict(memory)

    def compact_range(self, first: bytes, last: bytes) -> None:
        pass

    def items(self, from_key: bytes = b"", read_opt: Any = None) -> list[tuple[bytes, bytes]]:
        self._fail()
        return sorted(entry for entry in self._directory.memory.items() if entry[0] >= from_key)

    def set_options(self, options: dict[str, str]) -> None:
        pass

    def property_int_value(self, name: str) -> int:
        return len(self._directory.memory)

    def flush(self) -> None:
        if not self._open:
            raise DbClosedError
        if self._process.alive:
            self._directory.durable = dict(self._directory.memory)

    def close(self) -> None:
        if not self._open:
            raise DbClosedError
        self._open = False
        if self._process.alive:
            self._directory.owner = None


class _Options:
    """Accepts every option of RocksDB."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return _accept


def _accept(*_: Any, **__: Any) -> None:
    return None


rocksdict = SimpleNamespace(
    Rdict=Rdict,
    WriteBatch=WriteBatch,
    DbClosedError=DbClosedError,
    WriteOptions=_Options,
    Options=_Options,
    ReadOptions=_Options,
    BlockBasedOptions=_Options,
    Cache=_Options,
    WriteBufferManager=SimpleNamespace(new_write_buffer_manager_with_cache=_accept),
    DBCompressionType=SimpleNamespace(none=lambda: None),
)
"""The names of rocksdict that the worker's store uses."""
