"""Folds the offset range of one partition: from records to Arrow record batches of one schema.

Every engine runs this function once for each partition.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa

from streamguard.alerts.incident import encode
from streamguard.batch.folding.bottom_k import BottomKSample
from streamguard.batch.folding.fold_file import (
    batches,
    parts,
    sample_batches,
    sample_rows,
    sample_texts,
    user_batches,
    user_records,
)
from streamguard.batch.folding.summaries import Summaries
from streamguard.batch.source.offset_range import (
    CHUNK,
    NAMED,
    Counts,
    OffsetRange,
    PlanError,
    Records,
    checked,
)
from streamguard.events.event import parse, repairs_of
from streamguard.events.refusals import count
from streamguard.history.incidents import Incidents, worst_first
from streamguard.models.sampling import priority
from streamguard.settings.schema import Detection, Sampling
from streamguard.state.in_memory import InMemoryPartition

RESIDENT = 16 * CHUNK
MAX_INCIDENTS = 1000
_MAX_INCIDENT_BYTES = 16_000_000


def fold_range(
    offset_range: OffsetRange, records: Records, detection: Detection, sampling: Sampling
) -> Iterator[pa.RecordBatch]:
    """Fold an offset range; memory grows with the number of its users, not of its events.

    Raises
    ------
    PlanError
        If a record is outside the offset range, if its offset does not follow that of the previous record, or if the
        file of the earlier run is damaged.
    StateError
        If the state of the earlier run has another layout.
    """
    saved: dict[bytes, bytes] = {}
    summaries, incidents = Summaries(), Incidents(MAX_INCIDENTS)
    sample, alerts = BottomKSample(sampling.rows), BottomKSample(sampling.alerts)
    if offset_range.earlier is not None:
        _restore(offset_range.earlier, saved, summaries, sample)
    partition = InMemoryPartition(
        offset_range.partition,
        resident=RESIDENT,
        detection=detection,
        hash_key=offset_range.hash_key,
        saved=saved,
    )
    state = partition.state
    counts = Counts(offset_range.partition, offset_range.start, offset_range.end)
    for offsets, values, append_ms in checked(offset_range, records, counts):
        events, index, refused, repaired = parse(values)
        folded = state.fold_events(events, index, offsets, values, append_ms=append_ms)
        state.next_offset = int(offsets[-1]) + 1
        incidents.follow(folded)
        places = offsets[index] if events else np.empty(0, np.int64)
        everything = np.arange(len(events))
        sample.offer(priority(offset_range.partition, places).astype(np.float64), places, folded, everything)
        alerted = np.flatnonzero(folded.kind)
        alerts.offer(-folded.evidence, places, folded, alerted)
        summaries.add(folded)
        counts.events += len(events)
        counts.alerted += len(alerted)
        counts.opened += int((folded.incident["first_offset"][alerted] == places[alerted]).sum())
        counts.repaired += len(repaired)
        for repair, number in repairs_of(repaired).items():
            counts.repairs[repair] = counts.repairs.get(repair, 0) + number
        counts.understood.add(folded.events, folded.columns.flags)
        counts.clamped += folded.clamped
        refused = sorted([*refused, *folded.refused], key=lambda refusal: refusal.index)
        count(counts.refusals, refused)
        for refusal in refused:
            if len(counts.refused_first) < NAMED:
                first = int(offsets[refusal.index]) - refusal.count + 1
                counts.refused_first.append((first, refusal.reason, refusal.detail))
        if events:
            stamps = folded.columns.timestamp
            counts.first_ms = min(counts.first_ms or 2**62, int(stamps.min()))
            counts.last_ms = max(counts.last_ms or 0, int(stamps.max()))
        if partition.save_if_full():
            summaries.retain(saved)
    if offset_range.end > offset_range.start:
        state.next_offset = offset_range.end
    if partition.save():
        summaries.retain(saved)
    users, peaks, rows = summaries.sorted()
    counts.users, counts.events_ever = len(users), state.events
    make = partial(batches, offset_range.partition)
    yield from make("counts", value=[msgspec.json.encode(counts)])
    for kind, selected in (("sample", sample), ("alert", alerts)):
        yield from sample_batches(offset_range.partition, kind, *selected.rows())
    yield from user_batches(offset_range.partition, users, peaks, summaries.records, rows)
    yield from make("incident", value=_worst(incidents))
    items = sorted(saved.items())
    yield from make("state", key=[key for key, _ in items], value=[value for _, value in items])


def _worst(incidents: Incidents) -> list[bytes]:
    """The worst incidents as JSON, at most `MAX_INCIDENTS` and at most `_MAX_INCIDENT_BYTES`."""
    bodies = [encode(incident) for incident in worst_first(incidents.incidents())[:MAX_INCIDENTS]]
    ends = np.cumsum([len(body) for body in bodies])
    return bodies[: int(np.searchsorted(ends, _MAX_INCIDENT_BYTES, "right"))]


def _restore(earlier: str, saved: dict[bytes, bytes], summaries: Summaries, sample: BottomKSample) -> None:
    try:
        for kind, rows in parts(earlier, ("sample", "user", "state")):
            if kind == "state":
                saved.update(zip(rows["key"].to_pylist(), rows["value"].to_pylist(), strict=True))
            elif kind == "user":
                summaries.restore(rows["user"].to_pylist(), user_records(rows))
            elif kind == "sample":
                sample.restore(sample_rows(rows), sample_texts(rows))
    except (OSError, KeyError, TypeError, ValueError) as error:  # pyarrow's errors are subclasses of these
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise PlanError(
            f"{earlier}, a file of the earlier run, cannot be read ({reason}): restore it, or start a new history with "
            "the remaining records with --fresh"
        ) from None
