"""Every Prometheus metric of a worker.

Labels have few values: partitions, severities, patterns, reasons, versions. None holds a user, an address or
anything else from an event.
"""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector

import streamguard

REGISTRY = CollectorRegistry()
"""The worker's own; not the global one, which belongs to whoever embeds this code."""
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_SECONDS = (
    0.001,
    0.002,
    0.004,
    0.006,
    0.008,
    0.012,
    0.016,
    0.024,
    0.04,
    0.064,
    0.1,
    0.25,
    1.0,
    4.0,
    30.0,
    300.0,
)

EVENTS = Counter("streamguard_events", "Events scored.", ["partition"], registry=REGISTRY)
LAG = Gauge(
    "streamguard_lag_records",
    "Offsets between the last scored event and the log's end.",
    ["partition"],
    registry=REGISTRY,
)
CHUNK_SECONDS = Histogram(
    "streamguard_chunk_seconds",
    "From a chunk of records to its verdicts handed to the publisher.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
SCORING_SECONDS = Histogram(
    "streamguard_scoring_seconds",
    "Decoding, folding and scoring one chunk.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
CHUNK_EVENTS = Histogram(
    "streamguard_chunk_events",
    "Events in a chunk.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
    registry=REGISTRY,
)
EVENT_TO_ALERT_SECONDS = Histogram(
    "streamguard_event_to_alert_seconds",
    "From an event's record time to the acknowledgement of its incident.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
ALERTS = Counter("streamguard_alerts", "Incidents published, new or risen.", ["severity"], registry=REGISTRY)
ALERT_PATTERNS = Counter(
    "streamguard_alert_patterns", "Patterns named in published incidents.", ["pattern"], registry=REGISTRY
)
DEAD_LETTERS = Counter(
    "streamguard_dead_letters", "Records that could not be scored.", ["reason"], registry=REGISTRY
)
PROFILES_RESIDENT = Gauge(
    "streamguard_profiles_resident", "Profiles in memory.", ["partition"], registry=REGISTRY
)
STORED_KEYS = Gauge(
    "streamguard_stored_keys",
    "Keys of a partition on disk, estimated: a profile each, and some 500 of the population.",
    ["partition"],
    registry=REGISTRY,
)
CHECKPOINT_SECONDS = Histogram(
    "streamguard_checkpoint_seconds",
    "Making one checkpoint durable.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
CHECKPOINT_RECORDS = Counter(
    "streamguard_checkpoint_records", "Changelog records written.", registry=REGISTRY
)
REBALANCES = Counter(
    "streamguard_rebalances", "Times the group took this worker's partitions.", registry=REGISTRY
)
PARTITIONS = Gauge("streamguard_partitions", "Partitions of this worker.", ["state"], registry=REGISTRY)
RECOVERY_SECONDS = Histogram(
    "streamguard_recovery_seconds",
    "From assignment to the first fetch of a partition.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
RECOVERED_RECORDS = Counter(
    "streamguard_recovered_records", "Changelog records read into local state.", registry=REGISTRY
)
MODEL_INFO = Gauge(
    "streamguard_model_info", "1 for the version of the forest in use.", ["version"], registry=REGISTRY
)
MODEL_POINTER = Gauge(
    "streamguard_model_pointer_info",
    "1 for the version that the registry's pointer names; another one than in use was refused.",
    ["version"],
    registry=REGISTRY,
)
MODEL_LOADED = Gauge(
    "streamguard_model_loaded_timestamp_seconds",
    "When the forest in use was loaded, NaN while there is none.",
    registry=REGISTRY,
)
MODEL_LOADED.set(math.nan)
MODEL_CREATED = Gauge(
    "streamguard_model_created_timestamp_seconds",
    "When the forest in use was trained, NaN if that is not known; its age is time() minus this.",
    registry=REGISTRY,
)
MODEL_CREATED.set(math.nan)
MODEL_LOADS = Counter("streamguard_model_loads", "Forests loaded, challengers included.", registry=REGISTRY)
MODEL_REFUSALS = Counter(
    "streamguard_model_refusals",
    "Forests, pointers and keys that were refused; the old forest stays. A lasting one counts once.",
    ["reason"],
    registry=REGISTRY,
)
for _reason in ("pointer", "unreadable", "untrusted", "unexpected"):
    MODEL_REFUSALS.labels(_reason)
MODEL_SWAP_PAUSE_SECONDS = Histogram(
    "streamguard_model_swap_pause_seconds",
    "How long chunks waited for the interpreter or a disk during one swap of the forest, in sum.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0),
    registry=REGISTRY,
)
MODEL_DISAGREEMENT = Gauge(
    "streamguard_model_disagreement",
    "Other workers that use another forest than this one.",
    registry=REGISTRY,
)
SHADOW_INFO = Gauge(
    "streamguard_shadow_info", "1 for the version of the challenger.", ["version"], registry=REGISTRY
)
SHADOW_EVENTS = Counter(
    "streamguard_shadow_events", "Events that the challenger scored too.", registry=REGISTRY
)
SHADOW_ALERTS = Counter(
    "streamguard_shadow_alerts",
    "Of these, those whose verdict reaches the alert threshold with the champion's, or the challenger's, bits.",
    ["role"],
    registry=REGISTRY,
)
SHADOW_FLAGS = Counter(
    "streamguard_shadow_flags",
    "Of these, those that reach the alert threshold by the champion's, or the challenger's, bits alone.",
    ["role"],
    registry=REGISTRY,
)
for _role in ("champion", "challenger"):
    SHADOW_ALERTS.labels(_role)
    SHADOW_FLAGS.labels(_role)
READY = Gauge("streamguard_ready", "1 while /readyz answers 200.", registry=REGISTRY)
_BUILD = Gauge("streamguard_build_info", "1; the version is in the label.", ["version"], registry=REGISTRY)
_BUILD.labels(streamguard.__version__).set(1)


def forget_partition(partition: int) -> None:
    """Drop the gauges of a partition that another worker has now."""
    for gauge in (LAG, PROFILES_RESIDENT, STORED_KEYS):
        gauge.remove_by_labels({"partition": str(partition)})


def name_version(info: Gauge, version: str | None) -> None:
    """Let an info gauge name this version and no other; None: no version at all."""
    if version is not None:
        info.labels(version).set(1)
    for (named,) in [sample.labels.values() for metric in info.collect() for sample in metric.samples]:
        if named != version:
            info.remove(named)
