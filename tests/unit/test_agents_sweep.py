"""A partition task with RocksDB deletes profiles that have aged out, a few with each checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamguard.agents.task import sweep
from streamguard.agents.task.checkpoint import Checkpointer
from streamguard.agents.task.partition_task import Chunk, PartitionTask
from streamguard.metrics import EXPIRED_PROFILES
from streamguard.records.record import Record
from streamguard.settings.schema import Detection, Settings
from streamguard.state.expiry import PROFILE_KINDS
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.partition import PartitionState
from streamguard.state.profile_cache import user_key
from streamguard.state.store import Change, ChangelogPosition, StateStore, StoreMemory
from tests.streams import DAY, HOUR, START, Partition, event

IDENTITY = StateIdentity("app", 0, TopicIdentity("events", "s"), "id")
DETECTION = Detection(forget_after_days=2.0)
VISITORS = 40
KEYS = 7
"""Profiles that a checkpoint looks at here, so that a lap takes several checkpoints."""


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "KEYS", KEYS)


class Changelog:
    """A writer that keeps what is committed."""

    def __init__(self, committed: list[Sequence[Change]]) -> None:
        self.committed = committed

    async def commit(self, changes: Sequence[Change], forwarded: object) -> int:
        self.committed.append(list(changes))
        return sum(map(len, self.committed))

    async def close(self) -> None:
        pass

    @property
    def values(self) -> dict[bytes, bytes]:
        """What a reader of the whole changelog knows."""
        last = dict(change for changes in self.committed for change in changes)
        return {key: value for key, value in last.items() if value is not None}

    @property
    def deleted(self) -> list[bytes]:
        return [key for changes in self.committed for key, value in changes if value is None]


class Sure:
    def doubt(self) -> None:
        pass

    async def confirm(self) -> None:
        pass


class Worker:
    """A task with a local copy and a changelog; `start` after `crash` restores what was committed."""

    def __init__(self, directory: Path, resident: int = 200) -> None:
        self._directory, self._resident = directory, resident
        self._number = 0
        self.changelog = Changelog([])
        self.start()

    def start(self) -> None:
        self._number += 1
        self.store = StateStore(self._directory / f"{self._number}", StoreMemory(8 << 20))
        self.store.write(list(self.changelog.values.items()), ChangelogPosition("id", 0))
        checkpointer = Checkpointer(self.store, self.changelog, IDENTITY, Sure())  # type: ignore[arg-type]
        state = PartitionState(
            0, checkpointer.read, resident=self._resident, detection=DETECTION, identity=IDENTITY.encoded()
        )
        publisher: Any = SimpleNamespace(publish=lambda records, folded: None)
        self.task = PartitionTask(Settings(), publisher, checkpointer, state, state.next_offset or 0)

    def crash(self) -> None:
        self.store.close()

    def fold(self, values: Sequence[bytes], chunk: int = 20) -> None:
        """Fold the values from the offset that is reached, with a checkpoint after each chunk."""

        async def run() -> None:
            for first in range(self.task.processed_offset, len(values), chunk):
                part = range(first, min(first + chunk, len(values)))
                records = [Record("t", 0, i, START, b"", values[i]) for i in part]
                self.task.fold(Chunk(self.task, part[0], part[-1] + 1, records), None)
                await self.task.checkpoint()

        asyncio.run(run())


def visit() -> list[bytes]:
    """One event of each visitor; every fourth is a source without a user."""
    return [
        event(START + k * 1000, f"visitor{k}" if k % 4 else None, source_ip=f"10.1.0.{k}")
        for k in range(VISITORS)
    ]


def work(days: int) -> list[bytes]:
    """Events of two users in every hour."""
    return [
        event(START + hour * HOUR, name, source_ip="10.0.0.1")
        for hour in range(1, 24 * days)
        for name in ("ann", "bob")
    ]


def profiles(values: dict[bytes, bytes]) -> set[bytes]:
    return {key for key in values if key[:1] in PROFILE_KINDS}


def expected(values: Sequence[bytes]) -> dict[bytes, bytes]:
    partition = Partition(detection=DETECTION)
    partition.run(values)
    return partition.saved


def without_meta(values: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: value for key, value in values.items() if key != b"m"}


@pytest.mark.parametrize("resident", [80, 400])
def test_profiles_leave_the_copy_and_the_changelog_and_results_stay_exact(
    tmp_path: Path, resident: int
) -> None:
    before = EXPIRED_PROFILES._value.get()
    worker, values = Worker(tmp_path, resident), visit() + work(5)
    worker.fold(values)
    wanted = expected(values)
    assert profiles(wanted) == {user_key("ann"), user_key("bob")}
    stored = worker.store.items()
    assert without_meta(stored) == without_meta(worker.changelog.values) == without_meta(wanted)
    assert len(worker.changelog.deleted) == len(set(worker.changelog.deleted)) == VISITORS
    assert EXPIRED_PROFILES._value.get() - before == VISITORS
    assert worker.task.state.resident == 2
    worker.crash()


def test_a_checkpoint_looks_at_a_limited_number_of_profiles(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.fold(visit() + work(5))
    deletions = [sum(value is None for _, value in changes) for changes in worker.changelog.committed]
    assert 1 < max(deletions) <= KEYS
    worker.crash()


@pytest.mark.parametrize("stop", range(100, 180, 20))
def test_a_worker_that_dies_during_a_lap_continues_exactly(tmp_path: Path, stop: int) -> None:
    values = visit() + work(5)
    worker = Worker(tmp_path)
    worker.fold(values[:stop])
    lost = [Record("t", 0, i, START, b"", values[i]) for i in range(stop, stop + 10)]
    worker.task.fold(Chunk(worker.task, stop, stop + 10, lost), None)  # no checkpoint contains it
    worker.crash()
    worker.start()
    assert worker.task.processed_offset == stop
    worker.fold(values)
    assert without_meta(worker.store.items()) == without_meta(expected(values))
    worker.crash()


def test_a_user_who_returns_during_a_lap_keeps_the_new_profile(tmp_path: Path) -> None:
    """Return events arrive at each checkpoint, so the sweep meets users who are in the same checkpoint."""
    values = visit() + work(3)
    values += [event(START + 3 * DAY + k * 1000, f"visitor{k % VISITORS}") for k in range(VISITORS)]
    worker = Worker(tmp_path)
    worker.fold(values, chunk=5)
    assert without_meta(worker.store.items()) == without_meta(expected(values))
    assert user_key("visitor1") in worker.store.items()
    worker.crash()


def test_nothing_is_walked_before_a_profile_can_have_aged_out(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    starts: list[bytes] = []
    walk = worker.store.profiles

    def counted(start: bytes) -> Any:
        starts.append(start)
        return walk(start)

    worker.store.profiles = counted  # type: ignore[method-assign]
    worker.fold(work(2))
    assert starts == [b""]  # two profiles fit into one step
    worker.fold(work(30))
    assert set(starts) == {b""}
    assert len(starts) < 30 < len(worker.changelog.committed) / 2
    worker.crash()


def test_a_damaged_profile_stays_until_its_user_returns(tmp_path: Path) -> None:
    worker, values = Worker(tmp_path), visit() + work(5)
    worker.fold(values[:VISITORS])
    worker.changelog.committed.append([(user_key("visitor3"), b"\x10\x00\x00\x00?"), (b"a", b"")])
    worker.crash()
    worker.start()
    worker.fold(values)
    assert profiles(worker.store.items()) - profiles(expected(values)) == {user_key("visitor3"), b"a"}
    worker.crash()


def test_purged_values_leave_the_files(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "t", StoreMemory(8 << 20))
    values = {b"u%03d" % k: bytes(np.random.default_rng(k).bytes(200)) for k in range(100)}
    store.write(list(values.items()), ChangelogPosition("id", 1))
    store.purge([])
    gone = [key for k, key in enumerate(values) if k % 2]
    store.write([(key, None) for key in gone], ChangelogPosition("id", 2))
    store.purge(gone)
    store.close()
    files = b"".join(file.read_bytes() for file in (tmp_path / "t").glob("*.sst"))
    assert not any(values[key] in files for key in gone)
    assert all(values[key] in files for key in values if key not in gone)


def test_files_are_rewritten_in_the_background_after_a_week(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "t", StoreMemory(8 << 20))
    store.close()
    newest = max((tmp_path / "t").glob("OPTIONS-*"))
    assert "periodic_compaction_seconds=604800" in newest.read_text()
