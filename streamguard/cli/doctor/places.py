"""Directories that are written to: there or to be made, writable, on what, with how much room."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.settings.schema import Settings

FULL = 256 * 1024**2
"""Free bytes below which the next compaction, or run, may not fit."""
SCARCE = 2 * 1024**3
"""Free bytes below which somebody should know."""
FEW_FILES = 1000

_NETWORK = re.compile(r"nfs4?|cifs|smb\w*|9p|ceph|glusterfs|lustre|fuse\.(sshfs|s3fs|gcsfuse|\w*nfs\w*)")
_MEMORY = ("tmpfs", "ramfs")


def places(settings: Settings) -> Iterator[Finding]:
    """The worker's state, without which it does not run; runs and registry, which a retrain writes to."""
    yield _place("worker.data_dir", settings.worker.data_dir, worker=True)
    yield _place("batch.output", settings.batch.output, worker=False)
    if settings.models.registry:
        yield _place("models.registry", settings.models.registry, worker=False)


def _place(setting: str, value: str, *, worker: bool) -> Finding:
    path = Path(value).absolute()
    bad, whose = (fail, "") if worker else (warn, "; a retrain fails here, a worker does without")
    name = f"{setting} {path}"
    try:
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir():
            return bad("disk", f"{name}: {there} is not a directory{whose}", f"set {setting} to a directory")
        with tempfile.TemporaryFile(dir=there):
            room = os.statvfs(there)
    except OSError as error:
        return bad(
            "disk",
            f"{name} cannot be written: {error.strerror}{whose}",
            f"give it to the user that runs this (uid {os.getuid()}), or set {setting} to another directory",
        )
    free, system = room.f_bavail * room.f_frsize, file_system(there)
    found = f"{name}{'' if there == path else ' (will be made)'}: {_size(free)} free, {system}"
    if free < FULL or (room.f_files and room.f_favail < FEW_FILES):
        files = "" if free < FULL else f", room for {room.f_favail} files"
        return bad("disk", f"{found}{files}", "make room, or set it to a larger file system")
    if free < SCARCE:
        return warn("disk", found, "make room: state and runs grow with users and history")
    if system in _MEMORY:
        return warn("disk", f"{found}: lost when the machine starts again", f"set {setting} to a disk")
    if worker and _NETWORK.fullmatch(system):
        return warn(
            "disk",
            f"{found}: slow for RocksDB, and not every such file system locks",
            f"set {setting} to a local disk; the changelog in Kafka is the copy",
        )
    return ok("disk", found)


def file_system(path: Path) -> str:
    """The type of the file system that a path is on; `unknown` where the system does not tell."""
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
