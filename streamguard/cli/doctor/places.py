"""Checks of the directories that StreamGuard writes to: permissions, file system and free space."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.files import lock
from streamguard.settings.schema import Settings
from streamguard.text import counted

FULL = 256 * 1024**2
"""Free bytes. With less free space the next compaction or run may not fit."""
SCARCE = 2 * 1024**3
"""Free bytes. With less free space the check warns."""
FEW_FILES = 1000
"""Free inodes. With fewer free inodes the check fails."""

_NETWORK = re.compile(r"nfs4?|cifs|smb\w*|9p|ceph|glusterfs|lustre|fuse\.(sshfs|s3fs|gcsfuse|\w*nfs\w*)")
_MEMORY = ("tmpfs", "ramfs")


def places(settings: Settings) -> Iterator[Finding]:
    """Check the directory of the worker's state, and the directories of runs and registry that a retrain writes to."""
    yield place("worker.data_dir", settings.worker.data_dir)
    yield place("batch.output", settings.batch.output, needed_by="a retrain fails here")
    if settings.models.registry:
        yield place("models.registry", settings.models.registry, needed_by="a retrain fails here")


def place(setting: str, value: str, needed_by: str = "") -> Finding:
    """Check one directory.

    Parameters
    ----------
    setting, value
        Name of the setting and the directory.
    needed_by
        What fails without the directory, if a worker does not need it; a problem is then a warning.
    """
    path = Path(value).absolute()
    worker = not needed_by
    bad, whose = (fail, "") if worker else (warn, f"; {needed_by}, a worker does not need it")
    name = f"{setting} {path}"
    try:
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir():
            return bad("disk", f"{name}: {there} is not a directory{whose}", f"set {setting} to a directory")
        with tempfile.TemporaryFile(dir=there) as file:
            lockable = lock.is_supported(file.fileno())
            room = os.statvfs(there)
    except OSError as error:
        return bad(
            "disk",
            f"{name} cannot be written: {error.strerror}{whose}",
            f"let the user of this process (uid {os.getuid()}) write it, or set {setting} to another directory",
        )
    free, system = room.f_bavail * room.f_frsize, file_system(there)
    found = f"{name}{'' if there == path else ' (will be created)'}: {_size(free)} free, {system}"
    if free < FULL or (room.f_files and room.f_favail < FEW_FILES):
        files = "" if free < FULL else f", {counted(room.f_favail, 'free inode')}"
        return bad("disk", f"{found}{files}", f"free some space, or set {setting} to a larger file system")
    if free < SCARCE:
        return warn("disk", found, "free some space: state and runs grow with users and history")
    if not lockable:
        return bad("disk", f"{found}; it has no locks{whose}", f"set {setting} to a file system with locks")
    if system in _MEMORY:
        return warn("disk", f"{found}; a restart of the machine deletes it", f"set {setting} to a disk")
    if worker and _NETWORK.fullmatch(system):
        return warn(
            "disk",
            f"{found}; a network file system is slow for RocksDB, and may not support locks",
            f"set {setting} to a local disk; the changelog in Kafka is the backup",
        )
    return ok("disk", found)


def file_system(path: Path) -> str:
    """Type of the file system of a path; `unknown` if the operating system does not list its mounts."""
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return "unknown"
    mounts = [line.split(" ")[1:3] for line in lines]
    place = path.resolve()
    over = [
        (len(where), number, kind)
        for number, (escaped, kind) in enumerate(mounts)
        if place.is_relative_to(where := re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), escaped))
    ]
    return max(over)[2] if over else "unknown"


def _size(count: int) -> str:
    return f"{count / 1024**3:,.1f} GiB" if count >= 1024**3 else f"{count / 1024**2:,.0f} MiB"
