"""Runs one worker process, from its settings to its exit code."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import faust

from streamguard import metrics
from streamguard.agents.errors import RefusedError
from streamguard.agents.process.app import WorkerApp
from streamguard.agents.process.health import HealthServer
from streamguard.agents.task import memory_release
from streamguard.agents.task.store import StoreMemory
from streamguard.errors import ExitCode, StreamGuardError
from streamguard.files import lock
from streamguard.files.disk import cannot_write
from streamguard.kafka import topics
from streamguard.settings.schema import Settings
from streamguard.state.warmup import compile_fold

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT, and return its exit code (`streamguard.errors`).

    The settings and topics are checked and the kernels are compiled before the worker joins its group: a worker that
    joins must be able to fold.
    """
    memory_release.keep_whole()
    # Until Faust takes over, there is no state to save.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        lock_file = _lock(Path(settings.worker.data_dir))
        for deviation in topics.require(settings):
            _log.warning("%s", deviation)
        compile_fold()
        app = WorkerApp(settings)
        worker = settings.worker
        health = HealthServer(
            app.progress, worker.metrics_host, worker.metrics_port, worker.metrics_allowed_hosts
        )
    except StreamGuardError as error:
        _log.critical("%s", error, extra={"exit_code": int(error.exit_code)})
        return error.exit_code
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


class _Process(faust.Worker):
    """Faust's process: handles signals, and stops the services in order."""

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
            _log.info(
                "worker %s has ended; all folded events are in a checkpoint", app.settings.worker.app_id
            )
            return 0
    return ExitCode.UNAVAILABLE


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
        raise RefusedError(
            f"another worker uses the data directory {directory}: give each worker its own --data-dir"
        ) from None
    except OSError as error:
        raise cannot_write(f"the data directory {directory}", error, "choose another --data-dir") from None
