"""One worker process from settings to exit code."""

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
from streamguard.kafka import topics
from streamguard.settings.schema import Settings
from streamguard.state.warmup import compile_fold

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; the exit code says how it ended (`streamguard.agents.errors`).

    Everything that can be refused is refused before the group is joined, and the kernels are compiled: a
    worker that joins has to be able to work.
    """
    memory_release.keep_whole()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until Faust takes over there is nothing to save
    try:
        held = _lock(Path(settings.worker.data_dir))
        topics.require(settings)
        compile_fold()
        app = WorkerApp(settings)
        health = HealthServer(app.progress, settings.worker.metrics_host, settings.worker.metrics_port)
    except StreamGuardError as error:
        _log.critical("%s", error, extra={"exit_code": int(error.exit_code)})
        return error.exit_code
    _export_room(Path(settings.worker.data_dir), app.memory)
    health.start()
    app.model.start()
    _log.info(
        "worker %s starts", settings.worker.app_id, extra={"metrics_port": health.port, "pid": os.getpid()}
    )
    try:
        return _run_faust(app)
    finally:
        app.model.stop()
        os.close(held)


class _Process(faust.Worker):
    """Faust's process: signals, and services stopped in order."""

    async def _sentinel_task(self) -> None:
        """Nothing: mode sleeps for a second here, after everything has ended."""


def _run_faust(app: WorkerApp) -> int:
    # Our logging, no banner, no capture of standard output.
    worker = _Process(app, quiet=True, override_logging=False, redirect_stdouts=False, loglevel="WARN")
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit as ended:
        if not ended.code:
            _log.info("worker %s ended, all that it folded is saved", app.settings.worker.app_id)
            return 0
    return ExitCode.UNAVAILABLE


def _export_room(directory: Path, memory: StoreMemory) -> None:
    """Let gauges say, whenever they are asked, how full disk and RocksDB's memory are."""

    def disk(what: str) -> float:
        try:
            return float(getattr(shutil.disk_usage(directory), what))
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
            f"another worker uses the data directory {directory}; give each its own --data-dir"
        ) from None
    except OSError as error:
        raise RefusedError(f"cannot write to the data directory {directory}: {error.strerror}") from None
