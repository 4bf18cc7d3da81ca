"""Assesses the kept events of a folded history: evidence and risk, from statistics, patterns and the forest."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.verdict import verdict
from streamguard.batch.folding.fold_result import EventTable, FoldResult
from streamguard.fold.patterns import PATTERNS
from streamguard.models.forest import Forest
from streamguard.risk import risk


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of events and alerted events.

    Attributes
    ----------
    events, alerted
        All events of this run, and those that statistics and patterns alert. Both are counted, not estimated.
    sampled, sampled_alerted, forest_ranked
        Events of the uniform sample, those of them that are alerted, and those of which the forest says more than
        statistics and patterns.
    """

    events: int
    alerted: int
    sampled: int
    sampled_alerted: int
    forest_ranked: int

    @property
    def alert_rate(self) -> float:
        """Alerted events as a share of this run's events."""
        return self.alerted / max(self.events, 1)


@dataclass(frozen=True, slots=True)
class Assessment:
    """Evidence and risk of kept events; arrays have n rows.

    Attributes
    ----------
    rows
        Events of the sample and kept alerts, each once, sorted by partition and offset.
    sampled
        bool (n,): whether the row belongs to the uniform sample.
    here
        bool (n,): whether the event was read in this run.
    forest
        float64 (n,): bits of the forest; 0 without a forest.
    evidence, risk, alerted
        float64, float64, bool (n,): bits of the verdict, as a worker with this forest computes them; the same on a
        scale from 0 to 100; whether the evidence reaches the alert threshold.
    totals
        Numbers of events.
    """

    rows: EventTable
    sampled: NDArray[np.bool_]
    here: NDArray[np.bool_]
    forest: NDArray[np.float64]
    evidence: NDArray[np.float64]
    risk: NDArray[np.float64]
    alerted: NDArray[np.bool_]
    totals: Totals


def pattern_names(patterns: int) -> list[str]:
    """Names of the patterns in a bit set.

    Examples
    --------
    >>> pattern_names(5)
    ['brute_force', 'password_spray']
    """
    return [pattern.name for k, pattern in enumerate(PATTERNS) if patterns >> k & 1]


def assess(result: FoldResult, forest: Forest | None, *, alert_bits: float) -> Assessment:
    """Assess kept events; a threshold of evidence decides, never a fixed share.

    Parameters
    ----------
    result
        The folded history.
    forest
        The forest; with None, only statistics and patterns contribute evidence.
    alert_bits
        Minimum evidence of an alerted event.
    """
    rows, sampled = _merged(result.sample, result.alerts)
    bits = forest.bits(rows.features) if forest is not None and len(rows) else np.zeros(len(rows))
    evidence = verdict(rows.strength, bits)
    alerted = evidence >= alert_bits
    return Assessment(
        rows=rows,
        sampled=sampled,
        here=_of_this_run(result, rows),
        forest=bits,
        evidence=evidence,
        risk=risks(evidence),
        alerted=alerted,
        totals=Totals(
            events=sum(c.events for c in result.counts),
            alerted=sum(c.alerted for c in result.counts),
            sampled=int(sampled.sum()),
            sampled_alerted=int((sampled & alerted).sum()),
            forest_ranked=int((sampled & (evidence > rows.strength)).sum()),
        ),
    )


def _merged(sample: EventTable, alerts: EventTable) -> tuple[EventTable, NDArray[np.bool_]]:
    partition = np.concatenate([sample.partition, alerts.partition])
    offset = np.concatenate([sample.offset, alerts.offset])
    source = np.arange(len(offset))
    order = np.lexsort((source, offset, partition))
    partition, offset = partition[order], offset[order]
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(partition) != 0) | (np.diff(offset) != 0)
    selected = order[first]
    rows = EventTable(
        **{
            f.name: np.concatenate([getattr(sample, f.name), getattr(alerts, f.name)])[selected]
            for f in fields(EventTable)
        }
    )
    return rows, selected < len(sample)


def _of_this_run(result: FoldResult, rows: EventTable) -> NDArray[np.bool_]:
    numbers = np.array([c.partition for c in result.counts], np.int64)
    place = np.searchsorted(numbers, rows.partition)
    start = np.array([c.start for c in result.counts], np.int64)[place]
    end = np.array([c.end for c in result.counts], np.int64)[place]
    return np.asarray((rows.offset >= start) & (rows.offset < end), np.bool_)


def risks(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Risk of each evidence: float64 (n,)."""
    return np.array([risk(bits) for bits in evidence.tolist()], np.float64)
