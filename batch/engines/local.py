"""The local engine: folds offset ranges in processes of this machine, without a JVM."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from streamguard.batch.engines.attempts import Work, attempt, keep, remove_others
from streamguard.batch.folding.fold_file import SCHEMA
from streamguard.batch.folding.fold_range import fold_range
from streamguard.batch.source.offset_range import OffsetRange, Records, partition_file
from streamguard.batch.source.sources import Source
from streamguard.errors import UnavailableError
from streamguard.settings.schema import Settings

_WORTH_A_PROCESS = 50_000
"""Minimum number of records for processes: with fewer, starting processes takes longer than folding."""

OnFolded = Callable[[OffsetRange], None]
"""Called with each offset range as soon as it is folded."""


class ProcessKilledError(UnavailableError):
    """A folding process was killed."""


def write_file(offset_range: OffsetRange, records: Records, settings: Settings, directory: Path) -> None:
    """Fold records, and write the file of the offset range."""
    import pyarrow.parquet as pq

    path = partition_file(directory, offset_range.partition)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        for batch in fold_range(offset_range, records, settings.detection, settings.sampling):
            writer.write_batch(batch)


def fold(
    source: Source,
    ranges: Sequence[OffsetRange],
    settings: Settings,
    directory: Path,
    on_folded: OnFolded,
    work: Work = write_file,
) -> None:
    """Fold every offset range into its file, or do other work with it.

    Raises
    ------
    ProcessKilledError
        If a process of the pool is killed.
    """
    processes = min(os.cpu_count() or 1, len(ranges))
    if processes == 1 or sum(s.end - s.start for s in ranges) < _WORTH_A_PROCESS:
        for offset_range in ranges:
            keep(directory, read_and_work(work, source, offset_range, settings, directory))
            on_folded(offset_range)
        return
    with _pool(processes) as pool:
        longest_first = sorted(ranges, key=lambda s: s.start - s.end)
        with _stops_held():
            waiting = {
                pool.submit(read_and_work, work, source, s, settings, directory): s for s in longest_first
            }
        for done in as_completed(waiting):
            try:
                keep(directory, done.result())
            except BrokenProcessPool:
                raise ProcessKilledError(
                    "a folding process was killed, possibly by the system because memory ran out: check the system "
                    f"log; each of the {processes} processes needs memory for its users and for twice `sampling.rows`: "
                    "add memory or lower that setting, then run again"
                ) from None
            on_folded(waiting[done])
    remove_others(directory)


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Pool of processes that end when the block or this process ends, in any way."""
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_begin) as pool:
        try:
            yield pool
        finally:  # the work is done, and a regular shutdown of an interpreter takes half a second
            for process in set(multiprocessing.active_children()) - others:
                process.kill()


@contextmanager
def _stops_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM while processes start: one that is half started would not end with the others.

    The processes block SIGINT for good: a terminal sends it to them, too, but only this one handles it.
    """
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    stops: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM) if main else ()
    handlers = {number: signal.signal(number, lambda one, _: held.append(one)) for number in stops}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in held:
            signal.raise_signal(number)


def _begin() -> None:
    gc.disable()  # folding creates no reference cycles, and the search for cycles takes a tenth of the time

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def read_and_work(
    work: Work, source: Source, offset_range: OffsetRange, settings: Settings, directory: Path
) -> str:
    """Read an offset range and do the work in one attempt; return its name."""
    return attempt(work, offset_range, source.records(offset_range), settings, directory)
