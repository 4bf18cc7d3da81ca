"""The pointer of a registry: the current version, the versions before it, and the versions that were rolled back."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from streamguard.models.durable import replace, reported
from streamguard.models.manifest import ArtifactError

VERSION = re.compile(r"[0-9a-f]{12}")
REMEMBERED = 100
"""Maximum number of promotions that can be rolled back, and of withdrawn versions that are stored."""
_WITHDRAWN = "withdrawn "
_MAX_BYTES = (2 * 13 + len(_WITHDRAWN)) * REMEMBERED


class Pointed(NamedTuple):
    """Content of the pointer file, one version per line.

    Attributes
    ----------
    current
        The first line, unchanged; None if there is no file.
    before
        Versions that were current before, latest first.
    withdrawn
        Versions that were rolled back, latest first.
    """

    current: str | None = None
    before: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()

    def onto(self, version: str) -> Pointed:
        """Return the content with this version as the current one, even if it was withdrawn."""
        before = self.before
        if self.current is not None and self.current != version and VERSION.fullmatch(self.current):
            before = (self.current, *before)
        return Pointed(version, before, tuple(one for one in self.withdrawn if one != version))

    def back(self) -> Pointed:
        """Return the content after a rollback: the version before is current, and the current one is withdrawn.

        There must be a version before.
        """
        withdrawn = [one for one in self.withdrawn if one not in (self.current, self.before[0])]
        if self.current is not None and VERSION.fullmatch(self.current):
            withdrawn.insert(0, self.current)
        return Pointed(self.before[0], self.before[1:], tuple(withdrawn))


class Pointer:
    """The pointer file; a missing file points to no version.

    Parameters
    ----------
    path
        The file. Its directory is locked during a change, so that no change of another process is lost. Readers do
        not wait: the file is replaced in one step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Pointed:
        """Read the file; invalid lines are left out, except for the first one.

        Raises
        ------
        ArtifactError
            If the file cannot be read.
        """
        with reported(self.path):
            try:
                with self.path.open("rb") as file:
                    content = file.read(_MAX_BYTES)
            except FileNotFoundError:
                return Pointed()
        first, *lines = content.decode("ascii", "replace").removesuffix("\n").split("\n")
        withdrawn = [line.removeprefix(_WITHDRAWN) for line in lines if line.startswith(_WITHDRAWN)]
        return Pointed(
            first,
            tuple(line for line in lines if VERSION.fullmatch(line)),
            tuple(line for line in withdrawn if VERSION.fullmatch(line)),
        )

    def current(self) -> str | None:
        """Return the current version; None before the first promotion.

        Raises
        ------
        ArtifactError
            If the file cannot be read, or its first line is not the name of a version.
        """
        current = self.read().current
        if current is not None and not VERSION.fullmatch(current):
            raise ArtifactError(
                f"{self.path}: {current[:80]!r} is not the name of a version (12 hexadecimal digits): "
                f"promote a version with `streamguard models promote VERSION --registry {self.path.parent}`"
            )
        return current

    def write(self, pointed: Pointed) -> None:
        """Replace the file; call this only within `alone`.

        Raises
        ------
        CannotWriteError
            If the file cannot be written; it stays unchanged.
        """
        lines = [
            pointed.current,
            *pointed.before[: REMEMBERED - 1],
            *(_WITHDRAWN + version for version in pointed.withdrawn[:REMEMBERED]),
        ]
        replace(self.path, "".join(f"{line}\n" for line in lines).encode("ascii"))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the pointer: no other process changes it within the context.

        Raises
        ------
        ArtifactError
            If the directory is missing or cannot be read.
        """
        with reported(self.path.parent):
            handle = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with reported(self.path.parent):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
