"""Writes files and directories to the disk before a call returns, and explains why one cannot be written or read."""

from __future__ import annotations

import errno
import os
import ssl
from pathlib import Path

from streamguard.errors import CannotWriteError, DataError, StreamGuardError

_FREE_SPACE = "free disk space"
_PERMIT = "change its owner or permissions"
_REPLACE = "give the path of a directory that can be created and written"
_SIMPLE = "use a local disk: this file system lacks locks or other operations"

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
    errno.EMFILE: "raise the limit of open files (ulimit -n, or LimitNOFILE of a systemd unit)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
    errno.ENOMEM: "free memory",
    errno.ESTALE: "mount the network file system again",
    errno.ENODEV: _SIMPLE,
    errno.ENOLCK: _SIMPLE,
    errno.ENOSYS: _SIMPLE,
    errno.EOPNOTSUPP: _SIMPLE,
}

UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.ENOTTY}
)
"""Errors with which a file system refuses an operation that it does not have, such as a link or a lock."""


def is_unwritable(error: OSError) -> bool:
    """Whether the error means that a file, a directory or the disk cannot be written.

    A missing file is none of these errors: usually it should have been read.

    Examples
    --------
    >>> is_unwritable(OSError(errno.EROFS, "")), is_unwritable(FileNotFoundError(errno.ENOENT, ""))
    (True, False)
    """
    # An error of OpenSSL has a number of its own kind.
    return error.errno in _REMEDIES and not isinstance(error, ssl.SSLError)


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


def cannot_read(what: object, error: OSError) -> DataError:
    """Error that says what cannot be read, why, and what to do.

    Examples
    --------
    >>> print(cannot_read("/x", PermissionError(errno.EACCES, "")))
    cannot read /x: Permission denied; give this user the right to read it, or give another path
    """
    reason = os.strerror(error.errno) if error.errno else error
    remedy = (
        "give this user the right to read it" if error.errno in (errno.EACCES, errno.EPERM) else "check it"
    )
    return DataError(f"cannot read {what}: {reason}; {remedy}, or give another path")


def translated(error: OSError, otherwise: str = "the output") -> StreamGuardError | None:
    """Error of StreamGuard for an error of the file system that nobody else has explained.

    Parameters
    ----------
    error
        The system does not report whether a file should have been read or written. If it exists and cannot be read,
        it should have been read.
    otherwise
        What cannot be written if the error names no file.

    Returns
    -------
    StreamGuardError or None
        None if the error is not about a file.

    Examples
    --------
    >>> translated(OSError(errno.ENOSPC, "", "/x")).exit_code.name
    'CANNOT_WRITE'
    >>> translated(FileNotFoundError(errno.ENOENT, "", "/")).exit_code.name
    'DATA_ERROR'
    """
    name = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else None
    path = Path(os.fsdecode(name)) if name else None
    if path is not None and error.errno == errno.ENOENT:
        if path.parent.is_dir():
            return cannot_read(path, error)
        return CannotWriteError(
            f"the directory {path.parent} does not exist: create it, or give another path"
        )
    if not is_unwritable(error):
        return None
    denied = error.errno in (errno.EACCES, errno.EPERM)
    if path is not None and denied and os.access(path, os.F_OK) and not os.access(path, os.R_OK):
        return cannot_read(path, error)
    return cannot_write(path or otherwise, error)


def sync(path: Path) -> None:
    """Write a file, or the names in a directory, to the disk.

    Some file systems, such as shares of other machines, cannot do that for a directory; they do it by themselves.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED or not path.is_dir():
            raise
    finally:
        os.close(handle)


def sync_tree(directory: Path) -> None:
    """Write a directory and everything below it to the disk."""
    for root, _, files in os.walk(directory):
        for name in files:
            sync(Path(root) / name)
        sync(Path(root))
