"""Cache directories for data that StreamGuard can create or fetch again: compiled kernels, Kafka's jars."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_directory(name: str) -> Path:
    """`streamguard/<name>` in `$XDG_CACHE_HOME` or `~/.cache`.

    Without a home directory, `<name>` in a directory of the user's own in the temporary directory.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "streamguard" / name
    try:
        return Path.home() / ".cache" / "streamguard" / name
    except RuntimeError:
        own = Path(tempfile.gettempdir()) / f"streamguard-{os.getuid()}"
        own.mkdir(mode=0o700, exist_ok=True)
        if own.stat().st_uid != os.getuid():
            raise PermissionError(
                f"{own} belongs to another user: set XDG_CACHE_HOME to a directory of your own"
            ) from None
        return own / name
