"""The pointer of a registry: the current version, the versions before it, and the versions that were rolled back.

Each change raises the pointer's counter. With a key the pointer is signed, counter included: a pointer of another hand,
or an older one that was put back, is refused. A worker stores the highest counter that it has read in its data
directory. Another process knows only the counters that it has read itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from streamguard.files.disk import UNSUPPORTED
from streamguard.models.durable import replace, reported, written
from streamguard.models.manifest import ArtifactError, read_file

VERSION = re.compile(r"[0-9a-f]{12}")
REMEMBERED = 100
"""Maximum number of promotions that can be rolled back, and of withdrawn versions that are stored."""
_WITHDRAWN = "withdrawn "
_COUNTER = "counter "
_SIGNATURE = "signature "
_PURPOSE = b"streamguard pointer\n"
"""Precedes the signed bytes, because the key also signs manifests."""
_MAX_BYTES = (2 * 13 + len(_WITHDRAWN)) * REMEMBERED + 256


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
    counter
        Number of changes of the pointer so far.
    trusted
        Whether `read` accepts the pointer. A version that only a refused one names is never returned to by a rollback.
    """

    current: str | None = None
    before: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    counter: int = 0
    trusted: bool = True

    def onto(self, version: str) -> Pointed:
        """Return the content with this version as the current one, even if it was withdrawn."""
        before = self.before
        known = self.trusted and self.current is not None and VERSION.fullmatch(self.current)
        if known and self.current != version:
            before = (str(self.current), *before)
        return Pointed(version, before, tuple(one for one in self.withdrawn if one != version), self.counter)

    def back(self) -> Pointed:
        """Return the content after a rollback: the version before is current, and the current one is withdrawn.

        There must be a version before.
        """
        withdrawn = [one for one in self.withdrawn if one not in (self.current, self.before[0])]
        if self.current is not None and VERSION.fullmatch(self.current):
            withdrawn.insert(0, self.current)
        return Pointed(self.before[0], self.before[1:], tuple(withdrawn), self.counter)


_highest: dict[Path, int] = {}
"""The highest counter that this process has read or written, by the path of the pointer."""


class Pointer:
    """The pointer file; a missing file points to no version.

    Parameters
    ----------
    path
        The file. A file `.lock` beside it is locked during a change, so that no change of another process is lost, on a
        network file system, too. Readers do not wait: the pointer is replaced in one step.
    key
        Signs the pointer; then a pointer without its signature is refused.
    memory
        A directory of this machine, where the highest counter outlives the process.
    """

    def __init__(self, path: Path, key: bytes | None = None, memory: Path | None = None) -> None:
        self.path = path.absolute()
        self._key = key
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        self._memory = None if memory is None else memory / f"registry-{name}.counter"

    def read(self) -> Pointed:
        """Read the file; invalid lines are left out, except for the first one.

        Raises
        ------
        ArtifactError
            If the file cannot be read, is not a regular file, is not signed with the key, or is older than one that
            this process has read.
        """
        with reported(self.path):
            if not os.path.lexists(self.path):
                return Pointed()
        content = read_file(self.path, _MAX_BYTES)
        pointed = _decode(content)
        if self._key is not None:
            self._verify(content, pointed)
        return pointed

    def read_unverified(self) -> Pointed:
        """Read what a person is about to replace: first line and counter alone, if `read` refuses the pointer."""
        try:
            return self.read()
        except ArtifactError:
            try:
                found = _decode(read_file(self.path, _MAX_BYTES))
            except ArtifactError:
                found = Pointed()
            counter = max(found.counter, self._seen())
            return Pointed(found.current, counter=counter, trusted=False)

    def _verify(self, content: bytes, pointed: Pointed) -> None:
        assert self._key is not None
        signed, _, signature = content.rpartition(_SIGNATURE.encode())
        promote = f"`streamguard models promote VERSION --registry {self.path.parent}`"
        if not hmac.compare_digest(signature.strip(), _signature(self._key, signed)):
            problem = "is not signed" if not signed else "has a signature of another key, or was changed"
            raise ArtifactError(
                f"{self.path} {problem}, but models.key_file is set: find out who wrote it, then sign it by promoting "
                f"the right version: {promote}"
            )
        highest = self._seen()
        if pointed.counter < highest:
            raise ArtifactError(
                f"{self.path} is an older pointer (change {pointed.counter}, after {highest} was read): find out who "
                f"put it back; if it is right, for example restored from a backup, promote its version: {promote}"
            )
        self._saw(pointed.counter)

    def _seen(self) -> int:
        """The highest counter that this process, or one before it with the same memory, has read or written."""
        if self.path not in _highest and self._memory is not None and self._memory.exists():
            stored = read_file(self._memory, 64).strip()
            if not stored.isdigit():
                raise ArtifactError(
                    f"{self._memory}: not a counter; remove the file if the pointer {self.path} is right"
                )
            _highest[self.path] = int(stored)
        return _highest.get(self.path, 0)

    def _saw(self, counter: int) -> None:
        if counter > self._seen() and self._memory is not None:
            replace(self._memory, b"%d\n" % counter)
        _highest[self.path] = counter

    def current(self) -> str | None:
        """Return the current version; None before the first promotion.

        Raises
        ------
        ArtifactError
            See `read`; also if the first line is not the name of a version.
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
        counter = pointed.counter + 1
        lines = [
            pointed.current,
            *pointed.before[: REMEMBERED - 1],
            *(_WITHDRAWN + version for version in pointed.withdrawn[:REMEMBERED]),
            f"{_COUNTER}{counter}",
        ]
        content = "".join(f"{line}\n" for line in lines).encode("ascii")
        if self._key is not None:
            content += _SIGNATURE.encode() + _signature(self._key, content) + b"\n"
        replace(self.path, content)
        self._saw(counter)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the pointer: no other process changes it within the context.

        Raises
        ------
        ArtifactError
            If the directory is missing.
        CannotWriteError
            If the lock cannot be created.
        """
        directory = self.path.parent
        with reported(directory):
            (directory / ".").stat()  # an error for a missing directory, and for a file in its place
        with written(directory):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(directory / ".lock", flags, 0o644)
        try:
            with reported(directory):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX)
                except OSError as error:
                    # Without locks the file is still replaced in one step: only two promotions at once could
                    # overwrite each other, and a good model must become current.
                    if error.errno not in UNSUPPORTED:
                        raise
            yield
        finally:
            os.close(handle)


def _decode(content: bytes) -> Pointed:
    first, *lines = content.decode("ascii", "replace").removesuffix("\n").split("\n")
    withdrawn = [line.removeprefix(_WITHDRAWN) for line in lines if line.startswith(_WITHDRAWN)]
    counters = [line.removeprefix(_COUNTER) for line in lines if line.startswith(_COUNTER)]
    return Pointed(
        first,
        tuple(line for line in lines if VERSION.fullmatch(line)),
        tuple(line for line in withdrawn if VERSION.fullmatch(line)),
        max((int(text[:18]) for text in counters if text[:18].isdecimal()), default=0),
    )


def _signature(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, _PURPOSE + content, hashlib.sha256).hexdigest().encode()
