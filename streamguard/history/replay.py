"""The fold over a history without Kafka: events in file order are spread over partitions and folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident
from streamguard.events.refusals import Refusals, count
from streamguard.fold.kernel import N_FEATURES
from streamguard.history.decisions import DecisionPlan, Placed
from streamguard.history.files import BATCH_ROWS, Batch
from streamguard.history.incidents import Incidents, worst_first
from streamguard.history.layout import Layout
from streamguard.history.understood import Understood
from streamguard.models.forest import Forest
from streamguard.settings.schema import Detection
from streamguard.state.in_memory import InMemoryPartition

RESIDENT = 4 * BATCH_ROWS


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a batch; arrays have a row for each of its n events, in their order.

    Attributes
    ----------
    features
        float32 (n, 34).
    score, tail, forest, evidence
        float64 (n,), bits; see `streamguard.state.partition.Folded`.
    patterns
        uint64 (n,).
    incident
        int64 (n,): a number that all alerts of one incident share; -1 for other events.
    partition, offset
        int64 (n,): the place of the event in the topic that the history stands for.
    """

    features: NDArray[np.float32]
    score: NDArray[np.float64]
    tail: NDArray[np.float64]
    forest: NDArray[np.float64]
    evidence: NDArray[np.float64]
    patterns: NDArray[np.uint64]
    incident: NDArray[np.int64]
    partition: NDArray[np.int64]
    offset: NDArray[np.int64]


class Replay:
    """Folds batches of events as if they were records of a topic.

    Parameters
    ----------
    partitions
        Number of partitions, over which `streamguard.history.layout.Layout` spreads the rows; by default one, as in
        `streamguard replay`.
    detection
        Threshold of alerts and gap between incidents.
    forest
        Adds evidence to verdicts.
    decisions
        Decisions to fold, with their places.

    Attributes
    ----------
    events : int
        Number of folded events.
    plan : DecisionPlan
        The decisions that are not folded yet.
    refusals : dict
        Refused rows by reason, with the users and sources that they name.
    understood : Understood
        How statuses, types, addresses and places were understood.

    Notes
    -----
    The size of batches does not matter. Memory grows with users (about 1.5 KB each) and incidents.

    Examples
    --------
    >>> from streamguard.history.files import read
    >>> replay = Replay(partitions=2)
    >>> for batch in read("events.jsonl"):  # doctest: +SKIP
    ...     replay.feed(batch)
    >>> replay.incidents()
    []
    """

    def __init__(
        self,
        partitions: int = 1,
        *,
        detection: Detection | None = None,
        forest: Forest | None = None,
        decisions: Sequence[Placed] = (),
    ) -> None:
        self.plan = DecisionPlan(decisions, partitions)
        self._forest = forest
        self._layout = Layout(partitions)
        self.partitions = [
            InMemoryPartition(partition, resident=RESIDENT, detection=detection or Detection())
            for partition in range(partitions)
        ]
        self._incidents = [Incidents(involved=True) for _ in range(partitions)]
        self.events = 0
        self.refusals: dict[str, Refusals] = {}
        self.understood = Understood()

    @property
    def refused(self) -> Counter[str]:
        """Number of refused rows by reason."""
        return Counter({reason: entry.number for reason, entry in self.refusals.items()})

    def feed(self, batch: Batch) -> Scored:
        """Fold the next rows and return their scores."""
        events = batch.events
        self.events += len(events)
        count(self.refusals, batch.refused)
        n = len(events)
        position = np.full(len(batch.values), -1)
        position[batch.index] = np.arange(n)
        out = Scored(
            features=np.empty((n, N_FEATURES), np.float32),
            score=np.empty(n),
            tail=np.empty(n),
            forest=np.empty(n),
            evidence=np.empty(n),
            patterns=np.empty(n, np.uint64),
            incident=np.full(n, -1, np.int64),
            partition=np.empty(n, np.int64),
            offset=np.empty(n, np.int64),
        )
        for placed in self._layout.place(batch):
            p, partition = placed.partition, self.partitions[placed.partition]
            for rows, offsets in _chunks(placed.rows, placed.offsets):
                good = np.flatnonzero(position[rows] >= 0)
                at = position[rows[good]]
                out.partition[at], out.offset[at] = p, offsets[good]
                chunk = [events[i] for i in at]
                values, index, places = self.plan.insert(
                    p,
                    [batch.values[row] for row in rows.tolist()],
                    good.tolist(),
                    offsets,
                    chunk,
                    batch.first + rows,
                )
                folded = partition.state.fold_events(chunk, index, places, values, self._forest)
                count(self.refusals, folded.refused)
                partition.state.next_offset = int(offsets[-1]) + 1
                self.understood.add(folded.events, folded.columns.flags)
                for name in ("features", "score", "tail", "forest", "evidence", "patterns"):
                    getattr(out, name)[at] = getattr(folded, name)
                alerted = np.flatnonzero(folded.kind)
                out.incident[at[alerted]] = self._number(p, folded.incident["first_offset"][alerted])
                self._incidents[p].follow(folded)
                partition.save_if_full()
        return out

    def _number(self, partition: int, first_offset: NDArray[np.int64]) -> NDArray[np.int64]:
        return first_offset * len(self.partitions) + partition

    def numbered(self) -> dict[int, Incident]:
        """Incidents as they stand now, by the number that `Scored.incident` has for their alerts."""
        return {
            first_offset * len(self.partitions) + p: incident
            for p, partition in enumerate(self._incidents)
            for first_offset, incident in partition.by_first_offset().items()
        }

    def updates(self) -> list[Incident]:
        """All updates of all incidents, for `streamguard.campaigns.campaign.campaigns`."""
        return [update for partition in self._incidents for update in partition.updates()]

    def incidents(self) -> list[Incident]:
        """Incidents as they stand now, the worst first: by evidence, then number of alerts, then age."""
        return worst_first(one for partition in self._incidents for one in partition.incidents())


def _chunks(*arrays: NDArray[np.int64]) -> list[list[NDArray[np.int64]]]:
    return [[part[a : a + BATCH_ROWS] for part in arrays] for a in range(0, len(arrays[0]), BATCH_ROWS)]
