"""Small files that are replaced as a whole and written to the disk before a call returns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamguard.files.disk import sync
from streamguard.models.manifest import ArtifactError


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Raise an `OSError` within the context as an `ArtifactError` that names the path."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from None


def replace(path: Path, data: bytes) -> None:
    """Replace a file in one step; its directory is created if it is missing.

    Raises
    ------
    ArtifactError
        If the file cannot be written; it stays unchanged.
    """
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync(path.parent)
