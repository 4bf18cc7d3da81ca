"""File locks, which the system releases when the process ends for whatever reason."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def acquire(path: Path) -> int:
    """Lock a file exclusively for this process.

    Parameters
    ----------
    path
        The file; it and its directory are created if they are missing.

    Returns
    -------
    int
        A file descriptor; closing it releases the lock.

    Raises
    ------
    BlockingIOError
        If another process holds the lock.
    OSError
        If the file cannot be opened for writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def is_held(path: Path) -> bool:
    """Whether a process holds the lock; False if the file does not exist."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
