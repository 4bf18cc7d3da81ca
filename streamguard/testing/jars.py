"""Fetches Apache Kafka's jars into the user's cache, once, whole or not at all, by Maven or Ivy."""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from streamguard.caches import cache_directory

KAFKA_VERSION = "4.3.1"

ARTIFACTS = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),  # without it the broker logs nothing
)
"""(group, artifact, version) of what is fetched; their dependencies come along."""

Fetch = Callable[[Path], list[str]]
"""Writes a project file into a directory; returns the command that puts the jars into its `jars`."""


class JarsUnavailableError(RuntimeError):
    """Kafka's jars are not in the cache and cannot be fetched; the message says why and what to do."""


def jars_directory() -> Path:
    """Where the jars are or will be."""
    return cache_directory(f"kafka-{KAFKA_VERSION}")


def kafka_jars(java: Path) -> Path:
    """The directory of Kafka's jars, fetched if this is the first time.

    Processes that ask at the same time wait for one fetch. A fetch that was interrupted leaves nothing
    that a later one could take for complete.

    Parameters
    ----------
    java
        Runs the dependency tool where Maven is not installed.

    Raises
    ------
    JarsUnavailableError
        If there is no tool to fetch them with, or it failed.
    """
    target = jars_directory()
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f"{target.name}.lock").open("w")
    except OSError as error:
        raise JarsUnavailableError(
            f"the jars of Apache Kafka {KAFKA_VERSION} have no place: cannot write to {target.parent}"
            f" ({error.strerror}); set XDG_CACHE_HOME to a directory that can be written"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            scratch = target.with_name(f"{target.name}.partial")
            shutil.rmtree(scratch, ignore_errors=True)
            try:
                _fetch(java, scratch).rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


def _fetch(java: Path, scratch: Path) -> Path:
    said = []
    for name, fetch in _tools(java):
        work = scratch / name
        work.mkdir(parents=True)
        command = fetch(work)
        run = subprocess.run(
            command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        jars = work / "jars"
        missing = [f"{artifact}-{version}.jar" for _, artifact, version in ARTIFACTS]
        missing = [jar for jar in missing if not (jars / jar).is_file()]
        if run.returncode == 0 and not missing:
            return jars
        said.append(f"{name} said: {_cause(run.stdout + run.stderr) or f'nothing, but {missing} is missing'}")
    if not said:
        raise JarsUnavailableError(
            f"the jars of Apache Kafka {KAFKA_VERSION} are not in {jars_directory()} and there is"
            " nothing to fetch them with: install Maven (`mvn`) or `pip install 'streamguard[batch]'`"
        )
    raise JarsUnavailableError(
        f"the jars of Apache Kafka {KAFKA_VERSION} could not be fetched into {jars_directory()}: check the"
        f" network (it is needed this once) and run the command again; {'; '.join(said)}"
    )


def _tools(java: Path) -> Iterator[tuple[str, Fetch]]:
    if mvn := shutil.which("mvn"):
        yield "maven", partial(_maven, mvn)
    spark = importlib.util.find_spec("pyspark")
    if spark and spark.origin:
        for ivy in sorted(Path(spark.origin).parent.glob("jars/ivy-*.jar")):
            yield "ivy", partial(_ivy, java, ivy)


def _maven(mvn: str, work: Path) -> list[str]:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for group, artifact, version in ARTIFACTS
    )
    (work / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>streamguard</groupId><artifactId>kafka</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    return [
        mvn,
        "-B",
        "-q",
        "--strict-checksums",
        goal,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={work / 'jars'}",
    ]


def _ivy(java: Path, ivy: Path, work: Path) -> list[str]:
    dependencies = "".join(
        f'<dependency org="{group}" name="{artifact}" rev="{version}" conf="default->default"/>'
        for group, artifact, version in ARTIFACTS
    )
    (work / "ivy.xml").write_text(
        '<ivy-module version="2.0"><info organisation="streamguard" module="kafka"/>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )
    pattern = work / "jars" / "[artifact]-[revision](-[classifier]).[ext]"
    return [
        *(str(java), "-jar", str(ivy), "-cache", str(work / "cache")),
        *(
            "-ivy",
            str(work / "ivy.xml"),
            "-confs",
            "default",
            "-types",
            "jar",
            "bundle",
            "-retrieve",
            str(pattern),
        ),
    ]


def _cause(output: str) -> str:
    """The first line that tells an error, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "unresolved" in line.lower()]
    return (errors or lines[-1:] or [""])[0]
