"""The Spark session of a run: on this machine, on a cluster, or the one that `spark-submit` has prepared."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from streamguard.batch.engines.jvm import Jvm
from streamguard.errors import UnavailableError
from streamguard.settings.schema import SettingsError, Spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOOPBACK = "127.0.0.1"

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} Spark %p: %m (%c{1})%n%ex{short}
rootLogger.level = error
rootLogger.appenderRef.console.ref = console
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
"""
"""Warnings of Spark are about Spark; the logger named has its own level, or Spark sets the root's and says so."""

TOLD_ANYWAY = ("org.apache.spark.executor.Executor", "org.apache.spark.scheduler.TaskSetManager")
"""Loggers of failed tasks: what they say comes out of the job as an exception, too."""


_MASTER = re.compile(
    r"local(\[(\d+|\*)(,\d+)?\])?|spark://[^:/,]+:\d+(,[^:/,]+:\d+)*|yarn|k8s://\S+", re.ASCII
)
MAX_BATCH_BYTES = 32_000_000


class SparkError(UnavailableError):
    """Spark cannot be started, or a job of it failed; the message says why."""


def submitted() -> bool:
    """Whether `spark-submit` runs this program and has chosen master, memory and jars."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


@contextmanager
def opened(
    settings: Spark, scratch: Path, *, java_flags: Sequence[str] | None = None
) -> Iterator[SparkSession]:
    """A session that stops with the block; one that is there already is used and goes on.

    Parameters
    ----------
    settings
        Master and memory, unless `spark-submit` has chosen them, and the batch size.
    scratch
        Directory of the run for Spark's own files.
    java_flags
        Those of a local start, in the place of `Jvm.start_flags`.

    Ctrl-C stays what it is in this program.

    Raises
    ------
    SettingsError
        If the master is none.
    SparkError
        If Spark does not start.
    JavaNotFoundError, JarsUnavailableError
        If this machine has nothing to run it with.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    if not (submitted() or _MASTER.fullmatch(settings.master)):
        raise SettingsError(
            f"{settings.master!r} is no master of Spark: local[*], local[N], spark://HOST:PORT, yarn and "
            "k8s://URL are"
        )
    running = SparkSession.getActiveSession()
    if running is not None:
        yield running
        return
    asked, variables = workers(settings), {}
    if not submitted():
        jvm = Jvm()
        asked |= driver(settings, scratch, jvm, jvm.start_flags() if java_flags is None else java_flags)
        variables = jvm.environment
    builder = SparkSession.builder
    for name, value in asked.items():
        builder = builder.config(name, value)
    with _environment(variables), _interrupts_kept():
        try:
            spark = builder.getOrCreate()
        except (Py4JError, PySparkException, OSError) as error:
            raise SparkError(f"Spark does not start on {settings.master}: {told_by(error)}") from error
    try:
        yield spark
    except BaseException:
        # What ended the work, be it the end of this process, may have cut the way to the JVM, too.
        with suppress(Py4JError, OSError):
            spark.stop()
        raise
    spark.stop()


def workers(settings: Spark) -> dict[str, str]:
    """Configuration that holds wherever tasks run."""
    return {
        "spark.app.name": "streamguard",
        "spark.sql.session.timeZone": "UTC",
        "spark.redaction.regex": r"(?i)secret|password|token|access[.]?key|jaas|ssl[.]key",  # never printed
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(settings.batch_rows),
        "spark.sql.execution.arrow.maxBytesPerBatch": str(MAX_BATCH_BYTES),
        "spark.python.daemon.module": "streamguard.batch.engines.daemon",
    }


def driver(settings: Spark, scratch: Path, jvm: Jvm, java_flags: Sequence[str]) -> dict[str, str]:
    """Configuration of a driver that is started here; on a local master, of everything.

    `java_flags` are for a local master only.
    """
    scratch = scratch.resolve()
    logging = scratch / "log4j2.properties"
    silent = "".join(
        f"logger.{k}.name = {name}\nlogger.{k}.level = off\n" for k, name in enumerate(TOLD_ANYWAY)
    )
    logging.write_text(LOGGING + silent)
    flags = [f"-Dlog4j2.configurationFile={logging.as_uri()}"]
    asked = {
        "spark.master": settings.master,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": settings.driver_memory,
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    if settings.master.startswith("local"):
        flags += java_flags
        asked["spark.driver.host"] = asked["spark.driver.bindAddress"] = LOOPBACK
        asked["spark.driver.extraClassPath"] = ":".join(jvm.connector_jars)
    else:
        asked["spark.executor.memory"] = settings.executor_memory
        asked["spark.jars"] = ",".join(jvm.connector_jars)
    asked["spark.driver.extraJavaOptions"] = " ".join(shlex.quote(flag) for flag in flags)
    return asked


def told_by(error: BaseException) -> str:
    """What an exception of Spark says, in one line and without its stacks: the first cause, if it knows it."""
    java = getattr(error, "java_exception", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    text = str(java.toString() if java is not None else error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """A new context of Spark answers SIGINT by cancelling its jobs and raising; who has called knows better."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what is started meanwhile; Python workers are to run this very interpreter.

    Under `spark-submit` the interpreter of a cluster's workers may have been chosen, which is kept.
    """
    python = dict.fromkeys(("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"), sys.executable)
    ours = {**python, **os.environ} if submitted() else {**os.environ, **python, **variables}
    before = dict(os.environ)
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
