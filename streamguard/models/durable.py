"""Small files that are replaced as a whole and written to the disk before a call returns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streamguard.files.disk import cannot_write, sync
from streamguard.models.manifest import ArtifactError


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Raise an `OSError` of a read within the context as an `ArtifactError` that names the path."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror or error}; check the path, and that this user can read it"
        ) from None


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Raise an `OSError` of a write within the context as a `CannotWriteError` that names the path."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, "choose another registry (--registry or models.registry)") from None


def replace(path: Path, data: bytes) -> None:
    """Replace a file in one step; its directory is created if it is missing.

    Raises
    ------
    CannotWriteError
        If the file cannot be written; it stays unchanged.
    """
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                with suppress(OSError):  # some shares have no permissions to change
                    os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync(path.parent)
