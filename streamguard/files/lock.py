"""File locks, which the system releases when the process ends for whatever reason."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from streamguard.files.disk import UNSUPPORTED


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
        _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _lock(handle: int, how: int) -> None:
    """Lock an open file; some file systems, such as shares of other machines, have only the older locks of POSIX."""
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        try:
            fcntl.lockf(handle, how)
        except (
            PermissionError
        ):  # one of the two ways in which POSIX reports a lock that another process holds
            raise BlockingIOError from None


def is_supported(handle: int) -> bool:
    """Whether the file system of an open file has locks."""
    try:
        _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock; False if the file does not exist."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        _lock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks at all: nobody can hold one
        return False
    finally:
        os.close(lock)
    return False
