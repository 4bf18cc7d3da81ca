"""A directory of versions and one pointer to the current one, moved in a single step, there and back."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamguard.features import NAMES
from streamguard.forest import Forest
from streamguard.models import artifact, manifest
from streamguard.models.manifest import ArtifactError, Manifest, Origin
from streamguard.settings import Models

_VERSION = re.compile(r"[0-9a-f]{12}")
_REMEMBERED = 100
"""Promotions that can be rolled back."""
_POINTER_BYTES = 13 * _REMEMBERED
_LEAST_KEY = 16


class Registry:
    """Published forests: `versions/<version>/` and a file `current`, whose first line names one of them.

    The lines below name those that were current before, the latest first.

    Parameters
    ----------
    directory
        Made by the first publication; a missing one is an empty registry.
    feature_names
        What the columns are in this program.
    key
        If given, publications are signed with it, and what is not signed with it is refused.

    Notes
    -----
    Readers and writers may be different processes: a version appears whole or not at all and never changes,
    the pointer is replaced in one step, and both are on the disk before a call returns.
    """

    def __init__(
        self, directory: str | Path, *, feature_names: Sequence[str], key: bytes | None = None
    ) -> None:
        self._versions = Path(directory) / "versions"
        self._pointer = Path(directory) / "current"
        self._feature_names = list(feature_names)
        self._key = key

    @classmethod
    def of(cls, models: Models) -> Registry:
        """The registry that the settings name, with the key that they name.

        Raises
        ------
        ArtifactError
            As `key_of` does.
        """
        return cls(models.registry, feature_names=NAMES, key=key_of(models))

    def versions(self) -> list[str]:
        """All published versions, sorted by name."""
        if not self._versions.is_dir():
            return []
        return sorted(entry.name for entry in self._versions.iterdir() if _VERSION.fullmatch(entry.name))

    def current(self) -> str | None:
        """The version that the pointer names; None before the first promotion.

        Raises
        ------
        ArtifactError
            If the pointer's content is not the name of a version.
        """
        lines = self._lines()
        return self._checked(lines[0], self._pointer) if lines else None

    def before(self) -> list[str]:
        """The versions that were current before, the latest first: where `rollback` goes."""
        return [line for line in self._lines()[1:] if _VERSION.fullmatch(line)]

    def _lines(self) -> list[str]:
        """The pointer's lines, one at least; none if there is no pointer."""
        try:
            with self._pointer.open("rb") as file:
                content = file.read(_POINTER_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtifactError(f"{self._pointer}: {error.strerror}") from None
        return content.decode("ascii", "replace").removesuffix("\n").split("\n")

    def publish(
        self, forest: Forest, *, origin: Origin | None = None, metrics: dict[str, Any] | None = None
    ) -> str:
        """Add a forest under its version, without promoting it.

        A version that is there already stays as it is, provided that it loads.

        Returns
        -------
        str
            Its version.

        Raises
        ------
        ArtifactError
            If this version is there already but does not load; remove its directory and publish again.
        """
        target = self._versions / forest.version
        if not target.exists():
            self._versions.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".publishing-", dir=self._versions))
            try:
                aside.chmod(0o755)
                artifact.save(
                    forest,
                    aside,
                    feature_names=self._feature_names,
                    origin=origin,
                    metrics=metrics,
                    key=self._key,
                )
                _sync(aside)
                try:
                    aside.rename(target)
                except OSError:
                    if not target.exists():  # otherwise another process was faster with the same version
                        raise
                _sync(self._versions)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self.load(forest.version)
        return forest.version

    def promote(self, version: str) -> None:
        """Move the pointer to a version, after it has been loaded with every check.

        Raises
        ------
        ArtifactError
            If it is not there or not to be trusted; the pointer stays where it is.
        """
        self.load(version)
        with self._alone():
            lines = [line for line in self._lines() if _VERSION.fullmatch(line)]
            if self._lines()[:1] != [version]:
                self._point([version, *lines])

    def rollback(self) -> str:
        """Move the pointer back to the version that was current before, after it has been loaded with every check.

        Returns
        -------
        str
            What is current now. What was current is forgotten as such: another rollback goes further back.

        Raises
        ------
        ArtifactError
            If there was none before, or it is not to be trusted any more; the pointer stays where it is.
        """
        with self._alone():
            before = self.before()
            if not before:
                raise ArtifactError(f"{self._pointer}: no version was current before: promote one by name")
            self.load(before[0])
            self._point(before)
        return before[0]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process moves the pointer meanwhile; readers are not held up."""
        handle = os.open(self._pointer.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _point(self, lines: Sequence[str]) -> None:
        handle, name = tempfile.mkstemp(prefix=".current-", dir=self._pointer.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in lines[:_REMEMBERED])
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            aside.replace(self._pointer)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync(self._pointer.parent)

    def manifest(self, version: str) -> Manifest:
        """What a version says of itself.

        Raises
        ------
        ArtifactError
            As `manifest.read` does.
        """
        return manifest.read(self._directory(version), key=self._key)

    def published(self, version: str) -> float:
        """When a version was published here, in seconds since 1970, by the clock of the file system."""
        return (self._directory(version) / "manifest.json").stat().st_mtime

    def metrics(self, version: str) -> dict[str, Any]:
        """What its maker measured of a version.

        Raises
        ------
        ArtifactError
            As `artifact.read_metrics` does.
        """
        return artifact.read_metrics(self._directory(version), key=self._key)

    def load(self, version: str) -> Forest:
        """Read a version with every check of `artifact.load`.

        Raises
        ------
        ArtifactError
            If it is not there or not to be trusted.
        """
        directory = self._directory(version)
        forest = artifact.load(directory, feature_names=self._feature_names, key=self._key)
        if forest.version != version:
            raise ArtifactError(f"{directory}: holds version {forest.version}")
        return forest

    def _directory(self, version: str) -> Path:
        directory = self._versions / self._checked(version, self._versions)
        if not directory.is_dir():
            raise ArtifactError(f"{self._versions}: no version {version}")
        return directory

    @staticmethod
    def _checked(version: str, where: Path) -> str:
        if not _VERSION.fullmatch(version):
            raise ArtifactError(f"{where}: {version!r} is not the name of a version (12 hexadecimal digits)")
        return version


def key_of(models: Models) -> bytes | None:
    """The key that the settings name; None if they name none.

    Raises
    ------
    ArtifactError
        If it cannot be read, or has fewer than 16 bytes.
    """
    if not models.key_file:
        return None
    try:
        key = Path(models.key_file).read_bytes()
    except OSError as error:
        raise ArtifactError(f"models.key_file {models.key_file}: {error.strerror}") from None
    if len(key) < _LEAST_KEY:
        raise ArtifactError(
            f"models.key_file {models.key_file} has {len(key)} bytes, {_LEAST_KEY} are needed: "
            "write random ones, such as `openssl rand -out FILE 32` makes"
        )
    return key


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
