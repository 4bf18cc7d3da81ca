"""Opens the Spark session of a run: on this machine, on a cluster, or under `spark-submit`."""

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
"""Spark logs errors only, because its warnings concern Spark itself.

The last logger needs a level of its own: otherwise Spark sets the root level and prints a message about it.
"""

SILENCED_LOGGERS = ("org.apache.spark.executor.Executor", "org.apache.spark.scheduler.TaskSetManager")
"""Loggers of failed tasks, which are switched off: the job raises their errors as an exception."""


_MASTER = re.compile(
    r"local(\[(\d+|\*)(,\d+)?\])?|spark://[^:/,]+:\d+(,[^:/,]+:\d+)*|yarn|k8s://\S+", re.ASCII
)
MAX_BATCH_BYTES = 32_000_000


class SparkError(UnavailableError):
    """Spark cannot be started, or a Spark job failed; the message states the reason."""


def submitted() -> bool:
    """Whether `spark-submit` runs this program and determines master, memory and jars."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


@contextmanager
def opened(
    settings: Spark, scratch: Path, *, java_flags: Sequence[str] | None = None
) -> Iterator[SparkSession]:
    """Open a session that stops at the end of the block; an active session is used and kept running.

    Spark's handler of Ctrl-C is replaced by the handler that this program had before.

    Parameters
    ----------
    settings
        Master and memory, unless `spark-submit` determines them, and the batch size.
    scratch
        Directory of the run for Spark's own files.
    java_flags
        Java flags of a local start, instead of `Jvm.start_flags`.

    Raises
    ------
    SettingsError
        If the master is invalid.
    SparkError
        If Spark does not start.
    JavaNotFoundError, JarsUnavailableError
        If this machine lacks a suitable Java or the jars of the connector.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    if not (submitted() or _MASTER.fullmatch(settings.master)):
        raise SettingsError(
            f"{settings.master!r} is not a Spark master: use local[*], local[N], spark://HOST:PORT, yarn or "
            "k8s://URL"
        )
    running = SparkSession.getActiveSession()
    if running is not None:
        yield running
        return
    configuration, variables = workers(settings), {}
    if not submitted():
        jvm = Jvm()
        flags = jvm.start_flags() if java_flags is None else java_flags
        configuration |= driver(settings, scratch, jvm, flags)
        variables = dict(jvm.environment)
        if settings.master.startswith("local") and "SPARK_LOCAL_IP" not in os.environ:
            # Otherwise Spark looks up the address of this machine's own name, which need not resolve.
            variables["SPARK_LOCAL_IP"] = LOOPBACK
    builder = SparkSession.builder
    for name, value in configuration.items():
        builder = builder.config(name, value)
    with _environment(variables), _interrupts_kept():
        try:
            spark = builder.getOrCreate()
        except (Py4JError, PySparkException, OSError) as error:
            raise SparkError(
                f"Spark does not start on {settings.master}: {root_cause(error).rstrip('.')}{_remedy(error)}"
            ) from error
    try:
        yield spark
    except BaseException:
        # The failure, or the end of this process, may have cut the connection to the JVM.
        with suppress(Py4JError, OSError):
            spark.stop()
        raise
    spark.stop()


def workers(settings: Spark) -> dict[str, str]:
    """Configuration for tasks, on this machine and on a cluster."""
    return {
        "spark.app.name": "streamguard",
        "spark.sql.session.timeZone": "UTC",
        "spark.speculation": "false",  # a second attempt would fold the whole partition again
        "spark.redaction.regex": r"(?i)secret|password|token|access[.]?key|jaas|ssl[.]key",  # never printed
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(settings.batch_rows),
        "spark.sql.execution.arrow.maxBytesPerBatch": str(MAX_BATCH_BYTES),
        "spark.python.daemon.module": "streamguard.batch.engines.daemon",
    }


def driver(settings: Spark, scratch: Path, jvm: Jvm, java_flags: Sequence[str]) -> dict[str, str]:
    """Configuration of a driver that is started here; with a local master, it also runs the tasks.

    `java_flags` apply to a local master only.
    """
    scratch = scratch.resolve()
    logging = scratch / "log4j2.properties"
    silent = "".join(
        f"logger.{k}.name = {name}\nlogger.{k}.level = off\n" for k, name in enumerate(SILENCED_LOGGERS)
    )
    logging.write_text(LOGGING + silent)
    flags = [f"-Dlog4j2.configurationFile={logging.as_uri()}"]
    configuration = {
        "spark.master": settings.master,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": settings.driver_memory,
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    if settings.master.startswith("local"):
        flags += java_flags
        configuration["spark.driver.host"] = configuration["spark.driver.bindAddress"] = LOOPBACK
        configuration["spark.driver.extraClassPath"] = ":".join(jvm.connector_jars)
    else:
        configuration["spark.executor.memory"] = settings.executor_memory
        configuration["spark.jars"] = ",".join(jvm.connector_jars)
    configuration["spark.driver.extraJavaOptions"] = " ".join(shlex.quote(flag) for flag in flags)
    return configuration


def _remedy(error: BaseException) -> str:
    """What to do if the JVM ended before Python reached it: its own messages are all that is known."""
    if "JAVA_GATEWAY_EXITED" not in str(error):
        return ""
    return (
        ". Its own message stands above. Give it less memory (spark.driver_memory), check JAVA_HOME and the jars with "
        "`streamguard doctor`, or choose --engine local, which needs no Java"
    )


def root_cause(error: BaseException) -> str:
    """Message of a Spark exception in one line, without stack traces: of its root cause, if there is one."""
    java = getattr(error, "java_exception", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    text = str(java.toString() if java is not None else error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Restore the handler of SIGINT that a new Spark context replaces: the caller handles interrupts itself."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during the start, so that Python workers run the same interpreter as this process.

    Under `spark-submit`, the interpreter of a cluster's workers may already be set; it is kept.
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
