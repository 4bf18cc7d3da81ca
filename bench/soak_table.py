"""Evaluates the samples of a long run: growth of memory, change of latency, alerts by scenario."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from tests.harness import WorkerProcess

MATTERS = 0.02
"""Share of the worker's memory. Growth of more than this over the run after the warm-up is a failure."""

WARM_UP = 0.25
"""Share of the run after which the size of the memory should be constant."""
_BUCKET = re.compile(r'^streamguard_event_to_verdict_seconds_bucket\{le="([^"]+)"\}$')


@dataclass(frozen=True)
class Sample:
    """One worker at one moment.

    Attributes
    ----------
    share
        Share of the run that is over.
    seconds
        Seconds since the run began.
    worker, process
        Name of the worker and id of its process.
    resident, rocksdb
        Resident memory, and the part of it that RocksDB's cache and unflushed writes take, in bytes. Settings limit
        the latter.
    chunks
        Upper bound of the seconds from record to verdict -> number of chunks so far within this bound.
    """

    share: float
    seconds: float
    worker: str
    process: int
    resident: float
    rocksdb: float
    chunks: dict[float, float]


def samples(share: float, seconds: float, workers: Mapping[str, WorkerProcess]) -> list[Sample]:
    """Take a sample of every worker that answers."""
    taken = []
    for name, worker in workers.items():
        metrics = worker.metrics() if worker.alive else {}
        if "process_resident_memory_bytes" not in metrics:
            continue
        chunks = {
            float(found[1]): value
            for key, value in metrics.items()
            if (found := _BUCKET.match(key)) is not None
        }
        resident = metrics["process_resident_memory_bytes"]
        rocksdb = metrics["streamguard_block_cache_bytes"] + metrics["streamguard_unflushed_bytes"]
        taken.append(Sample(share, seconds, name, worker.process.pid, resident, rocksdb, chunks))
    return taken


def slope(taken: Sequence[Sample], period: float) -> tuple[float, float]:
    """Least-squares slope of a worker's memory after the warm-up, in MiB an hour, and its standard error.

    Parameters
    ----------
    taken
        Samples of one worker.
    period
        Seconds after which the actions of the run repeat. The line is fitted to the means of whole periods.

    Examples
    --------
    >>> def at(minute, resident): return Sample(1.0, 60.0 * minute, "a", 1, resident * 2**20, 0.0, {})
    >>> slope([at(0, 10), at(1, 11), at(2, 12), at(3, 13)], 60.0)
    (60.0, 0.0)
    """
    by_period: dict[int, list[float]] = defaultdict(list)
    for sample in taken:
        by_period[int(sample.seconds // period)].append(sample.resident / 2**20)
    warm = _warm(by_period, period)
    if len(warm) < 3:
        return float("nan"), float("nan")
    x = np.array(warm) * period / 3600.0
    y = np.array([np.mean(by_period[k]) for k in warm])
    x -= x.mean()
    gradient = float(x @ y / (x @ x))
    rest = y - y.mean() - gradient * x
    error = float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))
    return round(gradient, 3), round(error, 3)


def _warm(periods: Iterable[int], period: float) -> list[int]:
    """The periods after the warm-up."""
    known = sorted(periods)
    return [k for k in known if k * period >= WARM_UP * (known[-1] + 1) * period]


def quantiles(taken: Sequence[Sample], low: float, high: float, q: float) -> list[float]:
    """Quantile `q` of the seconds from record to verdict, for each interval between two samples of a part of the run.

    Parameters
    ----------
    low, high
        The part of the run, as shares.
    """
    found = []
    by_process: dict[int, list[Sample]] = defaultdict(list)
    for sample in taken:
        if low <= sample.share < high:
            by_process[sample.process].append(sample)
    for run in by_process.values():
        for before, after in pairwise(run):
            bounds = sorted(after.chunks)
            counts = np.array([after.chunks[bound] - before.chunks.get(bound, 0.0) for bound in bounds])
            if counts[-1] > 0:
                found.append(bounds[int(np.searchsorted(counts, q * counts[-1]))])
    return found


def _by_tenths(taken: Sequence[Sample], sizes: Sequence[float]) -> str:
    tenths: dict[int, list[float]] = defaultdict(list)
    for sample, size in zip(taken, sizes, strict=True):
        tenths[int(10 * sample.share)].append(size / 2**20)
    return ", ".join(f"{np.mean(found):.0f}" for _, found in sorted(tenths.items()))


@dataclass
class Labels:
    """Labels of the events that were sent; only the closing table uses them.

    Attributes
    ----------
    sent, live
        Number of events in all, and since live traffic began.
    live_ms
        Time at which live traffic began, in epoch milliseconds.
    campaign
        Event id -> campaign, for events of attacks.
    scenario
        Campaign -> scenario.
    """

    sent: int = 0
    live: int = 0
    live_ms: int = 0
    campaign: dict[str, str] = field(default_factory=dict)
    scenario: dict[str, str] = field(default_factory=dict)


@dataclass
class Table:
    """The closing table of a run.

    Parameters
    ----------
    taken
        Samples of all workers.
    labels
        Labels of the events that were sent.
    incidents
        (id, body) of each record of the alerts topic.
    period
        Seconds after which the actions of the run repeat.
    """

    taken: Sequence[Sample]
    labels: Labels
    incidents: Sequence[tuple[str, dict[str, Any]]]
    period: float

    @property
    def stayed(self) -> list[Sample]:
        """Samples of the worker that ran all the time."""
        return [sample for sample in self.taken if sample.worker == "a"]

    @property
    def grows(self) -> bool:
        """Whether the memory of that worker grew after the warm-up, significantly (t-test, 99 %) and by `MATTERS`."""
        gradient, error = slope(self.stayed, self.period)
        warm = [sample for sample in self.stayed if sample.share >= WARM_UP]
        hours = (warm[-1].seconds - warm[0].seconds) / 3600.0
        resident = float(np.mean([sample.resident for sample in warm])) / 2**20
        freedom = max(len(_warm({int(s.seconds // self.period) for s in self.stayed}, self.period)) - 2, 1)
        return gradient > stats.t.ppf(0.99, freedom) * error and gradient * hours > MATTERS * resident

    def text(self, in_topic: int, done: Mapping[str, int]) -> str:
        """The table as text.

        Parameters
        ----------
        in_topic
            Number of events in the topic.
        done
            What was done in the run -> how often.
        """
        rows = [
            ("events sent", f"{self.labels.sent:,}, {self.labels.live:,} of them live"),
            ("events in the topic", f"{in_topic:,}"),
            *((what, f"{count:,}") for what, count in sorted(done.items())),
            *self._memory(),
            *self._latency(),
            *self._found(),
        ]
        width = max(len(what) for what, _ in rows)
        return "\n".join(f"  {what:<{width}}  {value}" for what, value in rows)

    def _memory(self) -> list[tuple[str, str]]:
        stayed = self.stayed
        gradient, error = slope(stayed, self.period)
        resident, rocksdb = (
            _by_tenths(stayed, [getattr(sample, what) for sample in stayed])
            for what in ("resident", "rocksdb")
        )
        return [
            ("memory of the worker that ran all the time, MiB by tenths of the run", resident),
            ("RocksDB's cache and unflushed writes, as part of it", rocksdb),
            (
                "slope of the memory after a quarter of the run",
                "unknown, because the run is too short"
                if np.isnan(gradient)
                else f"{gradient:+.1f} MiB an hour, standard error {error:.1f}",
            ),
        ]

    def _latency(self) -> list[tuple[str, str]]:
        rows = []
        for label, low, high in (("first", 0.0, 0.25), ("last", 0.75, 1.01)):
            p50, p99 = (quantiles(self.taken, low, high, q) for q in (0.5, 0.99))
            if p50:
                rows.append(
                    (
                        f"record to verdict, {label} quarter, median of the intervals",
                        f"p50 <= {np.median(p50) * 1000:g} ms, p99 <= {np.median(p99) * 1000:g} ms",
                    )
                )
        return rows

    def _found(self) -> list[tuple[str, str]]:
        published: dict[str, set[str]] = defaultdict(set)
        models: set[str] = set()
        for name, body in self.incidents:
            if body["event"]["timestamp"] < self.labels.live_ms:
                continue
            published[name].add(str(body["event"]["event_id"]))
            if version := (body["model"] or {}).get("version"):
                models.add(version)
        attacks = {
            name: {self.labels.campaign[event] for event in events if event in self.labels.campaign}
            for name, events in published.items()
        }
        scenario = self.labels.scenario
        injected = Counter(scenario.values())
        caught = Counter(scenario[campaign] for campaign in set().union(*attacks.values()))
        incidents = Counter(name for found in attacks.values() for name in {scenario[c] for c in found})
        return [
            ("models in incidents", f"{len(models)}"),
            (
                "incidents",
                f"{len(published):,}, {sum(not found for found in attacks.values()):,} of them without an attack",
            ),
            *(
                (f"{name}: campaigns caught, incidents", f"{caught[name]} of {count}, {incidents[name]}")
                for name, count in sorted(injected.items())
            ),
        ]
