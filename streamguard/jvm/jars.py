"""Fetches sets of published jars into the user's cache with Maven or Ivy, once, and completely or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from streamguard.errors import UnavailableError
from streamguard.files.caches import cache_directory

CHECKSUMS = Path(__file__).with_name("checksums.toml")
"""SHA-256 of each jar, by set: what is fetched has to be what was tested, whatever the network delivers."""

Fetch = Callable[[Path], list[str]]
"""Writes a project file into a directory; returns the command that copies the jars into its directory `jars`."""


class JarsUnavailableError(UnavailableError):
    """Jars are not in the cache and cannot be fetched; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Jars:
    """A set of jars that are fetched together.

    Attributes
    ----------
    name
        Name of the directory in the cache.
    title
        Name of the product for messages.
    artifacts
        (group, artifact, version) of each artifact; their dependencies are fetched, too.
    provided
        Groups whose jars are available already and are left out.
    """

    name: str
    title: str
    artifacts: tuple[tuple[str, str, str], ...]
    provided: tuple[str, ...] = ()

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each jar by its file name; empty for a set that was never tested."""
        known: dict[str, str] = tomllib.loads(CHECKSUMS.read_text()).get(self.name, {})
        return known

    @property
    def directory(self) -> Path:
        """Directory in which the jars are, or will be once they are fetched."""
        return cache_directory(self.name)

    def fetched(self, java: Path) -> Path:
        """Return the directory of the jars; the first call fetches them.

        Processes that call this at the same time wait for one fetch. An interrupted fetch leaves nothing that a later
        call could take for a complete one.

        Parameters
        ----------
        java
            Java with which the dependency tool runs if Maven is not installed.

        Raises
        ------
        JarsUnavailableError
            If there is no tool that can fetch them, if it fails, or if a jar differs from the tested one.
        """
        target = self.directory
        if target.is_dir():
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = target.with_name(f"{target.name}.lock").open("w")
        except OSError as error:
            raise JarsUnavailableError(
                f"the jars of {self.title} cannot be stored: cannot write to {target.parent}"
                f" ({error.strerror}); set XDG_CACHE_HOME to a writable directory"
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
        reports = []
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
                self._verify(jars)
                return jars
            cause = _cause(run.stdout + run.stderr)
            cause = cause or f"exit code {run.returncode}, missing jars: {', '.join(missing) or 'none'}"
            reports.append(f"{name} reported: {cause}")
        if not reports:
            raise JarsUnavailableError(
                f"the jars of {self.title} are not in {self.directory}, and no tool to fetch them is"
                " installed: install Maven (`mvn`), or run `pip install '.[batch]'` in StreamGuard's checkout"
            )
        raise JarsUnavailableError(
            f"the jars of {self.title} could not be fetched into {self.directory}: check the"
            f" network (it is needed only once) and run the command again; {'; '.join(reports)}"
        )

    def _verify(self, jars: Path) -> None:
        """Compare the fetched jars with the tested ones."""
        tested = self.checksums
        if not tested:
            raise JarsUnavailableError(
                f"the jars of {self.title} were never tested, so their checksums are unknown: install the version that "
                "constraints.txt names"
            )
        found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars.iterdir()}
        if found != tested:
            wrong = sorted(name for name, _ in found.items() ^ tested.items())
            raise JarsUnavailableError(
                f"of the fetched jars of {self.title}, {', '.join(dict.fromkeys(wrong))} differ from the tested ones: "
                "nothing was installed; check which repository or proxy delivered them, then run the command again"
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
    """Return the first line with an error, otherwise the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "unresolved" in line.lower()]
    return (errors or lines[-1:] or [""])[0]
