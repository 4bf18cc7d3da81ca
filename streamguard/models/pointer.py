"""The pointer of a registry: which version is current, which were so before, and which are not to come back."""

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
"""Promotions that can be rolled back, and versions that were rolled back from."""
_WITHDRAWN = "withdrawn "
_MAX_BYTES = (2 * 13 + len(_WITHDRAWN)) * REMEMBERED


class Pointed(NamedTuple):
    """The content of the file, a line each.

    Attributes
    ----------
    current
        The first line, as it stands there; None if there is no file.
    before
        Versions that were current before, the latest first.
    withdrawn
        Versions that were rolled back from, the latest first.
    """

    current: str | None = None
    before: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()

    def onto(self, version: str) -> Pointed:
        """With this version in front, whatever was said of it."""
        before = self.before
        if self.current is not None and self.current != version and VERSION.fullmatch(self.current):
            before = (self.current, *before)
        return Pointed(version, before, tuple(one for one in self.withdrawn if one != version))

    def back(self) -> Pointed:
        """With the one before in front, of which there must be one; what was in front is withdrawn."""
        withdrawn = [one for one in self.withdrawn if one not in (self.current, self.before[0])]
        if self.current is not None and VERSION.fullmatch(self.current):
            withdrawn.insert(0, self.current)
        return Pointed(self.before[0], self.before[1:], tuple(withdrawn))


class Pointer:
    """The file; a missing one points to nothing.

    Parameters
    ----------
    path
        Its directory is locked while it changes, so that no change of another process is lost. Readers are not
        held up: the file is replaced in one step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Pointed:
        """What it says; lines that say nothing are left out, but for the first.

        Raises
        ------
        ArtifactError
            If the disk refuses.
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
        """The version that it names; None before the first promotion.

        Raises
        ------
        ArtifactError
            If it cannot be read, or names none.
        """
        current = self.read().current
        if current is not None and not VERSION.fullmatch(current):
            raise ArtifactError(
                f"{self.path}: {current[:80]!r} is not the name of a version (12 hexadecimal digits): "
                f"make one current with `streamguard models promote VERSION --registry {self.path.parent}`"
            )
        return current

    def write(self, pointed: Pointed) -> None:
        """Replace it; only within `alone`.

        Raises
        ------
        ArtifactError
            If the disk refuses; it stays as it was.
        """
        lines = [
            pointed.current,
            *pointed.before[: REMEMBERED - 1],
            *(_WITHDRAWN + version for version in pointed.withdrawn[:REMEMBERED]),
        ]
        replace(self.path, "".join(f"{line}\n" for line in lines).encode("ascii"))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process changes it meanwhile.

        Raises
        ------
        ArtifactError
            If there is no such directory, or it cannot be read.
        """
        with reported(self.path.parent):
            handle = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with reported(self.path.parent):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
