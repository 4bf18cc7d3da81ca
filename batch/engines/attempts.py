"""Attempts of a task: each writes into a directory of its own, and the driver keeps the files of the one that answered.

An engine may run the work of a partition more than once: after a failure, or twice at a time under speculation. An
attempt that ends late therefore never touches a file that is in use.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from streamguard.batch.source.offset_range import OffsetRange, Records
from streamguard.settings.schema import Settings

_PREFIX = ".attempt-"

Work = Callable[[OffsetRange, Records, Settings, Path], None]
"""Processes an offset range and its records, and writes the result to the directory; it must be picklable."""


def attempt(
    work: Work, offset_range: OffsetRange, records: Records, settings: Settings, directory: Path
) -> str:
    """Do the work in a new directory inside `directory`, and return the name of the new directory."""
    name = f"{_PREFIX}{offset_range.partition}-{secrets.token_hex(8)}"
    (directory / name).mkdir()
    work(offset_range, records, settings, directory / name)
    return name


def keep(directory: Path, name: str) -> None:
    """Move the files of an attempt to their places."""
    for path in (directory / name).iterdir():
        path.replace(directory / path.name)
    (directory / name).rmdir()


def remove_others(directory: Path) -> None:
    """Remove the attempts that are not kept: they failed, or another attempt answered first."""
    for path in directory.glob(f"{_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
