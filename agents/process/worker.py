"""Runs one worker process, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import resource
import shutil
import signal
import sys
import threading
from pathlib import Path

import faust

from streamguard import memory_release, metrics
from streamguard.agents import errors
from streamguard.agents.process.app import WorkerApp
from streamguard.agents.process.health import HealthServer
from streamguard.agents.task.profile_share import share_of, whole_chunks
from streamguard.errors import ExitCode, TemporaryError, UnavailableError
from streamguard.files import lock
from streamguard.files.disk import cannot_write
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.state.store import StoreMemory
from streamguard.state.warmup import compile_fold
from streamguard.text import counted

MAX_FILES = 65_536
"""A process that may open more files than this needs no higher limit: RocksDB opens up to 128 for each partition."""

STOP_SECONDS = 20.0
"""How long a worker that is stopped may take to end: with brokers it takes less than a second, and without them its
clients would wait for longer than supervisors do."""

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT, and return its exit code (`streamguard.errors`).

    The settings and topics are checked and the kernels are compiled before the worker joins its group: a worker that
    joins must be able to fold. Whatever ends the worker, its last line in the log has the reason and the exit code.
    """
    try:
        return _run(settings)
    except Exception as error:  # noqa: BLE001 - Python would exit with 1
        return errors.report(error)


def _run(settings: Settings) -> int:
    memory_release.keep_whole()
    # Until Faust takes over, there is no state to save.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(_ended(settings, "before it had any state to save")))
    threading.excepthook = _log_thread
    errors.Ending.brokers = brokers = Brokers.of(settings)
    if brokers.exposed:
        _log.warning("%s", brokers.exposed)
    _raise_file_limit()
    _check_share(settings)
    lock_file = _lock(Path(settings.worker.data_dir))
    for deviation in topics.require(settings, topics.WORKER_ROLES):
        _log.warning("%s", deviation)
    compile_fold()
    app = WorkerApp(settings)
    worker = settings.worker
    health = HealthServer(
        app.progress,
        metrics.WORKER,
        metrics.READY,
        worker.metrics_host,
        worker.metrics_port,
        worker.metrics_allowed_hosts,
    )
    _export_space(Path(settings.worker.data_dir), app.memory)
    health.start()
    app.model.start()
    _log.info(
        "worker %s is starting",
        settings.worker.app_id,
        extra={"metrics_port": health.port, "pid": os.getpid()},
    )
    try:
        return _run_faust(app)
    finally:
        app.model.stop()
        os.close(lock_file)


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    """Log what has ended a thread; a cancelled task only says that Faust stops while no broker answers."""
    cancelled = issubclass(ended.exc_type, asyncio.CancelledError)
    _log.error(
        "the thread %s has ended by %s",
        ended.thread.name if ended.thread is not None else "(unknown)",
        ended.exc_type.__name__,
        exc_info=None if cancelled else ended.exc_value,
    )


def _check_share(settings: Settings) -> None:
    """Warn if the worker would cut smaller chunks when all partitions are assigned to it.

    Raises
    ------
    SettingsError
        If it could not keep a chunk of one event for each of them.
    """
    worker, partitions = settings.worker, settings.kafka.partitions
    share = share_of(worker, partitions)
    if share.chunk_events < worker.chunk_events:
        _log.warning(
            "with all %s a chunk has %s instead of %s: worker.resident_profiles is %s, and whole chunks need %s",
            counted(partitions, "partition"),
            counted(share.chunk_events, "event"),
            f"{worker.chunk_events:,}",
            f"{worker.resident_profiles:,}",
            f"{whole_chunks(worker, partitions):,}",
        )


class _Process(faust.Worker):
    """Faust's process: handles signals, and stops the services in order, within `STOP_SECONDS`."""

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        if not self._signal_stop_time:
            late = UnavailableError(
                f"the last checkpoint was not complete {STOP_SECONDS:.0f} s after {signal.name}, probably because no "
                "broker answers: check the brokers, then start the worker again; no event is lost, it folds everything "
                "after the last complete checkpoint"
            )
            deadline = threading.Timer(STOP_SECONDS, errors.end, [late])
            deadline.daemon = True
            deadline.start()
        super()._schedule_shutdown(signal)

    async def _sentinel_task(self) -> None:
        """Do nothing: the original sleeps for one second after everything has ended."""


def _run_faust(app: WorkerApp) -> int:
    # StreamGuard configures the logging; Faust must not print a banner or capture standard output.
    worker = _Process(app, quiet=True, override_logging=False, redirect_stdouts=False, loglevel="WARN")
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit as ended:
        if not ended.code:
            return _ended(app.settings, "all folded events are in a checkpoint")
    return errors.report(
        UnavailableError(
            "Faust has ended without a reason: read the lines before this one, check the brokers, and start the worker "
            "again"
        )
    )


def _ended(settings: Settings, how: str) -> int:
    """Log the last line of a worker that was stopped, and return its exit code."""
    _log.info("worker %s has ended; %s", settings.worker.app_id, how, extra={"exit_code": int(ExitCode.OK)})
    return ExitCode.OK


def _raise_file_limit() -> None:
    """Let this process open as many files as its user may, up to `MAX_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _export_space(directory: Path, memory: StoreMemory) -> None:
    """Set the gauges of the disk and of RocksDB's memory, which are read at each scrape."""

    def disk(field: str) -> float:
        try:
            return float(getattr(shutil.disk_usage(directory), field))
        except OSError:
            return math.nan

    metrics.DATA_FREE_BYTES.set_function(lambda: disk("free"))
    metrics.DATA_SIZE_BYTES.set_function(lambda: disk("total"))
    metrics.BLOCK_CACHE_BYTES.set_function(memory.cache.get_usage)
    metrics.UNFLUSHED_BYTES.set_function(memory.writes.get_usage)


def _lock(directory: Path) -> int:
    try:
        return lock.acquire(directory / "LOCK")
    except BlockingIOError:
        raise TemporaryError(
            f"another worker uses the data directory {directory}: start this one again when the other has ended; if "
            "both are to run, give each worker its own --data-dir"
        ) from None
    except OSError as error:
        raise cannot_write(f"the data directory {directory}", error, "choose another --data-dir") from None
