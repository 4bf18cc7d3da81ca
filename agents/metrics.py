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
PROFILES_STORED = Gauge(
    "streamguard_profiles_stored", "Stored keys, estimated.", ["partition"], registry=REGISTRY
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
MODEL_LOADED = Gauge(
    "streamguard_model_loaded_timestamp_seconds",
    "When the forest in use was loaded, NaN while there is none; its age is time() minus this.",
    registry=REGISTRY,
)
MODEL_LOADED.set(math.nan)
MODEL_FAILURES = Counter(
    "streamguard_model_load_failures", "Forests that were refused; the old one stays.", registry=REGISTRY
)
READY = Gauge("streamguard_ready", "1 while /readyz answers 200.", registry=REGISTRY)
_BUILD = Gauge("streamguard_build_info", "1; the version is in the label.", ["version"], registry=REGISTRY)
_BUILD.labels(streamguard.__version__).set(1)


def forget_partition(partition: int) -> None:
    """Drop the gauges of a partition that another worker has now."""
    for gauge in (LAG, PROFILES_RESIDENT, PROFILES_STORED):
        gauge.remove_by_labels({"partition": str(partition)})
