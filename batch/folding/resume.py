"""From which folded history a run goes on, and what a folded history says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from streamguard.batch.folding.bottom_k import KEPT
from streamguard.batch.folding.summaries import SUMMARY
from streamguard.batch.source.offset_range import OffsetRange, partition_file
from streamguard.batch.source.sources import Source
from streamguard.fold import features, profile
from streamguard.settings.schema import Detection, Settings

_ABOUT = "history.json"


class HistoryMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a folded history is of, stored beside its files."""

    source: dict[str, Any]
    layout: str
    """Changes with profiles, features, and everything else that files hold."""
    detection: Detection
    rows: int
    """Of the sample."""
    starts: dict[int, int]
    """First offset ever folded, by partition."""
    ends: dict[int, int]
    """First offset not folded yet, by partition."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A folded history to go on from: its directory, and what it is of."""

    directory: Path
    about: HistoryMetadata
    name: str = "the earlier run"
    sooner: str = "retrain more often than the topic's retention, read an archive with --input"
    anew: str = "begin anew with what is there: --fresh"

    @property
    def run(self) -> str:
        """The id of the run that left it."""
        return self.directory.parent.name

    @property
    def ends(self) -> Mapping[int, int]:
        """First offset not folded yet, by partition."""
        return self.about.ends

    def file(self, partition: int) -> str | None:
        """Of a partition; None if the history has none."""
        return str(partition_file(self.directory, partition)) if partition in self.about.ends else None


def layout() -> str:
    """Names everything that a folded history's files depend on."""
    return f"{profile.VERSION}.{features.DIGEST[:12]}.{SUMMARY.itemsize}.{KEPT.itemsize}"


def earlier(directory: Path, source: Source, settings: Settings) -> ResumePoint | str:
    """The folded history in a directory, or why this run cannot go on from it."""
    return _fitting(directory, source.identity(), settings)


def newest(directories: Iterable[Path], source: Source, settings: Settings) -> ResumePoint | str:
    """The first of some folded histories that this run can go on from, or why not even from the very first."""
    identity, why = source.identity(), "there is no earlier run"
    for k, directory in enumerate(directories):
        found = _fitting(directory, identity, settings)
        if isinstance(found, ResumePoint):
            return found
        why = why if k else found
    return why


def _fitting(directory: Path, identity: dict[str, Any], settings: Settings) -> ResumePoint | str:
    try:
        about = msgspec.json.decode((directory / _ABOUT).read_bytes(), type=HistoryMetadata)
    except FileNotFoundError:
        return "there is no earlier run"
    except (OSError, msgspec.DecodeError) as error:
        return f"{directory / _ABOUT} cannot be read ({error})"
    if about.source != identity:
        return f"the earlier run is of another source ({_named(about.source)}, now {_named(identity)})"
    for what, theirs, ours in (
        ("was written by another version", about.layout, layout()),
        ("was folded with other settings of [detection]", about.detection, settings.detection),
        ("was sampled with another sampling.rows", about.rows, settings.sampling.rows),
    ):
        if theirs != ours:
            return f"the earlier run {what} ({theirs}, now {ours})"
    return ResumePoint(directory, about)


def _named(identity: dict[str, Any]) -> str:
    if "topic" not in identity:
        return "files"
    return f"the topic {identity['topic']} with the id {identity.get('topic_id')}"


def of_topic(directory: Path) -> bool:
    """Whether a folded history is a topic's, which a later run can go on from."""
    try:
        return "topic" in msgspec.json.decode((directory / _ABOUT).read_bytes(), type=HistoryMetadata).source
    except (OSError, msgspec.DecodeError):
        return False


def write_about(
    directory: Path, source: Source, settings: Settings, ranges: list[OffsetRange], before: ResumePoint | None
) -> HistoryMetadata:
    """Say beside the files what they are of."""
    starts = {s.partition: s.start for s in ranges}
    about = HistoryMetadata(
        source.identity(),
        layout(),
        settings.detection,
        settings.sampling.rows,
        starts | (before.about.starts if before else {}),
        {s.partition: s.end for s in ranges},
    )
    (directory / _ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about)))
    return about
