"""The manifest of an archive: which files it is made of, of which topic, and where each partition goes on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from streamguard.batch.source.offset_range import PlanError
from streamguard.files.disk import sync

NAME = "_manifest.json"
"""Readers of data sets (pyarrow, pandas, Spark) pass over names with an underscore."""
ASIDE = f"{NAME}.partial"
_FAMILY = "streamguard-archive-"
FORMAT = f"{_FAMILY}1"
_PATH = re.compile(r"date=\d{4}-\d{2}-\d{2}/partition=\d+/\d+-\d+\.parquet")


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of offsets of one partition, in a file that never changes."""

    path: str
    """Relative to the archive."""
    partition: int
    start: int
    end: int
    """First offset behind it."""
    rows: int
    """Fewer than offsets where the topic had offsets without a record."""
    bytes: int
    first_ms: int | None
    """Of its events, by their own time; None if it holds none."""
    last_ms: int | None

    @property
    def date(self) -> str:
        """The day it is filed under."""
        return self.path[len("date=") :].partition("/")[0]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an archive holds; a file that it does not name is not part of it.

    Attributes
    ----------
    format
        `FORMAT`.
    source
        Identity of the topic.
    starts, ends
        Of each partition the first offset archived, and the first not archived yet. All records in between are
        in `files`.
    files
        Those of a partition in the order of their offsets.
    """

    format: str
    source: dict[str, Any]
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    files: list[File] = []

    def of(self, partition: int, start: int, end: int) -> list[File]:
        """Files with records of a range of offsets, in order."""
        return [f for f in self.files if f.partition == partition and f.start < end and f.end > start]

    def save(self, directory: Path) -> None:
        """Replace the manifest in one step; what it names has to be on the disk already."""
        aside = directory / ASIDE
        with aside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(directory / NAME)
        sync(directory)


def read(directory: Path) -> Manifest | None:
    """The manifest of an archive; None if the directory is none, whatever a file of this name may say there.

    Raises
    ------
    PlanError
        If it cannot be read, or contradicts itself.
    """
    path = directory / NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None
    if _FAMILY.encode() not in text and not any(directory.glob("date=*/partition=*")):
        return None
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise PlanError(f"{path} is damaged ({error}): restore it, or begin a new archive") from None
    if manifest.format != FORMAT:
        raise PlanError(
            f"{path} is of the format {manifest.format}, which this version does not know ({FORMAT})"
        )
    at = dict(manifest.starts)
    for file in manifest.files:
        if not (
            _PATH.fullmatch(file.path)
            and at.get(file.partition, file.end)
            <= file.start
            < file.end
            <= manifest.ends.get(file.partition, 0)
        ):
            raise PlanError(
                f"{path} is damaged ({file.path} does not follow the files before it): restore it, or begin a new "
                "archive"
            )
        at[file.partition] = file.end
    return manifest
