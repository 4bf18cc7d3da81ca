"""Memory of a worker during a flood of unknown users and addresses, compared with the bound that settings give."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np

from bench.figures import Figure
from bench.traffic import Invented
from bench.worker import RESIDENT, RunningWorker, running, settings
from streamguard.fold.dimensions import TEXT_CHARACTERS
from streamguard.fold.population import ROWS, SOURCE_RECORD, SOURCES, WIDTH
from streamguard.fold.profile import PROFILE
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.settings.schema import Settings
from streamguard.state.dictionary import SIZE as DICTIONARY
from streamguard.testing.broker import LocalKafka

MB = 1 << 20
PROFILES = 20_000


def bound(chosen: Settings) -> float:
    """Bytes that the settings allow in addition to the memory of a worker that has just started.

    A profile takes its layout, its name and its places in the index. A checkpoint holds the changed profiles, at
    most half of them, four times for a moment: as values, as changelog records, and in two batches. A partition
    takes its arrays and a full dictionary. Prefetched records and unused memory of the heap get 64 MB.
    """
    worker, partitions = chosen.worker, chosen.kafka.partitions
    resident = worker.resident_profiles
    profiles = resident * (PROFILE.itemsize + 300) + resident / 2 * 4 * PROFILE.itemsize
    tables = partitions * (
        8 * ROWS * WIDTH + SOURCES * SOURCE_RECORD.itemsize + DICTIONARY * (TEXT_CHARACTERS + 100)
    )
    return profiles + tables + (worker.block_cache_mb + 64) * MB


def measure(*, quick: bool) -> list[Figure]:
    events, step = (20_000, 10_000) if quick else (1_000_000, 100_000)
    random = np.random.default_rng(0)
    users = random.permutation(events).tolist()
    addresses = random.integers(0, 1 << 24, events).tolist()
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as directory, LocalKafka() as kafka:
        chosen = settings(kafka.bootstrap_servers, Path(directory), resident_profiles=PROFILES)
        with running(chosen) as worker:
            worker.until_ready()
            start = worker.metrics()[RESIDENT]
            with EventProducer(Brokers(kafka.bootstrap_servers), chosen.kafka.events_topic) as producer:
                made = Invented().events(users, addresses)
                series = [(0, start)]
                for reached in range(step, events + 1, step):
                    producer.send(islice(made, step))
                    series.append((reached, _peak(worker, reached)))
            worker.until_saved(chosen.worker.checkpoint_seconds)
            end = worker.metrics()[RESIDENT]
    figures = [
        Figure(f"resident after {count:,} events" if count else "resident at start", size / MB, "MB")
        for count, size in series
    ]
    limit = round((start + bound(chosen)) / MB)
    peak = max(size for _, size in series)
    return [
        *figures,
        Figure("resident at the end", end / MB, "MB"),
        Figure("peak; the limit is the start plus the bound of the settings", peak / MB, "MB", f"<= {limit}"),
    ]


def _peak(worker: RunningWorker, count: int) -> float:
    """Maximum of the samples of the resident memory until this many events are folded."""
    peak = 0.0

    def watched(metrics: dict[str, float]) -> bool:
        nonlocal peak
        peak = max(peak, metrics[RESIDENT])
        return metrics.get("streamguard_events_total", 0.0) >= count

    worker.until(f"has folded {count:,} events", watched)
    return peak
