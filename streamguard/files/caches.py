"""Cache directories for data that StreamGuard can create or fetch again: compiled kernels, Kafka's jars."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from streamguard.errors import CannotWriteError
from streamguard.files.disk import cannot_write


def cache_directory(name: str) -> Path:
    """`streamguard/<name>` in `$XDG_CACHE_HOME` or `~/.cache`.

    Without a home directory, `<name>` in a directory of the user's own in the temporary directory.

    Raises
    ------
    CannotWriteError
        If that directory cannot be created, or belongs to another user.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "streamguard" / name
    try:
        return Path.home() / ".cache" / "streamguard" / name
    except RuntimeError:
        own = Path(tempfile.gettempdir()) / f"streamguard-{os.getuid()}"
        try:
            own.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise cannot_write(own, error, "set XDG_CACHE_HOME to a directory of your own") from None
        if own.stat().st_uid != os.getuid():
            raise CannotWriteError(
                f"{own} belongs to another user: set XDG_CACHE_HOME to a directory of your own"
            ) from None
        return own / name
