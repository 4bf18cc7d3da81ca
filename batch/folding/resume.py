"""Finds the folded history that a run continues, and reads and writes the metadata of a folded history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from streamguard.batch.folding.bottom_k import STORED
from streamguard.batch.folding.fold_file import FORMAT
from streamguard.batch.folding.summaries import SUMMARY
from streamguard.batch.source.offset_range import OffsetRange, partition_file
from streamguard.batch.source.sources import Source
from streamguard.events.hashing import FILES_KEY
from streamguard.fold import features
from streamguard.fold.dimensions import VERSION
from streamguard.settings.schema import Detection, Settings

_ABOUT = "history.json"


class HistoryMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Source, settings and offsets of a folded history, stored beside its files."""

    source: dict[str, Any]
    layout: str
    """Identifier of the file contents; it changes with profiles, features and everything else in the files."""
    detection: Detection
    rows: int
    """Setting `sampling.rows`: maximum number of sampled events."""
    starts: dict[int, int]
    """First offset ever folded, by partition."""
    ends: dict[int, int]
    """First offset not folded yet, by partition."""
    hash_keys: dict[int, str] = {}
    """Digest of the key of the hashes, by partition."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A folded history to continue: its directory and its metadata."""

    directory: Path
    about: HistoryMetadata
    name: str = "the earlier run"
    expiry_remedy: str = (
        "read them from an archive of the topic with --input, or start a new history with the remaining records with "
        "--fresh; to prevent this, retrain more often than the topic's retention"
    )
    loss_remedy: str = "start a new history with the remaining records with --fresh"

    @property
    def run(self) -> str:
        """Id of the run that wrote the history."""
        return self.directory.parent.name

    @property
    def ends(self) -> Mapping[int, int]:
        """First offset not folded yet, by partition."""
        return self.about.ends

    def file(self, partition: int) -> str | None:
        """File of a partition; None if the history does not have the partition."""
        return str(partition_file(self.directory, partition)) if partition in self.about.ends else None


def layout() -> str:
    """Identifier of everything that the files of a folded history depend on."""
    return f"{VERSION}.{features.DIGEST[:12]}.{FORMAT}.{SUMMARY.itemsize}.{STORED.itemsize}"


def newest(directories: Iterable[Path], source: Source, settings: Settings) -> ResumePoint | str:
    """The first folded history that this run can continue, or the reason why it cannot continue the first one."""
    identity, why = source.identity(), "there is no earlier run"
    keys = source.hash_keys()
    for k, directory in enumerate(directories):
        found = _fitting(directory, identity, settings, keys)
        if isinstance(found, ResumePoint):
            return found
        why = why if k else found
    return why


def _fitting(
    directory: Path, identity: dict[str, Any], settings: Settings, keys: Mapping[int, bytes]
) -> ResumePoint | str:
    try:
        about = msgspec.json.decode((directory / _ABOUT).read_bytes(), type=HistoryMetadata)
    except FileNotFoundError:
        return "there is no earlier run"
    except (OSError, msgspec.DecodeError) as error:
        return f"{directory / _ABOUT} cannot be read ({error})"
    if about.source != identity:
        return f"the earlier run read another source ({_source_name(about.source)}, now {_source_name(identity)})"
    for difference, theirs, ours in (
        ("was written by another version", about.layout, layout()),
        (
            "was folded with other settings of [detection]",
            about.detection.of_the_fold,
            settings.detection.of_the_fold,
        ),
        ("was sampled with another sampling.rows", about.rows, settings.sampling.rows),
        (
            "was folded with other keys of the hashes than the workers use",
            about.hash_keys,
            {partition: _digest(keys.get(partition, FILES_KEY)) for partition in about.hash_keys},
        ),
    ):
        if theirs != ours:
            return f"the earlier run {difference} ({theirs}, now {ours})"
    return ResumePoint(directory, about)


def _digest(hash_key: bytes) -> str:
    return hashlib.sha256(hash_key).hexdigest()[:12]


def _source_name(identity: dict[str, Any]) -> str:
    if "topic" not in identity:
        return "files"
    return f"topic {identity['topic']} with the id {identity.get('topic_id')}"


def of_topic(directory: Path) -> bool:
    """Whether a folded history is that of a topic, so that a later run can continue it."""
    try:
        return "topic" in msgspec.json.decode((directory / _ABOUT).read_bytes(), type=HistoryMetadata).source
    except (OSError, msgspec.DecodeError):
        return False


def write_about(
    directory: Path, source: Source, settings: Settings, ranges: list[OffsetRange], before: ResumePoint | None
) -> HistoryMetadata:
    """Write the metadata of a folded history beside its files."""
    starts = {s.partition: s.start for s in ranges}
    about = HistoryMetadata(
        source.identity(),
        layout(),
        settings.detection,
        settings.sampling.rows,
        starts | (before.about.starts if before else {}),
        {s.partition: s.end for s in ranges},
        {s.partition: _digest(s.hash_key) for s in ranges},
    )
    (directory / _ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about)))
    return about
