"""One partition's stretch of history, folded: records in, Arrow record batches of one schema out.

This is what every engine runs, once for each partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.folding.file import batches, kept_batches, kept_rows, kept_texts, parts
from batch.folding.kept import Kept
from batch.folding.staged import Counts
from batch.folding.summaries import Summaries
from streamguard.events.event import parse
from streamguard.history.incidents import Incidents, worst_first
from streamguard.models.sampling import priority
from streamguard.settings import Detection, Sampling
from streamguard.state.partition import PartitionState

CHUNK = 4096
RESIDENT = 16 * CHUNK
NAMED = 5
"""Refused records, and gaps, that are told one by one."""
MOST_INCIDENTS = 1000
_MOST_INCIDENT_BYTES = 16_000_000

Records = Iterable[tuple[NDArray[np.int64], list[bytes | None]]]
"""Chunks of any size, in offset order: offsets int64 (n,), and n values."""


class PlanError(RuntimeError):
    """What was read is not what was planned, or cannot be; the message names partition and offset."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one task has to fold.

    Attributes
    ----------
    partition
        Its number.
    start, end
        First offset, and first offset behind the last.
    earlier
        File of an earlier run that ended at `start`; None to begin anew.
    """

    partition: int
    start: int
    end: int
    earlier: str | None = None


def fold_stretch(
    stretch: Stretch, records: Records, detection: Detection, sampling: Sampling
) -> Iterator[pa.RecordBatch]:
    """Fold a stretch; memory grows with its users, not with its events.

    Raises
    ------
    PlanError
        If a record is outside the stretch or not behind the one before it, or the earlier run's file is damaged.
    StateError
        If the earlier run's state is of another layout.
    """
    saved: dict[bytes, bytes] = {}
    summaries, incidents = Summaries(), Incidents(MOST_INCIDENTS)
    sample, flagged = Kept(sampling.rows), Kept(sampling.flagged)
    if stretch.earlier is not None:
        _restore(stretch.earlier, saved, summaries, sample)
    state = PartitionState(
        stretch.partition,
        lambda keys: [saved.get(key) for key in keys],
        resident=RESIDENT,
        detection=detection,
    )
    counts = Counts(stretch.partition, stretch.start, stretch.end)
    for offsets, values in checked(stretch, records, counts):
        events, index, refused = parse(values)
        folded = state.fold_events(events, index, offsets)
        state.next_offset = int(offsets[-1]) + 1
        for incident in folded.incidents:
            incident.attach(values[index[incident.index]] or b"null")
        incidents.follow(folded)
        where = offsets[index] if events else np.empty(0, np.int64)
        everything = np.arange(len(events))
        sample.offer(priority(stretch.partition, where).astype(np.float64), where, folded, everything)
        alerted = np.flatnonzero(folded.kind)
        flagged.offer(-folded.evidence, where, folded, alerted)
        summaries.add(folded)
        counts.events += len(events)
        counts.alerted += len(alerted)
        for refusal in refused:
            counts.refused[refusal.reason] = counts.refused.get(refusal.reason, 0) + 1
            if len(counts.refused_first) < NAMED:
                counts.refused_first.append((int(offsets[refusal.index]), refusal.reason, refusal.detail))
        if events:
            stamps = folded.columns.timestamp
            counts.first_ms = min(counts.first_ms or 2**62, int(stamps.min()))
            counts.last_ms = max(counts.last_ms or 0, int(stamps.max()))
        if state.full:
            saved.update(state.changes())
            state.clean()
    if stretch.end > stretch.start:
        state.next_offset = stretch.end
    saved.update(state.changes())
    make = partial(batches, stretch.partition)
    yield from make("counts", value=[msgspec.json.encode(counts)])
    for kind, kept in (("sample", sample), ("flagged", flagged)):
        yield from kept_batches(stretch.partition, kind, *kept.rows())
    users, peaks, packed = summaries.packed()
    yield from make("user", user=users, peak=peaks, value=packed)
    yield from make("incident", value=_worst(incidents))
    items = sorted(saved.items())
    yield from make("state", key=[key for key, _ in items], value=[value for _, value in items])


def checked(
    stretch: Stretch, records: Records, counts: Counts
) -> Iterator[tuple[NDArray[np.int64], list[bytes | None]]]:
    """Chunks of a bounded size, in the order of the plan; records and offsets without one are counted.

    Raises
    ------
    PlanError
        If a record is outside the stretch or not behind the one before it.
    """
    at = stretch.start
    for offsets, values in _chunks(records):
        _check(stretch, at, offsets)
        _count_gaps(counts, at, offsets)
        at = int(offsets[-1]) + 1
        counts.records += len(values)
        yield offsets, values
    _count_gaps(counts, at, np.array([stretch.end]))


def _chunks(records: Records) -> Iterator[tuple[NDArray[np.int64], list[bytes | None]]]:
    for offsets, values in records:
        for a in range(0, len(values), CHUNK):
            yield offsets[a : a + CHUNK], values[a : a + CHUNK]


def _check(stretch: Stretch, at: int, offsets: NDArray[np.int64]) -> None:
    before = np.concatenate([[at - 1], offsets[:-1]])
    wrong = np.flatnonzero((offsets <= before) | (offsets >= stretch.end))
    if len(wrong):
        k = wrong[0]
        raise PlanError(
            f"partition {stretch.partition}: offset {offsets[k]} came after {before[k]}, but the plan is every "
            f"offset from {stretch.start} to {stretch.end - 1}, once, in order"
        )


def _count_gaps(counts: Counts, at: int, offsets: NDArray[np.int64]) -> None:
    before = np.concatenate([[at], offsets[:-1] + 1])
    for k in np.flatnonzero(offsets > before).tolist():
        counts.missing += int(offsets[k] - before[k])
        if len(counts.gaps) < NAMED:
            counts.gaps.append((int(before[k]), int(offsets[k])))


def _worst(incidents: Incidents) -> list[bytes]:
    """The worst incidents as JSON, as many as there is room for."""
    bodies = [msgspec.json.encode(body) for body in worst_first(incidents.bodies())[:MOST_INCIDENTS]]
    ends = np.cumsum([len(body) for body in bodies])
    return bodies[: int(np.searchsorted(ends, _MOST_INCIDENT_BYTES, "right"))]


def _restore(earlier: str, saved: dict[bytes, bytes], summaries: Summaries, sample: Kept) -> None:
    try:
        for kind, rows in parts(earlier):
            if kind == "state":
                saved.update(zip(rows["key"].to_pylist(), rows["value"].to_pylist(), strict=True))
            elif kind == "user":
                for user, packed in zip(rows["user"].to_pylist(), rows["value"].to_pylist(), strict=True):
                    summaries.restore(user, packed)
            elif kind == "sample":
                sample.restore(kept_rows(rows), kept_texts(rows))
    except (OSError, KeyError, TypeError, ValueError) as error:  # pyarrow's own are among them
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise PlanError(
            f"{earlier}, which the earlier run has left, cannot be read ({said}): restore it, or begin anew with what "
            "is there: --fresh"
        ) from None
