"""Cost of metrics: the time of a scrape with 16 partitions, and the share of a partition's CPU that metrics take.

One run measures both with and without metrics: the worker's own code folds chunks with a forest of 300 trees, and for
every second block of chunks the methods of the client library do nothing. The share does not contain the gauges that
are set twice a second and the scrape, whose times are separate figures. It does not contain the worker's work for
Kafka either, which would make the share smaller.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from bench.figures import Figure
from bench.traffic import habits, learn, values
from streamguard import metrics
from streamguard.agents.consumer.chunk_consumer import export
from streamguard.agents.task.checkpoint import Checkpointer
from streamguard.agents.task.partition_task import Chunk, PartitionTask
from streamguard.models.forest import Forest
from streamguard.records.record import Record
from streamguard.settings.schema import Settings
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.partition import PartitionState

PARTITIONS = 16
SCRAPES_A_SECOND = 1 / 15
REPORTS_A_SECOND = 2
RATE = 50_000
BLOCK = 10
MANY, FEW = 1000, 6


def measure(*, quick: bool) -> list[Figure]:
    learned, backlog, trickle = (6_000, 20_000, 600) if quick else (30_000, 600_000, 12_000)
    events = values(habits(learned + backlog // 10, users=1000))
    _, forest = learn(events[:learned])
    share, each = _share(events[learned:], backlog, MANY, forest)
    few_share, few_each = _share(events[learned:], trickle, FEW, forest)
    scrape, series, export_seconds = _scrape(20 if quick else 200)
    steady = scrape * SCRAPES_A_SECOND + export_seconds * REPORTS_A_SECOND
    return [
        Figure(f"scrape at {PARTITIONS} partitions", scrape * 1e3, "ms", "<= 20"),
        Figure("series of a scrape", series, "", "<= 1500"),
        Figure("setting the gauges of 16 partitions, twice a second", export_seconds * 1e3, "ms"),
        Figure(f"metrics of a chunk of {FEW} events, as at 1,000 events/s", few_share * few_each * FEW * 1e6, "us"),
        Figure(f"share of CPU, chunks of {MANY:,} events", 100 * share, "%", "<= 3"),
        Figure(
            f"share of CPU at {RATE:,} events/s, with scrapes and gauges",
            100 * (share * each * RATE + steady) / (each * RATE + steady), "%", "<= 3",
        ),
    ]  # fmt: skip


def _share(events: list[bytes], count: int, size: int, forest: Forest) -> tuple[float, float]:
    """(share of the CPU that metrics take, CPU seconds per event), from the medians of alternating blocks."""
    partition = _partition(0)
    taken: dict[bool, list[float]] = {True: [], False: []}
    chunks = _chunks(partition, events, size)
    for k in range(max(4, count // size // BLOCK)):
        block = [next(chunks) for _ in range(BLOCK)]
        on = k % 2 == 0
        with nullcontext() if on else _off():
            begun = time.thread_time()
            _fold(partition, block, forest)
            taken[on].append((time.thread_time() - begun) / (BLOCK * size))
    on_cost, off_cost = (float(np.median(taken[kind][1:])) for kind in (True, False))
    return max(1e-9, 1 - off_cost / on_cost), on_cost


def _fold(partition: PartitionTask, chunks: list[Chunk], forest: Forest) -> None:
    for chunk in chunks:
        partition.fold(chunk, forest)
        if partition.state.full:
            partition.state.clean()


def _chunks(partition: PartitionTask, events: list[bytes], size: int) -> Iterator[Chunk]:
    made = 0
    while True:
        now = int(time.time() * 1000)
        records = [
            Record("events", 0, i, now, None, events[i % len(events)], append_ms=now)
            for i in range(made, made + size)
        ]
        made += size
        yield from partition.cut(records, made, size)


@contextmanager
def _off() -> Iterator[None]:
    """Let the methods of the client library do nothing."""

    def nothing(*_: object, **__: object) -> None:
        return None

    with (
        mock.patch.object(Counter, "inc", nothing),
        mock.patch.object(Gauge, "set", nothing),
        mock.patch.object(Histogram, "observe", nothing),
        mock.patch.object(Histogram, "time", lambda _: nullcontext()),
    ):
        yield


def _partition(number: int) -> PartitionTask:
    """A partition with an empty state store, which publishes nothing."""
    store: Any = SimpleNamespace(
        get_many=lambda keys: [None] * len(keys), estimated_keys=1000, disk_bytes=1_000_000
    )
    silent: Any = SimpleNamespace(publish=lambda *_: None)
    writer: Any = None
    watch: Any = None
    identity = StateIdentity("streamguard", number, TopicIdentity("security-events", "id"), "id")
    checkpointer = Checkpointer(store, writer, identity, watch)
    settings = Settings()
    state = PartitionState(number, checkpointer.read, resident=4096, detection=settings.detection)

    async def made() -> PartitionTask:
        return PartitionTask(settings, silent, checkpointer, state, 0)

    return asyncio.run(made())


def _scrape(times: int) -> tuple[float, float, float]:
    """(median seconds of a scrape, its number of series, median seconds to set the gauges), with every series set."""
    partitions = [_partition(number) for number in range(PARTITIONS)]
    for partition in partitions:
        partition.checkpointed_offset = 0
        metrics.EVENTS.labels(partition.number)
        metrics.PARTITION_OWNED.labels(partition.number).set(1)
        metrics.LAG.labels(partition.number).set(7)
        metrics.LAG_SECONDS.labels(partition.number).set_function(partition.lag.seconds)
        metrics.COMMITTED_OFFSET.labels(partition.number).set(1)
    for info in (metrics.MODEL_INFO, metrics.MODEL_POINTER, metrics.SHADOW_INFO):
        metrics.name_version(info, "0123456789ab")

    def gauges() -> None:
        for partition in partitions:
            export(partition)

    set_seconds = _median(gauges, times)
    seconds = _median(lambda: metrics.exposition(metrics.WORKER), times)
    found = text_string_to_metric_families(metrics.exposition(metrics.WORKER).decode())
    series = sum(len(family.samples) for family in found)
    for partition in partitions:
        metrics.forget_partition(partition.number)
    return seconds, float(series), set_seconds


def _median(run: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))
