"""Loads what the driver needs of the files of all partitions, in memory that does not grow with users or events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident, decode
from streamguard.batch.folding.bottom_k import SAMPLED, TEXTS
from streamguard.batch.folding.fold_file import parts, sample_rows, sample_texts, user_records
from streamguard.batch.folding.fold_result import EventTable, FoldResult, IncidentRisks, UserTable, no_users
from streamguard.batch.folding.summaries import columns
from streamguard.batch.source.offset_range import Counts
from streamguard.history.incidents import worst_first

MAX_INCIDENTS = 50
"""Number of incidents of all partitions that are held as a whole, the worst."""


class UserFile:
    """The users of a partition in its file, sorted by name; each iteration reads them again, in bounded parts."""

    def __init__(self, file: str | Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[UserTable]:
        for _, batch in parts(self._file, ("user",)):
            yield _user_table(batch)


class StateFile:
    """The state of a partition in its file, sorted by key; each iteration reads it again, in bounded parts."""

    def __init__(self, file: str | Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for _, batch in parts(self._file, ("state",), ["key", "value"]):
            yield from zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True)


def load(files: Sequence[str | Path], max_rows: int, max_users: int) -> FoldResult:
    """Read the files that an engine wrote, one for each partition.

    The sample is read twice: first its keys, which determine the rows that belong to the sample of all partitions, then
    those rows. The same holds for the sample of users.

    Parameters
    ----------
    files
        Files with the schema `streamguard.batch.folding.fold_file.SCHEMA`, in the order of their partitions.
    max_rows
        Maximum number of sampled events, over all partitions.
    max_users
        Maximum number of sampled users, over all partitions.
    """
    counts, incidents = [], _Incidents()
    for file in files:
        for kind, batch in parts(file, ("counts", "incident"), ["value"]):
            if kind == "counts":
                counts += [msgspec.json.decode(value, type=Counts) for value in batch["value"].to_pylist()]
            else:
                incidents.add([decode(value) for value in batch["value"].to_pylist()])
    users = {c.partition: UserFile(file) for c, file in zip(counts, files, strict=True)}
    states = {c.partition: StateFile(file) for c, file in zip(counts, files, strict=True)}
    usual = [_user_table(batch).usual for batch in _smallest(files, "user", max_users)]
    return FoldResult(
        sample=_events(_smallest(files, "sample", max_rows)),
        alerts=_events([batch for file in files for _, batch in parts(file, ("alert",))]),
        users=users,
        states=states,
        usual=np.concatenate([no_users().usual, *usual]),
        incidents=incidents.worst,
        incident_risks=incidents.risks,
        counts=sorted(counts, key=lambda c: c.partition),
    )


def _smallest(files: Sequence[str | Path], kind: str, most: int) -> list[pa.RecordBatch]:
    """The `most` rows of a kind with the smallest priorities; of equal ones, those of the first files and rows."""
    smallest = np.empty(0)
    for file in files:
        for _, batch in parts(file, (kind,), ["priority"]):
            smallest = np.concatenate([smallest, batch["priority"].to_numpy()])
            if len(smallest) > most:
                smallest = np.partition(smallest, most - 1)[:most]
    if len(smallest) < most:
        limit, equal = np.inf, most
    else:
        limit = smallest.max()
        equal = int(np.count_nonzero(smallest == limit))
    kept = []
    for file in files:
        for _, batch in parts(file, (kind,)):
            keys = batch["priority"].to_numpy()
            selected = keys < limit
            ties = np.flatnonzero(keys == limit)[:equal]
            selected[ties] = True
            equal -= len(ties)
            kept.append(batch.filter(pa.array(selected)))
    return kept


def _user_table(batch: pa.RecordBatch) -> UserTable:
    records = user_records(batch)
    return UserTable(
        user=_objects(batch["user"].to_pylist()),
        partition=batch["partition"].to_numpy(),
        features=np.ascontiguousarray(records["features"]),
        usual=records["feature_sum"] / records["events"][:, None],
        summary=columns(records),
        event_bits=batch["event_bits"].to_numpy(),
        incident_bits=batch["incident_bits"].to_numpy(),
    )


def _events(batches: Sequence[pa.RecordBatch]) -> EventTable:
    """Events, sorted by partition and offset."""
    rows = np.concatenate([np.empty(0, SAMPLED), *map(sample_rows, batches)])
    texts = np.concatenate([np.empty((0, len(TEXTS)), object), *map(sample_texts, batches)])
    partition = np.concatenate([np.empty(0, np.int32), *(batch["partition"].to_numpy() for batch in batches)])
    order = np.lexsort((rows["offset"], partition))
    rows, texts = rows[order], texts[order]
    return EventTable(
        partition[order],
        rows["offset"],
        rows["timestamp"],
        texts[:, 0],
        texts[:, 1],
        texts[:, 2],
        np.ascontiguousarray(rows["features"]),
        rows["score"],
        rows["tail"],
        rows["strength"],
        rows["patterns"],
        rows["alerted"],
    )


class _Incidents:
    """The worst incidents, and of each user with incidents their number and their highest risk."""

    def __init__(self) -> None:
        self.worst: list[Incident] = []
        self.risks: dict[tuple[int, str], IncidentRisks] = {}

    def add(self, incidents: Sequence[Incident]) -> None:
        self.worst = worst_first([*self.worst, *incidents])[:MAX_INCIDENTS]
        for incident in incidents:
            if incident.entity.kind == "user":
                key = incident.origin.partition, incident.entity.value
                before = self.risks.get(key, IncidentRisks(0, 0.0))
                self.risks[key] = IncidentRisks(before.number + 1, max(before.worst, incident.risk))


def _objects(values: list[Any]) -> NDArray[np.object_]:
    out = np.empty(len(values), object)
    out[:] = values
    return out
