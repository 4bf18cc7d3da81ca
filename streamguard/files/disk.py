"""Writes files and directories to the disk before a call returns, and explains why one cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from streamguard.errors import CannotWriteError

_FREE_SPACE = "free disk space"
_PERMIT = "change its owner or permissions"
_REPLACE = "give the path of a directory that can be created and written"

_REMEDIES = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "raise the limit of file sizes",
    errno.EIO: "check the disk and the system log",
    errno.EROFS: "mount the file system for writing",
    errno.EACCES: _PERMIT,
    errno.EPERM: _PERMIT,
    errno.ENOTDIR: _REPLACE,
    errno.EISDIR: "give the path of a file",
    errno.ENAMETOOLONG: "give a shorter path",
}


def is_unwritable(error: OSError) -> bool:
    """Whether the error means that a file, a directory or the disk cannot be written.

    A missing file is none of these errors: usually it should have been read.

    Examples
    --------
    >>> is_unwritable(OSError(errno.EROFS, "")), is_unwritable(FileNotFoundError(errno.ENOENT, ""))
    (True, False)
    """
    return error.errno in _REMEDIES


def cannot_write(what: object, error: OSError, other: str = "choose another place") -> CannotWriteError:
    """Error that says what cannot be written, why, and what to do.

    Parameters
    ----------
    what
        The file, the directory, or its description.
    error
        Error of the file system.
    other
        How to choose another place; it is the second half of the remedy.

    Examples
    --------
    >>> print(cannot_write("runs to /x", OSError(errno.ENOSPC, "")))
    cannot write runs to /x: No space left on device; free disk space, or choose another place
    """
    reason = os.strerror(error.errno) if error.errno else error
    remedy = _REMEDIES.get(error.errno or 0)
    return CannotWriteError(f"cannot write {what}: {reason}; {f'{remedy}, or ' if remedy else ''}{other}")


def sync(path: Path) -> None:
    """Write a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(directory: Path) -> None:
    """Write a directory and everything below it to the disk."""
    for root, _, files in os.walk(directory):
        for name in files:
            sync(Path(root) / name)
        sync(Path(root))
