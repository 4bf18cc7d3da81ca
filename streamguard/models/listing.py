"""Lists the versions of a registry with their judgements; a damaged version is listed with what is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from streamguard.models.gate import Judgement
from streamguard.models.manifest import ArtifactError, Manifest, events_until
from streamguard.models.registry import Registry


class ListedVersion(msgspec.Struct, frozen=True):
    """A version of a registry."""

    version: str
    published: float | None = None
    """When it was published here, in seconds since 1970; None if its manifest cannot be read."""
    manifest: Manifest | None = None
    judgement: Judgement | None = None
    """Last judgement of the gate; None if there is none."""
    damaged: str | None = None
    """What is wrong with its manifest or its judgement."""

    @property
    def events_until(self) -> str | None:
        """Time of the last event on which the version was trained; None if it is not stated."""
        at = None if self.manifest is None else events_until(self.manifest)
        return None if at is None else moment(at)

    @property
    def rows(self) -> int | None:
        """Number of training rows."""
        return None if self.manifest is None else self.manifest.origin.rows

    @property
    def trees(self) -> int | None:
        """Number of trees; None if it is not stated."""
        trees = None if self.manifest is None else self.manifest.origin.parameters.get("trees")
        return trees if isinstance(trees, int) else None


def listed(registry: Registry) -> list[ListedVersion]:
    """All versions, the latest first; those whose manifest cannot be read are last.

    Raises
    ------
    ArtifactError
        If the directory of the registry cannot be read.
    """
    found = [_listed(registry, version) for version in registry.versions()]
    return sorted(found, key=lambda one: (one.published or 0.0, one.version), reverse=True)


def _listed(registry: Registry, version: str) -> ListedVersion:
    one = ListedVersion(version)
    try:
        about = registry.manifest(version)
        one = ListedVersion(version, registry.published(version), about)
        return msgspec.structs.replace(one, judgement=registry.judgement(version))
    except ArtifactError as error:
        return msgspec.structs.replace(one, damaged=str(error))


def moment(at: float) -> str:
    """Epoch seconds as RFC 3339, to the second.

    Examples
    --------
    >>> moment(1767225600.9)
    '2026-01-01T00:00:00Z'
    """
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
