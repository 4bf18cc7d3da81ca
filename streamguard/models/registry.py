"""The model registry: a directory of versions, and a pointer to the current one that is moved in a single step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from streamguard.files.disk import sync
from streamguard.fold.features import NAMES
from streamguard.models import artifact, manifest
from streamguard.models.durable import replace, reported, written
from streamguard.models.forest import Forest
from streamguard.models.gate import Judgement
from streamguard.models.key import key_of
from streamguard.models.manifest import ArtifactError, Manifest, Origin
from streamguard.models.pointer import VERSION, Pointer
from streamguard.settings.schema import Models, Settings

_JUDGEMENT_BYTES = 2**16


def registry_settings(settings: Settings) -> Models:
    """Settings of the configured registry, or of a registry inside the output directory of the runs."""
    named = settings.models
    if named.registry:
        return named
    return msgspec.structs.replace(named, registry=str(Path(settings.batch.output) / "registry"))


class Registry:
    """Published forests in `versions/<version>/`, and a file `current` whose first line names the current version.

    The last judgement of the gate on a version is stored separately, in `judgements/<version>.json`: it depends on the
    champion of that time, whereas a version depends only on its contents.

    Parameters
    ----------
    directory
        Directory of the registry. The first publication creates it; a missing one is an empty registry.
    feature_names
        Names of the feature columns in this program.
    key
        If given, published versions are signed with it, and versions that are not signed with it are refused.
    memory
        Directory of this machine where the pointer's highest counter is stored; see `Pointer`.

    Notes
    -----
    Readers and writers may be different processes: a version appears as a whole or not at all and never changes,
    the pointer is replaced in one step, and both are written to the disk before a call returns. An error of the
    file system is raised as an `ArtifactError` if it prevents a read, and as a `CannotWriteError` if it prevents a
    write.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        feature_names: Sequence[str],
        key: bytes | None = None,
        memory: Path | None = None,
    ) -> None:
        self.directory = Path(directory)
        self._versions = self.directory / "versions"
        self._judgements = self.directory / "judgements"
        self._pointer = Pointer(self.directory / "current", key, memory)
        self._feature_names = list(feature_names)
        self._key = key

    @classmethod
    def of(cls, models: Models, memory: Path | None = None) -> Registry:
        """Return the registry of the settings, with the key of the settings.

        Raises
        ------
        ArtifactError
            See `key_of`.
        """
        return cls(models.registry, feature_names=NAMES, key=key_of(models), memory=memory)

    def probe(self) -> None:
        """Check before a long computation that a publication and a promotion will be possible.

        Raises
        ------
        CannotWriteError
            If the registry cannot be written.
        ArtifactError
            If its pointer cannot be read or names no version.
        """
        for directory in (self._versions, self._judgements):
            with written(directory):
                directory.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(prefix=".probe-", dir=directory):
                    pass
        with written(self.directory), tempfile.TemporaryFile(prefix=".probe-", dir=self.directory):
            pass
        current = self.named()
        if current is not None:
            path = self._versions / current / "manifest.json"
            # A missing or damaged champion does not prevent a promotion, which replaces it.
            with reported(path), suppress(FileNotFoundError):
                path.open("rb").close()

    def versions(self) -> list[str]:
        """Return all published versions, sorted by name."""
        with reported(self._versions):
            if not self._versions.is_dir():
                return []
            return sorted(entry.name for entry in self._versions.iterdir() if VERSION.fullmatch(entry.name))

    def current(self) -> str | None:
        """Return the current version; None before the first promotion.

        Raises
        ------
        ArtifactError
            If the pointer cannot be read, or its content is not the name of a version.
        """
        return self._pointer.current()

    def named(self) -> str | None:
        """Return the version that the pointer names, also if the pointer is not signed with the key.

        None if it names none. Such a version is only reported, and replaced by a promotion by hand.
        """
        try:
            return self._pointer.current()
        except ArtifactError:
            named = self._pointer.read_unverified().current
            if self._key is None or named is None or not VERSION.fullmatch(named):
                raise
            return named

    def before(self) -> list[str]:
        """Return the versions that were current before, latest first: `rollback` returns to them."""
        return list(self._pointer.read().before)

    def withdrawn(self) -> list[str]:
        """Return the versions that were rolled back and have not been promoted by hand since, latest first."""
        return list(self._pointer.read().withdrawn)

    def publish(
        self, forest: Forest, *, origin: Origin | None = None, metrics: dict[str, Any] | None = None
    ) -> str:
        """Add a forest under its version, without promoting it.

        A version that exists already stays unchanged, provided that it can be loaded.

        Returns
        -------
        str
            The version of the forest.

        Raises
        ------
        CannotWriteError
            If the registry cannot be written.
        ArtifactError
            If this version exists already but cannot be loaded: then remove its directory and publish it again.
        """
        target = self._versions / forest.version
        with written(target):
            there = target.exists()
            if not there:
                self._add(forest, target, origin, metrics)
        try:
            self.load(forest.version)
        except ArtifactError as error:
            if not there:
                raise
            raise ArtifactError(
                f"{error}; this version was published before: remove {target} and publish it again"
            ) from None
        return forest.version

    def _add(
        self, forest: Forest, target: Path, origin: Origin | None, metrics: dict[str, Any] | None
    ) -> None:
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
            sync(aside)
            try:
                aside.rename(target)
            except OSError:
                if not target.exists():  # otherwise another process has published the same version first
                    raise
            sync(self._versions)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def promote(self, version: str) -> str | None:
        """Move the pointer to a version, after it has been loaded with all checks.

        Returns
        -------
        str or None
            The previous content of the pointer, unchanged: it may have been damaged.

        Raises
        ------
        ArtifactError
            If the version is missing or cannot be trusted; the pointer stays unchanged.
        CannotWriteError
            If the pointer cannot be written; it stays unchanged.
        """
        self._directory(version)
        with self._pointer.alone():
            self.load(version)
            pointed = self._pointer.read_unverified()
            self._pointer.write(pointed.onto(version))
        return pointed.current

    def promote_after(self, version: str, previous: str | None) -> str | None:
        """Move the pointer as `promote` does, unless this would undo a promotion or a rollback.

        Parameters
        ----------
        previous
            The version that was current when the promotion was decided.

        Returns
        -------
        str or None
            The reason why the pointer was not moved: another version has become current, this version was rolled
            back, or the pointer cannot be trusted. None if it was moved.

        Raises
        ------
        ArtifactError, CannotWriteError
            See `promote`.
        """
        self._directory(version)
        with self._pointer.alone():
            self.load(version)
            try:
                pointed = self._pointer.read()
            except ArtifactError as error:
                return str(error)
            if pointed.current != previous:
                return f"meanwhile {self._pointer.current()} has become current"
            if version in pointed.withdrawn:
                return "it was rolled back"
            self._pointer.write(pointed.onto(version))
        return None

    def rollback(self) -> tuple[str | None, str]:
        """Move the pointer back to the version that was current before, after it has been loaded with all checks.

        Returns
        -------
        before, now
            The previous content of the pointer, unchanged, and the version that is current now. The former is
            withdrawn: another rollback goes further back, and `promote_after` refuses it.

        Raises
        ------
        ArtifactError
            If there is no such version, or if it cannot be trusted any more; the pointer stays unchanged.
        CannotWriteError
            If the pointer cannot be written; it stays unchanged.
        """
        with self._pointer.alone():
            pointed = self._pointer.read()
            if not pointed.before:
                raise ArtifactError(
                    f"{self._pointer.path}: no version was current before: promote a version by name"
                )
            self.load(pointed.before[0])
            self._pointer.write(pointed.back())
        return pointed.current, pointed.before[0]

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest versions; the current one and those of `before` stay in any case.

        Returns
        -------
        list of str
            The removed versions, newest first.

        Raises
        ------
        CannotWriteError
            If a version cannot be removed.
        """
        with self._pointer.alone():
            pointed = self._pointer.read()
            newest_first = sorted(self.versions(), key=lambda one: (-self._published_or_never(one), one))
            removed = [one for one in newest_first[keep:] if one not in (pointed.current, *pointed.before)]
            for version in removed:
                aside = self._versions / f".removing-{version}"
                with written(self._versions):
                    shutil.rmtree(aside, ignore_errors=True)  # left by an interrupted removal
                    (self._versions / version).rename(aside)
                    shutil.rmtree(aside)
                    self._judgement(version).unlink(missing_ok=True)
        return removed

    def _published_or_never(self, version: str) -> float:
        """Return the time of publication, or 0.0 without a manifest; a manifest that cannot be read is an error."""
        path = self._versions / version / "manifest.json"
        with reported(path):
            there = path.exists()
        return self.published(version) if there else 0.0

    def judge(self, version: str, judgement: Judgement) -> None:
        """Store the gate's judgement on a version; it replaces the previous one.

        Raises
        ------
        ArtifactError
            If there is no such version.
        CannotWriteError
            If the judgement cannot be written.
        """
        self._directory(version)
        replace(self._judgement(version), manifest.encode(judgement))

    def judgement(self, version: str) -> Judgement | None:
        """Return the last judgement of the gate on a version; None if there is none.

        It is for people to read and is not signed.

        Raises
        ------
        ArtifactError
            If there is no such version, or if the stored judgement is damaged; the message says where.
        """
        self._directory(version)
        path = self._judgement(version)
        with reported(path):
            if not path.exists():
                return None
        return manifest.decode(path, manifest.read_file(path, _JUDGEMENT_BYTES), Judgement)

    def _judgement(self, version: str) -> Path:
        return self._judgements / f"{version}.json"

    def manifest(self, version: str) -> Manifest:
        """Read the manifest of a version.

        Raises
        ------
        ArtifactError
            See `manifest.read`; also if the manifest belongs to another version.
        """
        directory = self._directory(version)
        about = manifest.read(directory, key=self._key)
        if about.version != version:
            raise ArtifactError(f"{directory}: manifest.json belongs to version {about.version!r}")
        return about

    def published(self, version: str) -> float:
        """Return when a version was published here, in seconds since 1970, by the clock of the file system.

        Raises
        ------
        ArtifactError
            If there is no such version.
        """
        path = self._directory(version) / "manifest.json"
        with reported(path):
            return path.stat().st_mtime

    def metrics(self, version: str) -> dict[str, Any]:
        """Read the metrics that were measured when a version was trained.

        Raises
        ------
        ArtifactError
            See `artifact.read_metrics`.
        """
        return artifact.read_metrics(self._directory(version), key=self._key)

    def load(self, version: str, between_steps: Callable[[], object] = lambda: None) -> Forest:
        """Load a version with all checks of `artifact.load`.

        Raises
        ------
        ArtifactError
            If the version is missing or cannot be trusted.
        """
        directory = self._directory(version)
        forest = artifact.load(
            directory, feature_names=self._feature_names, key=self._key, between_steps=between_steps
        )
        if forest.version != version:
            raise ArtifactError(f"{directory}: holds version {forest.version}")
        return forest

    def _directory(self, version: str) -> Path:
        if not VERSION.fullmatch(version):
            raise ArtifactError(
                f"{self._versions}: {version!r} is not the name of a version (12 hexadecimal digits)"
            )
        directory = self._versions / version
        with reported(directory):
            if not directory.is_dir():
                raise ArtifactError(f"{self._versions}: no version {version}")
        return directory
