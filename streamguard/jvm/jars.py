"""Fetches sets of published jars into the user's cache, once, whole or not at all, by Maven or Ivy."""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from streamguard.errors import UnavailableError
from streamguard.files.caches import cache_directory

Fetch = Callable[[Path], list[str]]
"""Writes a project file into a directory; returns the command that puts the jars into its `jars`."""


class JarsUnavailableError(UnavailableError):
    """Jars are not in the cache and cannot be fetched; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Jars:
    """What is fetched together.

    Attributes
    ----------
    name
        Of the directory in the cache.
    title
        What the jars are of, in words.
    artifacts
        (group, artifact, version) of what is fetched; their dependencies come along.
    provided
        Groups whose jars are there already and are left out.
    """

    name: str
    title: str
    artifacts: tuple[tuple[str, str, str], ...]
    provided: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """Where the jars are or will be."""
        return cache_directory(self.name)

    def fetched(self, java: Path) -> Path:
        """The directory of the jars, fetched if this is the first time.

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
        target = self.directory
        if target.is_dir():
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = target.with_name(f"{target.name}.lock").open("w")
        except OSError as error:
            raise JarsUnavailableError(
                f"the jars of {self.title} have no place: cannot write to {target.parent}"
                f" ({error.strerror}); set XDG_CACHE_HOME to a directory that can be written"
            ) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                scratch = target.with_name(f"{target.name}.partial")
                shutil.rmtree(scratch, ignore_errors=True)
                try:
                    self._fetch(java, scratch).rename(target)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
        return target

    def _fetch(self, java: Path, scratch: Path) -> Path:
        said = []
        for name, fetch in self._tools(java):
            work = scratch / name
            work.mkdir(parents=True)
            command = fetch(work)
            run = subprocess.run(
                command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            jars = work / "jars"
            missing = [f"{artifact}-{version}.jar" for _, artifact, version in self.artifacts]
            missing = [jar for jar in missing if not (jars / jar).is_file()]
            if run.returncode == 0 and not missing:
                return jars
            cause = _cause(run.stdout + run.stderr) or f"nothing, but {missing} is missing"
            said.append(f"{name} said: {cause}")
        if not said:
            raise JarsUnavailableError(
                f"the jars of {self.title} are not in {self.directory} and there is"
                " nothing to fetch them with: install Maven (`mvn`), or `pip install '.[batch]'` in"
                " StreamGuard's checkout"
            )
        raise JarsUnavailableError(
            f"the jars of {self.title} could not be fetched into {self.directory}: check the"
            f" network (it is needed this once) and run the command again; {'; '.join(said)}"
        )

    def _tools(self, java: Path) -> Iterator[tuple[str, Fetch]]:
        if mvn := shutil.which("mvn"):
            yield "maven", partial(self._maven, mvn)
        spark = importlib.util.find_spec("pyspark")
        if spark and spark.origin:
            for ivy in sorted(Path(spark.origin).parent.glob("jars/ivy-*.jar")):
                yield "ivy", partial(self._ivy, java, ivy)

    def _maven(self, mvn: str, work: Path) -> list[str]:
        dependencies = "".join(
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
            for group, artifact, version in self.artifacts
        )
        (work / "pom.xml").write_text(
            "<project><modelVersion>4.0.0</modelVersion><groupId>streamguard</groupId>"
            f"<artifactId>jars</artifactId><version>1</version><dependencies>{dependencies}</dependencies></project>"
        )
        return [
            *(mvn, "-B", "-q", "--strict-checksums"),
            "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DexcludeGroupIds={','.join(self.provided)}",
            f"-DoutputDirectory={work / 'jars'}",
        ]

    def _ivy(self, java: Path, ivy: Path, work: Path) -> list[str]:
        dependencies = "".join(
            f'<dependency org="{group}" name="{artifact}" rev="{version}" conf="default->default"/>'
            for group, artifact, version in self.artifacts
        )
        excluded = "".join(f'<exclude org="{group}"/>' for group in self.provided)
        (work / "ivy.xml").write_text(
            '<ivy-module version="2.0"><info organisation="streamguard" module="jars"/>'
            f"<dependencies>{dependencies}{excluded}</dependencies></ivy-module>"
        )
        pattern = work / "jars" / "[artifact]-[revision](-[classifier]).[ext]"
        return [
            *(str(java), "-jar", str(ivy), "-cache", str(work / "cache"), "-ivy", str(work / "ivy.xml")),
            *("-confs", "default", "-types", "jar", "bundle", "-retrieve", str(pattern)),
        ]


def _cause(output: str) -> str:
    """The first line that tells an error, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "unresolved" in line.lower()]
    return (errors or lines[-1:] or [""])[0]
