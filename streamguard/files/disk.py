"""Writes files and directories to the disk, not only to the system's memory, before a call returns."""

from __future__ import annotations

import os
from pathlib import Path


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
