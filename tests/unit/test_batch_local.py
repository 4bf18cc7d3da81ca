"""The local engine without a JVM: attempts do not disturb each other, and a killed process is an error."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from streamguard.batch.engines import local
from streamguard.batch.engines.attempts import attempt, keep, remove_others
from streamguard.batch.source.offset_range import OffsetRange, RecordChunk, Records, partition_file
from streamguard.batch.source.partition_files import FileSource
from streamguard.settings.schema import Settings
from tests.streams import MINUTE, START, event

LARGE = 100_000
"""Number of records that justifies a process of its own."""


def _ended(offset_range: OffsetRange, records: Records, settings: Settings, directory: Path) -> None:
    (directory / f"{offset_range.partition}").write_text(f"{os.getpid()}")
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_process_ends_the_fold_with_one_message(tmp_path: Path) -> None:
    source = FileSource(str(tmp_path), (LARGE, LARGE))
    ranges = [OffsetRange(partition, 0, LARGE) for partition in (0, 1)]
    with pytest.raises(
        local.ProcessKilledError,
        match="a folding process was killed, possibly by the system because memory ran out",
    ):
        local.fold(source, ranges, Settings(), tmp_path, lambda offset_range: None, work=_ended)
    killed = [int(path.read_text()) for path in tmp_path.glob(".attempt-*/*")]
    assert killed
    assert os.getpid() not in killed


def values() -> list[bytes | None]:
    return [event(START + k * MINUTE, f"user{k % 5}", source_ip="10.0.0.1") for k in range(200)]


def test_attempt_that_ends_after_the_kept_one_changes_nothing(tmp_path: Path) -> None:
    """Two attempts of one task at the same time, as under speculation; the first one ends last."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir()
    shared.mkdir()
    offset_range = OffsetRange(0, 0, 200)
    offsets = np.arange(200)
    keep(alone, attempt(local.write_file, offset_range, [RecordChunk(offsets, values())], Settings(), alone))
    half_read, may_end = threading.Event(), threading.Event()

    def slow() -> Iterator[Any]:
        yield RecordChunk(offsets[:100], values()[:100])
        half_read.set()
        may_end.wait()
        yield RecordChunk(offsets[100:], values()[100:])

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(attempt, local.write_file, offset_range, slow(), Settings(), shared)
        half_read.wait()
        second = attempt(local.write_file, offset_range, [RecordChunk(offsets, values())], Settings(), shared)
        keep(shared, second)
        kept = pq.read_table(partition_file(shared, 0))
        may_end.set()
        assert first.result() != second
    assert pq.read_table(partition_file(shared, 0)).equals(kept)
    assert kept.equals(pq.read_table(partition_file(alone, 0)))
    remove_others(shared)
    assert [path.name for path in shared.iterdir()] == ["partition-0000.parquet"]


def test_failed_attempt_leaves_no_file_of_the_partition(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield RecordChunk(np.arange(100), values()[:100])
        raise OSError("the connection broke")

    with pytest.raises(OSError, match="the connection broke"):
        attempt(local.write_file, OffsetRange(0, 0, 200), broken(), Settings(), tmp_path)
    assert not partition_file(tmp_path, 0).exists()
    remove_others(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signals_wait_while_processes_start(number: signal.Signals) -> None:
    seen: list[int] = []
    before = signal.signal(number, lambda one, _: seen.append(one))
    try:
        with local._stops_held():
            os.kill(os.getpid(), number)
            assert not seen
        assert seen == [number]
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
        signal.raise_signal(number)
        assert seen == [number, number]
    finally:
        signal.signal(number, before)
