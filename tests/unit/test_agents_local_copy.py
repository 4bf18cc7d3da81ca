"""The local copy of a partition: what is put aside, what is deleted, and what is only reported."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rocksdict

from streamguard.agents.task.local_copy import COPY_MS, LocalCopy
from streamguard.errors import CannotWriteError, TemporaryError
from streamguard.metrics import COPIES_REPLACED
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.store import ChangelogPosition, DamagedCopyError, StateStore, StoreMemory, now_ms

HERE = StateIdentity("app", 3, TopicIdentity("events", "s"), "log")
KEYS = [b"%04d" % i for i in range(2000)]


def made(path: Path, identity: StateIdentity | None = HERE, age_ms: int = 0) -> Path:
    """A copy with files of its own, closed."""
    store = StateStore(path, StoreMemory(8 << 20))
    position = ChangelogPosition("log", 7, now_ms() - age_ms, identity)
    store.write([(key, os.urandom(500)) for key in KEYS], position)
    store.close()
    return path


def opened(path: Path) -> LocalCopy:
    return LocalCopy(path, HERE, StoreMemory(8 << 20))


def count(reason: str) -> float:
    return float(COPIES_REPLACED.labels(reason)._value.get())


def table(copy: Path) -> Path:
    return max(copy.glob("*.sst"), key=lambda file: file.stat().st_size)


def manifest(copy: Path) -> Path:
    return next(copy.glob("MANIFEST-*"))


def column_family(copy: Path) -> None:
    """A further column family, as a later version or another program may have made it."""
    options = rocksdict.Options(raw_mode=True)
    db = rocksdict.Rdict(str(copy), options, column_families={"default": options})
    db.create_column_family("other", options)
    db.close()


def as_file(copy: Path) -> None:
    shutil.rmtree(copy)
    copy.write_text("a file")


def as_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "zeroed table": lambda copy: table(copy).write_bytes(bytes(table(copy).stat().st_size)),
    "cut table": lambda copy: os.truncate(table(copy), 1000),
    "missing table": lambda copy: table(copy).unlink(),
    "directory for a table": lambda copy: as_directory(table(copy)),
    "empty CURRENT": lambda copy: os.truncate(copy / "CURRENT", 0),
    "zeroed CURRENT": lambda copy: (copy / "CURRENT").write_bytes(bytes(16)),
    "cut MANIFEST": lambda copy: os.truncate(manifest(copy), 60),
    "missing MANIFEST": lambda copy: manifest(copy).unlink(),
    "column family of another program": column_family,
    "marked": lambda copy: (copy / "DAMAGED").touch(),
    "a file": as_file,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_copy_is_put_aside(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = made(tmp_path / "partition-0003")
    damage(path)
    before = count("damaged")
    copy = opened(path)
    assert copy.store.local is None and copy.store.get_many([KEYS[0]]) == [None]
    copy.close()
    assert count("damaged") == before + 1
    assert [p.name.rpartition("-")[0] for p in tmp_path.iterdir() if p != path] == ["partition-0003.damaged"]


def test_only_the_newest_copy_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "partition-0003"
    for damage in ("empty CURRENT", "missing table", "marked"):
        shutil.rmtree(path, ignore_errors=True)
        DAMAGES[damage](made(path))
        opened(path).close()
    aside = [p for p in tmp_path.iterdir() if p != path]
    assert len(aside) == 1 and (aside[0] / "DAMAGED").exists()


def test_damage_that_is_found_while_reading_is_marked_for_the_next_start(tmp_path: Path) -> None:
    path = made(tmp_path / "partition-0003")
    store = StateStore(path, StoreMemory(8 << 20))
    data = table(path).read_bytes()
    table(path).write_bytes(bytes(len(data)))
    with pytest.raises(DamagedCopyError, match="nothing is lost"):
        store.get_many(KEYS)
    store.close()
    table(path).write_bytes(data)  # the same block may be read without an error the next time
    with pytest.raises(DamagedCopyError, match="marked"):
        StateStore(path, StoreMemory(8 << 20))


@pytest.mark.parametrize(
    "identity",
    [
        StateIdentity("app", 4, HERE.source, "log"),
        StateIdentity("other", 3, HERE.source, "log"),
    ],
)
def test_copy_of_another_partition_or_application_is_put_aside(
    tmp_path: Path, identity: StateIdentity
) -> None:
    path = made(tmp_path / "partition-0003", identity)
    copy = opened(path)
    assert copy.store.local is None
    copy.close()
    assert [p.name.rpartition("-")[0] for p in tmp_path.iterdir() if p != path] == [
        "partition-0003.misplaced"
    ]


@pytest.mark.parametrize("age_ms", [COPY_MS + 60_000, -2 * 86_400_000])
def test_copy_of_unknown_or_great_age_is_deleted(tmp_path: Path, age_ms: int) -> None:
    path = made(tmp_path / "partition-0003", age_ms=age_ms)
    copy = opened(path)
    assert copy.store.local is None
    copy.close()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("identity", [HERE, None])
def test_good_copy_is_kept(tmp_path: Path, identity: StateIdentity | None) -> None:
    path = made(tmp_path / "partition-0003", identity)
    copy = opened(path)
    assert copy.store.local is not None and copy.store.local.position == 7
    copy.close()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "code",
    [
        errno.EMFILE,
        errno.ENOSPC,
        errno.EROFS,
        errno.EACCES,
        errno.EIO,
        errno.EDQUOT,
        errno.ENOMEM,
        errno.ESTALE,
    ],
)
@pytest.mark.parametrize("prefix", ["IO error: ", "Corruption: IO error: "])
def test_condition_that_passes_keeps_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, prefix: str
) -> None:
    path = made(tmp_path / "partition-0003")

    def refuse(*_: object, **__: object) -> None:
        raise Exception(f"{prefix}While open a file for random read: x.sst: {os.strerror(code)}")

    with monkeypatch.context() as patched:
        patched.setattr("rocksdict.Rdict", refuse)
        with pytest.raises(CannotWriteError, match="nothing is lost"):
            opened(path)
    copy = opened(path)
    assert copy.store.local is not None
    copy.close()


@pytest.mark.parametrize(
    "message",
    [
        "Invalid argument: leveldb.BytewiseComparator: does not match existing comparator other",
        "Invalid argument: Column families not opened: other",
        "Not implemented: Unknown compression type",
        "Not supported: a later format",
        "an unknown message",
    ],
)
def test_copy_that_cannot_be_opened_for_a_lasting_reason_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    path = made(tmp_path / "partition-0003")
    real, messages = rocksdict.Rdict, [message]

    def refuse_once(*arguments: Any, **settings: Any) -> Any:
        if messages:
            raise Exception(messages.pop())
        return real(*arguments, **settings)

    monkeypatch.setattr("rocksdict.Rdict", refuse_once)
    copy = opened(path)
    assert copy.store.local is None
    copy.close()
    assert [p.name.rpartition("-")[0] for p in tmp_path.iterdir() if p != path] == ["partition-0003.damaged"]


def test_copy_that_another_process_has_open_is_kept(tmp_path: Path) -> None:
    path = made(tmp_path / "partition-0003")
    copy = opened(path)
    with pytest.raises(TemporaryError, match="another process has opened"):
        opened(path)
    copy.close()
    assert list(tmp_path.iterdir()) == [path]
