"""The manifest of an archive: its files, its topic, and the first and last offsets of each partition."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from streamguard.errors import DataError
from streamguard.files.disk import sync

NAME = "_manifest.json"
"""Readers of data sets (pyarrow, pandas, Spark) ignore names that start with an underscore."""
ASIDE = f"{NAME}.partial"
_FAMILY = "streamguard-archive-"
FORMAT = f"{_FAMILY}1"
_PATH = re.compile(r"date=\d{4}-\d{2}-\d{2}/partition=\d+/\d+-\d+\.parquet")


class ArchiveError(DataError):
    """The manifest of an archive cannot be read, or contradicts itself; the message names the file and what to do."""


class ArchiveFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An offset range of one partition, in a file that never changes."""

    path: str
    """Path relative to the archive."""
    partition: int
    start: int
    end: int
    """First offset after the file."""
    rows: int
    """Number of rows; smaller than the number of offsets if the topic had offsets without a record."""
    bytes: int
    first_ms: int | None
    """Earliest event time, in epoch milliseconds; None if the file has no events."""
    last_ms: int | None
    """Latest event time, in the same way."""

    @property
    def date(self) -> str:
        """The date in the file's path."""
        return self.path[len("date=") :].partition("/")[0]


class ArchiveManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of an archive; a file that the manifest does not list is not part of the archive.

    Attributes
    ----------
    format
        `FORMAT`.
    source
        Identity of the topic.
    starts, ends
        First archived offset of each partition, and its first offset that is not archived yet. All records in
        between are in `files`.
    files
        Files, sorted by partition and offset.
    hash_keys
        Keys of the hashes of the workers' state, hexadecimal, by partition: a retrain from the archive then has the
        same bits as one from the topic.
    """

    format: str
    source: dict[str, Any]
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    files: list[ArchiveFile] = []
    hash_keys: dict[int, str] = {}

    def of(self, partition: int, start: int, end: int) -> list[ArchiveFile]:
        """Files with records of an offset range, in order."""
        return [f for f in self.files if f.partition == partition and f.start < end and f.end > start]

    def save(self, directory: Path) -> None:
        """Replace the manifest atomically; the listed files must already be synced to the disk."""
        aside = directory / ASIDE
        with aside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(directory / NAME)
        sync(directory)


def read(directory: Path) -> ArchiveManifest | None:
    """Read the manifest of an archive; None if the directory is not an archive, even if it has a file of this name.

    Raises
    ------
    ArchiveError
        If the manifest cannot be read, or contradicts itself.
    """
    path = directory / NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from None
    if _FAMILY.encode() not in text and not any(directory.glob("date=*/partition=*")):
        return None
    try:
        manifest = msgspec.json.decode(text, type=ArchiveManifest)
    except msgspec.DecodeError as error:
        raise ArchiveError(f"{path} is damaged ({error}): restore it, or start a new archive") from None
    if manifest.format != FORMAT:
        raise ArchiveError(
            f"{path} has the format {manifest.format}, but this version reads {FORMAT}: use the version that wrote it"
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
            raise ArchiveError(
                f"{path} is damaged ({file.path} does not follow the files before it): restore it, or start a new "
                "archive"
            )
        at[file.partition] = file.end
    return manifest
