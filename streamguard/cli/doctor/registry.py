"""The model registry as a worker meets it: key, pointer, versions."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry
from streamguard.settings.schema import Settings


def registry(settings: Settings) -> Iterator[Finding]:
    """Load what is current with every check a worker makes, and then what it could be rolled back to."""
    models = settings.models
    if not models.registry:
        yield ok(
            "registry",
            "neither --registry nor models.registry: workers started likewise score without a forest",
        )
        return
    try:
        versions = Registry.of(models)
    except ArtifactError as error:
        yield fail("registry", str(error), "let models.key_file name a file that this user can read")
        return
    if models.key_file:
        yield _key(Path(models.key_file))
    try:
        there, current = versions.versions(), versions.current()
    except ArtifactError as error:
        yield fail("registry", str(error), "`streamguard models verify` shows which versions can be promoted")
        return
    if current is None:
        found = f"{len(there)} versions" if there else "no versions"
        yield warn(
            "registry",
            f"{versions.directory}: {found}, none is current: workers score without a forest",
            "`streamguard models promote VERSION`" if there else "run `streamguard retrain`",
        )
    damaged = {version: reason for version in there if (reason := _refusal(versions, version))}
    if current is not None:
        if current not in there:
            damaged[current] = f"{versions.directory}: the current version {current} is missing"
        if current in damaged:
            yield fail(
                "registry",
                damaged.pop(current),
                "workers keep what they have, and start without a forest: `streamguard models rollback`",
            )
        else:
            hours = (time.time() - versions.published(current)) / 3600
            yield ok(
                "registry",
                f"{versions.directory}: {current} is current and loads, published {hours:,.1f} h ago;"
                f" {len(there)} versions",
            )
    for version, reason in damaged.items():
        yield warn("registry", reason, f"remove {versions.directory / 'versions' / version}")


def _key(path: Path) -> Finding:
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~(stat.S_IRGRP):
        return warn("registry", f"others may read or change models.key_file {path}", f"chmod 640 {path}")
    return ok("registry", f"models.key_file {path} can be read")


def _refusal(versions: Registry, version: str) -> str:
    try:
        versions.load(version)
    except ArtifactError as error:
        return str(error)
    return ""
