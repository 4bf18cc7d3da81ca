"""A directory of versions and one pointer to the current one, moved in a single step, there and back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamguard.files.disk import sync
from streamguard.fold.features import NAMES
from streamguard.models import artifact, manifest
from streamguard.models.durable import replace, reported
from streamguard.models.forest import Forest
from streamguard.models.gate import Judgement
from streamguard.models.key import key_of
from streamguard.models.manifest import ArtifactError, Manifest, Origin
from streamguard.models.pointer import VERSION, Pointer
from streamguard.settings.schema import Models

_JUDGEMENT_BYTES = 2**16


class Registry:
    """Published forests: `versions/<version>/` and a file `current`, whose first line names one of them.

    What the gate said last of a version is beside it, in `judgements/<version>.json`: it depends on the champion
    of that time, and a version is what it is made of.

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
    the pointer is replaced in one step, and both are on the disk before a call returns. What the disk refuses
    is an `ArtifactError` too.
    """

    def __init__(
        self, directory: str | Path, *, feature_names: Sequence[str], key: bytes | None = None
    ) -> None:
        self.directory = Path(directory)
        self._versions = self.directory / "versions"
        self._judgements = self.directory / "judgements"
        self._pointer = Pointer(self.directory / "current")
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

    def probe(self) -> None:
        """Try what a publication and a promotion will need, before much work is done for them.

        Raises
        ------
        ArtifactError
            If the registry cannot be written, or its pointer cannot be read or names no version.
        """
        for directory in (self._versions, self._judgements):
            with reported(directory):
                directory.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(prefix=".probe-", dir=directory):
                    pass
        with reported(self.directory), tempfile.TemporaryFile(prefix=".probe-", dir=self.directory):
            pass
        current = self.current()
        if current is not None:
            path = self._versions / current / "manifest.json"
            # A champion that is missing or damaged is what a new one replaces.
            with reported(path), suppress(FileNotFoundError):
                path.open("rb").close()

    def versions(self) -> list[str]:
        """All published versions, sorted by name."""
        with reported(self._versions):
            if not self._versions.is_dir():
                return []
            return sorted(entry.name for entry in self._versions.iterdir() if VERSION.fullmatch(entry.name))

    def current(self) -> str | None:
        """The version that the pointer names; None before the first promotion.

        Raises
        ------
        ArtifactError
            If the pointer cannot be read, or its content is not the name of a version.
        """
        return self._pointer.current()

    def before(self) -> list[str]:
        """The versions that were current before, the latest first: where `rollback` goes."""
        return list(self._pointer.read().before)

    def withdrawn(self) -> list[str]:
        """The versions that were rolled back from, and not promoted by hand since, the latest first."""
        return list(self._pointer.read().withdrawn)

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
            If the registry cannot be written, or this version is there already but does not load; remove its
            directory and publish again.
        """
        target = self._versions / forest.version
        with reported(target):
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
                if not target.exists():  # otherwise another process was faster with the same version
                    raise
            sync(self._versions)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def promote(self, version: str) -> str | None:
        """Move the pointer to a version, after it has been loaded with every check.

        Returns
        -------
        str or None
            What the pointer named before, as it stood there: it may have been damaged.

        Raises
        ------
        ArtifactError
            If the version is not there or not to be trusted, or the pointer cannot be written; it stays where
            it is.
        """
        self._directory(version)
        with self._pointer.alone():
            self.load(version)
            pointed = self._pointer.read()
            if pointed.current != version or version in pointed.withdrawn:
                self._pointer.write(pointed.onto(version))
        return pointed.current

    def promote_after(self, version: str, previous: str | None) -> str | None:
        """Move the pointer as `promote` does, unless that would undo what somebody did.

        Parameters
        ----------
        previous
            What was current when this was decided.

        Returns
        -------
        str or None
            Why it was not moved: another version is current meanwhile, or this one was rolled back from. None if
            it was moved.

        Raises
        ------
        ArtifactError
            As `promote` does.
        """
        self._directory(version)
        with self._pointer.alone():
            self.load(version)
            pointed = self._pointer.read()
            if pointed.current != previous:
                return f"meanwhile {self._pointer.current()} has become current"
            if version in pointed.withdrawn:
                return "it was rolled back from"
            self._pointer.write(pointed.onto(version))
        return None

    def rollback(self) -> tuple[str | None, str]:
        """Move the pointer back to the version that was current before, after it has been loaded with every check.

        Returns
        -------
        before, now
            What the pointer named, as it stood there, and what it names now. The former is withdrawn: another
            rollback goes further back, and `promote_after` does not take it again.

        Raises
        ------
        ArtifactError
            If there was none before, or it is not to be trusted any more; the pointer stays where it is.
        """
        with self._pointer.alone():
            pointed = self._pointer.read()
            if not pointed.before:
                raise ArtifactError(
                    f"{self._pointer.path}: no version was current before: promote one by name"
                )
            self.load(pointed.before[0])
            self._pointer.write(pointed.back())
        return pointed.current, pointed.before[0]

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest versions; the current one, and where `rollback` goes, stay in any case.

        Returns
        -------
        list of str
            The removed, the newest first.

        Raises
        ------
        ArtifactError
            If the disk refuses.
        """
        with self._pointer.alone():
            pointed = self._pointer.read()
            newest_first = sorted(self.versions(), key=lambda one: (-self._published_or_never(one), one))
            removed = [one for one in newest_first[keep:] if one not in (pointed.current, *pointed.before)]
            for version in removed:
                aside = self._versions / f".removing-{version}"
                with reported(self._versions):
                    shutil.rmtree(aside, ignore_errors=True)  # of a removal that did not end
                    (self._versions / version).rename(aside)
                    shutil.rmtree(aside)
                    self._judgement(version).unlink(missing_ok=True)
        return removed

    def _published_or_never(self, version: str) -> float:
        """A version without its manifest is older than any other; one that cannot be looked at is an error."""
        path = self._versions / version / "manifest.json"
        with reported(path):
            there = path.exists()
        return self.published(version) if there else 0.0

    def judge(self, version: str, judgement: Judgement) -> None:
        """Keep what the gate said of a version, in the place of what it said before.

        Raises
        ------
        ArtifactError
            If there is no such version, or the disk refuses.
        """
        self._directory(version)
        replace(self._judgement(version), manifest.encode(judgement))

    def judgement(self, version: str) -> Judgement | None:
        """What the gate said last of a version; None if it was not asked.

        It is for people and not signed.

        Raises
        ------
        ArtifactError
            If there is no such version, or what is kept is damaged; the message says where.
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
        """What a version says of itself.

        Raises
        ------
        ArtifactError
            As `manifest.read` does, and if it is another version's.
        """
        directory = self._directory(version)
        about = manifest.read(directory, key=self._key)
        if about.version != version:
            raise ArtifactError(f"{directory}: manifest.json is of version {about.version!r}")
        return about

    def published(self, version: str) -> float:
        """When a version was published here, in seconds since 1970, by the clock of the file system.

        Raises
        ------
        ArtifactError
            If it is not there.
        """
        path = self._directory(version) / "manifest.json"
        with reported(path):
            return path.stat().st_mtime

    def metrics(self, version: str) -> dict[str, Any]:
        """What its maker measured of a version.

        Raises
        ------
        ArtifactError
            As `artifact.read_metrics` does.
        """
        return artifact.read_metrics(self._directory(version), key=self._key)

    def load(self, version: str, between_steps: Callable[[], object] = lambda: None) -> Forest:
        """Read a version with every check of `artifact.load`.

        Raises
        ------
        ArtifactError
            If it is not there or not to be trusted.
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
