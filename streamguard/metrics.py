"""Every Prometheus metric of StreamGuard, worker and retrain, declared here and nowhere else.

Labels have few values: partitions, severities, patterns, reasons, versions. None holds a user, an address or anything
else from an event. docs/metrics.md is made from `DECLARED`: `python -m tests.unit.test_metrics`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from streamguard import __version__
from streamguard.alerts.verdict import SEVERITIES
from streamguard.events.event import REASONS
from streamguard.fold.grouping import ENTITY_KINDS
from streamguard.fold.patterns import PATTERNS

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

WORKER = CollectorRegistry()
"""A worker's; not the library's global one, which belongs to whoever embeds this code."""
RETRAIN = CollectorRegistry()
"""A retrain's."""
PROCESS = CollectorRegistry()
"""Memory, CPU and garbage collection: served by either, but never written to a file that is read beside others."""
ProcessCollector(registry=PROCESS)
GCCollector(registry=PROCESS)

Labels = Mapping[str, tuple[str, ...]]
"""Each label's values; none where they are not known in advance."""


class Declared(NamedTuple):
    """What there is to know about a metric."""

    name: str
    """As it is scraped; of a histogram, without `_bucket`, `_sum` and `_count`."""
    kind: str
    """`counter`, `gauge`, `histogram`, or `info`: a gauge that is 1 and speaks through its labels."""
    unit: str
    labels: Labels
    help: str
    registry: CollectorRegistry
    metric: MetricWrapperBase


DECLARED: list[Declared] = []

_M = TypeVar("_M", bound=MetricWrapperBase)
_NONE: Labels = {}
_PARTITION: Labels = {"partition": ()}
_VERSION: Labels = {"version": ()}
_FINE = (
    0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.04, 0.064, 0.1, 0.25, 1.0, 4.0, 30.0, 300.0
)  # fmt: skip
_COARSE = (0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 30.0)
_PAUSES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def _declared(
    kind: type[_M], name: str, unit: str, labels: Labels, text: str, registry: CollectorRegistry, **more: Any
) -> _M:
    """Make it, and each of its series that is known in advance: an increase from nothing to 1 is seen by nobody."""
    metric = kind(name, text, list(labels), registry=registry, **more)
    described = "info" if name.endswith("_info") else kind.__name__.lower()
    DECLARED.append(Declared(name, described, unit, labels, text, registry, metric))
    if labels and all(labels.values()):
        for values in product(*labels.values()):
            metric.labels(*values)
    return metric


def _counter(
    name: str, unit: str, text: str, labels: Labels = _NONE, registry: CollectorRegistry = WORKER
) -> Counter:
    return _declared(Counter, name, unit, labels, text, registry)


def _gauge(
    name: str, unit: str, text: str, labels: Labels = _NONE, registry: CollectorRegistry = WORKER
) -> Gauge:
    """Of a gauge without labels the value is NaN until it is known."""
    gauge = _declared(Gauge, name, unit, labels, text, registry)
    if not labels:
        gauge.set(math.nan)
    return gauge


def _histogram(
    name: str,
    text: str,
    labels: Labels = _NONE,
    buckets: tuple[float, ...] = _FINE,
    unit: str = "seconds",
) -> Histogram:
    return _declared(Histogram, name, unit, labels, text, WORKER, buckets=buckets)


def _retrain(name: str, unit: str, text: str, labels: Labels = _NONE) -> Gauge:
    return _gauge(f"streamguard_retrain_{name}", unit, text, labels, RETRAIN)


def as_markdown() -> str:
    """The tables of docs/metrics.md."""
    out = []
    for title, registry in (("The worker", WORKER), ("The retrain", RETRAIN)):
        out += [f"## {title}", "", "| name | type | unit | labels | meaning |", "|---|---|---|---|---|"]
        for metric in DECLARED:
            if metric.registry is registry:
                labels = "; ".join(
                    f"`{label}`" + (f": {', '.join(values)}" if values else "")
                    for label, values in metric.labels.items()
                )
                out.append(f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} |")
        out.append("")
    return "\n".join(out)


# The worker: what it does with events

EVENTS = _counter("streamguard_events_total", "events", "Events scored.", _PARTITION)
ALERTED_EVENTS = _counter(
    "streamguard_alerted_events_total",
    "events",
    "Of these, those that belong to an incident, told or not; one in a thousand unless set otherwise.",
    _PARTITION,
)
ALERTS = _counter(
    "streamguard_alerts_total",
    "incidents",
    "Incidents published, new or risen.",
    {"severity": SEVERITIES, "entity": ENTITY_KINDS[1:]},
)
ALERT_PATTERNS = _counter(
    "streamguard_alert_patterns_total",
    "patterns",
    "Patterns named in published incidents.",
    {"pattern": tuple(pattern.name for pattern in PATTERNS)},
)
DEAD_LETTERS = _counter(
    "streamguard_dead_letters_total",
    "records",
    "Records that could not be scored.",
    {"reason": tuple(REASONS)},
)
EVENT_TO_ALERT_SECONDS = _histogram(
    "streamguard_event_to_alert_seconds",
    "From an event's record time to the acknowledgement of its incident.",
)
EVENT_TO_VERDICT_SECONDS = _histogram(
    "streamguard_event_to_verdict_seconds",
    "From the record time of a chunk's first event to its verdict, flagged or not: one observation a chunk.",
)

# The worker: how far it is

LAG = _gauge(
    "streamguard_lag_records",
    "records",
    "Offsets between the last scored event and the log's end.",
    _PARTITION,
)
LAG_SECONDS = _gauge(
    "streamguard_lag_seconds",
    "seconds",
    "Age of the oldest record that waits, by its record time, or, if it was not fetched yet, since it was seen to "
    "wait; 0 when none waits. Computed when it is asked for: it grows while the worker hangs.",
    _PARTITION,
)
PROCESSED_OFFSET = _gauge(
    "streamguard_processed_offset", "offset", "First source offset that is not folded.", _PARTITION
)
CHECKPOINTED_OFFSET = _gauge(
    "streamguard_checkpointed_offset",
    "offset",
    "First source offset that is not in the last durable checkpoint: where a restart would go on.",
    _PARTITION,
)
COMMITTED_OFFSET = _gauge(
    "streamguard_committed_offset",
    "offset",
    "The group's offset as this worker committed it, for those who watch the group.",
    _PARTITION,
)

# The worker: what a chunk takes

FETCH_SECONDS = _histogram(
    "streamguard_fetch_seconds",
    "Waiting for one fetch, until events are there or 0.2 s are over: long when there is nothing to do.",
)
CHUNK_SECONDS = _histogram(
    "streamguard_chunk_seconds", "From a chunk of records to its verdicts handed to the publisher."
)
SCORING_SECONDS = _histogram("streamguard_scoring_seconds", "Decoding, folding and scoring one chunk.")
CHUNK_EVENTS = _histogram("streamguard_chunk_events", "Records in a chunk.", buckets=_EVENTS, unit="records")
LOOP_DELAY_SECONDS = _histogram(
    "streamguard_event_loop_delay_seconds",
    "How much later than asked for the main thread's event loop woke up, twice a second.",
)

# The worker: its state

PROFILE_LOOKUPS = _counter(
    "streamguard_profile_lookups_total",
    "events",
    "Events, by where their user's profile was: in the arena in memory, in RocksDB, or nowhere yet.",
    {"found": ("memory", "disk", "nowhere")},
)
PROFILES_RESIDENT = _gauge("streamguard_profiles_resident", "profiles", "Profiles in memory.", _PARTITION)
STORED_KEYS = _gauge(
    "streamguard_stored_keys",
    "keys",
    "Keys of a partition on disk, estimated: a profile each, and some 500 of the population.",
    _PARTITION,
)
STORED_BYTES = _gauge(
    "streamguard_stored_bytes", "bytes", "Size of a partition's RocksDB files on disk.", _PARTITION
)
BLOCK_CACHE_BYTES = _gauge(
    "streamguard_block_cache_bytes", "bytes", "In use of the block cache that all partitions share."
)
UNFLUSHED_BYTES = _gauge(
    "streamguard_unflushed_bytes", "bytes", "Written to RocksDB and still in memory, of all partitions."
)
DATA_FREE_BYTES = _gauge(
    "streamguard_data_free_bytes", "bytes", "Free for this user where worker.data_dir is."
)
DATA_SIZE_BYTES = _gauge(
    "streamguard_data_size_bytes", "bytes", "Size of the file system that worker.data_dir is on."
)
CHECKPOINT_SECONDS = _histogram("streamguard_checkpoint_seconds", "Making one checkpoint durable.")
CHECKPOINT_STAGE_SECONDS = _histogram(
    "streamguard_checkpoint_stage_seconds",
    "Of this, by stage: the snapshot, which no chunk is folded beside; incidents acknowledged; the transaction in "
    "Kafka; the write to RocksDB.",
    {"stage": ("snapshot", "incidents", "transaction", "table")},
    buckets=_COARSE,
)
CHECKPOINT_RECORDS = _counter("streamguard_checkpoint_records_total", "records", "Changelog records written.")

# The worker: its place in the group

REBALANCES = _counter(
    "streamguard_rebalances_total", "rebalances", "Times the group took this worker's partitions."
)
REBALANCE_SECONDS = _histogram(
    "streamguard_rebalance_seconds",
    "From when the group took this worker's partitions until each it has now was ready.",
)
PARTITIONS = _gauge(
    "streamguard_partitions",
    "partitions",
    "Partitions of this worker.",
    {"state": ("recovering", "ready")},
)
PARTITION_OWNED = _gauge(
    "streamguard_partition_owned",
    "",
    "1 while the group has given the partition to this worker, recovered or not yet.",
    _PARTITION,
)
RECOVERY_SECONDS = _histogram(
    "streamguard_recovery_seconds", "From assignment to the first fetch of a partition."
)
RECOVERED_RECORDS = _counter(
    "streamguard_recovered_records_total", "records", "Changelog records read into local state."
)

# The worker: its model

MODEL_INFO = _gauge("streamguard_model_info", "", "1 for the version of the forest in use.", _VERSION)
MODEL_POINTER = _gauge(
    "streamguard_model_pointer_info",
    "",
    "1 for the version that the registry's pointer names; another one than in use was refused.",
    _VERSION,
)
MODEL_LOADED = _gauge(
    "streamguard_model_loaded_timestamp_seconds",
    "seconds",
    "When the forest in use was loaded, NaN while there is none.",
)
MODEL_PUBLISHED = _gauge(
    "streamguard_model_published_timestamp_seconds",
    "seconds",
    "When the forest in use was published, NaN while there is none; its age is time() minus this.",
)
MODEL_LOADS = _counter("streamguard_model_loads_total", "forests", "Forests loaded, challengers included.")
MODEL_REFUSALS = _counter(
    "streamguard_model_refusals_total",
    "refusals",
    "Times that a forest, a pointer or a key was refused, each further try included; the old forest stays.",
    {"reason": ("pointer", "unreadable", "untrusted", "unexpected")},
)
MODEL_SWAP_PAUSE_SECONDS = _histogram(
    "streamguard_model_swap_pause_seconds",
    "How long chunks waited for the interpreter or a disk during one swap of the forest, in sum.",
    buckets=_PAUSES,
)
MODEL_DISAGREEMENT = _gauge(
    "streamguard_model_disagreement",
    "workers",
    "Other workers that use another forest than this one.",
)
MODEL_DISAGREEMENT.set(0)
SHADOW_INFO = _gauge("streamguard_shadow_info", "", "1 for the version of the challenger.", _VERSION)
SHADOW_EVENTS = _counter(
    "streamguard_shadow_events_total", "events", "Events that the challenger scored too."
)
SHADOW_ALERTS = _counter(
    "streamguard_shadow_alerts_total",
    "events",
    "Of these, those whose verdict reaches the alert threshold with the champion's, or the challenger's, bits.",
    {"role": ("champion", "challenger")},
)
SHADOW_FOREST_ALERTS = _counter(
    "streamguard_shadow_forest_alerts_total",
    "events",
    "Of these, those that reach the alert threshold by the champion's, or the challenger's, bits alone.",
    {"role": ("champion", "challenger")},
)
READY = _gauge("streamguard_ready", "", "1 while /readyz answers 200.")

# The retrain: its last run, NaN until one has come so far

RETRAIN_RUNS = _counter(
    "streamguard_retrain_runs_total",
    "runs",
    "Runs: their forest is current now, was not promoted, or the run failed.",
    {"result": ("current", "not_promoted", "failed")},
    RETRAIN,
)
RETRAIN_RUNNING = _retrain("running", "", "1 while a run is under way.")
RETRAIN_INTERVAL = _retrain(
    "interval_seconds",
    "seconds",
    "From start to start of runs; of single ones what `batch.expected_seconds` says, 0 if it says nothing.",
)
RETRAIN_SINCE = _retrain(
    "since_timestamp_seconds", "seconds", "When the first run began that these figures know of."
)
RETRAIN_START = _retrain("last_start_timestamp_seconds", "seconds", "When the last run began.")
RETRAIN_END = _retrain("last_end_timestamp_seconds", "seconds", "When the last run ended, well or not.")
RETRAIN_SUCCESS_TIME = _retrain(
    "last_success_timestamp_seconds", "seconds", "When the last run that did not fail ended."
)
RETRAIN_SUCCESS = _retrain("success", "", "Whether the last run ended without a failure, 1 or 0.")
RETRAIN_DURATION = _retrain("duration_seconds", "seconds", "How long the last run took.")
RETRAIN_STEPS = _retrain(
    "step_duration_seconds",
    "seconds",
    "How long each step of it took.",
    {"step": ("plan", "fold", "select", "train", "publish")},
)
RETRAIN_RECORDS = _retrain("records", "records", "Records in its history.")
RETRAIN_EVENTS = _retrain("events", "events", "Events folded in its history.")
RETRAIN_REFUSED = _retrain("refused_records", "records", "Records in its history that could not be scored.")
RETRAIN_ALERTED = _retrain("alerted_events", "events", "Events in its history that were flagged.")
RETRAIN_USERS = _retrain("users", "users", "Users in its history.")
RETRAIN_USERS_AT_RISK = _retrain("users_at_risk", "users", "Users that it flags.")
RETRAIN_ROWS = _retrain("training_rows", "rows", "Events that the forest was trained on.")
RETRAIN_TRIMMED = _retrain(
    "trimmed_ratio", "ratio", "Share of its sample left out of training as possible attacks."
)
RETRAIN_DRIFT = _retrain(
    "drift_psi",
    "index",
    "Population stability index of the feature that moved most among training rows since the run that it goes on from.",
)
RETRAIN_GATE = _retrain("gate_passed", "", "Whether its forest passed the gate, 1 or 0.")
RETRAIN_PROMOTED = _retrain("champion_promoted", "", "Whether its forest became current, 1 or 0.")
RETRAIN_MODEL_PUBLISHED = _retrain(
    "model_published_timestamp_seconds",
    "seconds",
    "When the registry's current forest was published.",
)

for _registry in (WORKER, RETRAIN):
    _build = _declared(
        Gauge,
        "streamguard_build_info",
        "",
        {"version": (), "python": ()},
        "1; what runs is in the labels.",
        _registry,
    )
    _build.labels(__version__, platform.python_version()).set(1)


def exposition(registry: CollectorRegistry) -> bytes:
    """What a scrape of a worker or a retrain gets: its metrics and its process's, in Prometheus's text format."""
    return prometheus_client.generate_latest(registry) + prometheus_client.generate_latest(PROCESS)


def forget_partition(partition: int) -> None:
    """Drop the gauges of a partition that another worker has now."""
    for gauge in (
        LAG, LAG_SECONDS, PROCESSED_OFFSET, CHECKPOINTED_OFFSET, COMMITTED_OFFSET,
        PROFILES_RESIDENT, STORED_KEYS, STORED_BYTES, PARTITION_OWNED,
    ):  # fmt: skip
        gauge.remove_by_labels({"partition": str(partition)})


def name_version(info: Gauge, version: str | None) -> None:
    """Let an info gauge name this version and no other; None: no version at all."""
    if version is not None:
        info.labels(version).set(1)
    for (named,) in [sample.labels.values() for metric in info.collect() for sample in metric.samples]:
        if named != version:
            info.remove(named)
