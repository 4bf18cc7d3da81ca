"""Check of the model registry: key, pointer and versions, with the checks of a worker."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry
from streamguard.settings.schema import Settings
from streamguard.text import counted


def registry(settings: Settings) -> Iterator[Finding]:
    """Load every version with all checks of a worker: the current one, and those that a rollback could restore."""
    models = settings.models
    if not models.registry:
        yield ok(
            "registry",
            "no registry is set (--registry or models.registry): workers score without a forest",
        )
        return
    try:
        versions = Registry.of(models)
    except ArtifactError as error:
        yield fail("registry", str(error), "set models.key_file to a file that this user can read")
        return
    if models.key_file:
        yield _key(Path(models.key_file))
    try:
        there, current = versions.versions(), versions.current()
    except ArtifactError as error:
        yield fail(
            "registry", str(error), "run `streamguard models verify` to see which versions can be promoted"
        )
        return
    if current is None:
        found = f"{counted(len(there), 'version')}, but no current one" if there else "no versions"
        yield warn(
            "registry",
            f"{versions.directory}: {found}; workers score without a forest",
            "run `streamguard models promote VERSION`" if there else "run `streamguard retrain`",
        )
    damaged = {version: reason for version in there if (reason := _refusal(versions, version))}
    if current is not None:
        if current not in there:
            damaged[current] = f"{versions.directory}: the current version {current} is missing"
        if current in damaged:
            yield fail(
                "registry",
                damaged.pop(current),
                "run `streamguard models rollback`; until then running workers keep their forest, and new workers"
                " start without one",
            )
        else:
            hours = (time.time() - versions.published(current)) / 3600
            yield ok(
                "registry",
                f"{versions.directory}: {current} is current and loads; it was published {hours:,.1f} h ago;"
                f" {counted(len(there), 'version')} in all",
            )
    for version, reason in damaged.items():
        yield warn("registry", reason, f"remove {versions.directory / 'versions' / version}")


def _key(path: Path) -> Finding:
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~(stat.S_IRGRP):
        return warn("registry", f"other users can read or change models.key_file {path}", f"chmod 640 {path}")
    return ok("registry", f"models.key_file {path} is readable")


def _refusal(versions: Registry, version: str) -> str:
    try:
        versions.load(version)
    except ArtifactError as error:
        return str(error)
    return ""
