"""Declares every Prometheus metric of the worker, of the campaigns process, of the retrain and of the server.

Labels have few values: partitions, severities, patterns, reasons, versions. No label contains a user, an address or
any other value from an event. `python -m tests.unit.test_metrics` generates docs/metrics.md from `DECLARED`.
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
from streamguard.events.decision import Kind
from streamguard.events.event import REASONS
from streamguard.events.indicators import NOT_UNDERSTOOD
from streamguard.events.lenient import REPAIRS
from streamguard.fold.decisions import Outcome
from streamguard.fold.grouping import ENTITY_KINDS
from streamguard.fold.patterns import PATTERNS
from streamguard.risk import SEVERITIES

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

WORKER = CollectorRegistry()
"""Metrics of a worker. The library's global registry is left to the application that embeds this code."""
RETRAIN = CollectorRegistry()
"""Metrics of a retrain."""
CAMPAIGNS = CollectorRegistry()
"""Metrics of the campaigns process."""
SERVE = CollectorRegistry()
"""Metrics of the server."""
PROCESS = CollectorRegistry()
"""Memory, CPU and garbage collection: every process serves them. They are never written to `batch.metrics_file`,
because the node exporter that reads the file exports metrics of the same names."""
ProcessCollector(registry=PROCESS)
GCCollector(registry=PROCESS)

Labels = Mapping[str, tuple[str, ...]]
"""Values of each label; an empty tuple if they are not known in advance."""


class Declared(NamedTuple):
    """Description of one metric."""

    name: str
    """Name as it is scraped; for a histogram, without `_bucket`, `_sum` and `_count`."""
    kind: str
    """`counter`, `gauge`, `histogram`, or `info`: a gauge with the value 1, whose labels carry the information."""
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
_ROUNDS = (0.004, 0.016, 0.064, 0.25, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 300.0)
_PAUSES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
_REQUESTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def _declared(
    kind: type[_M], name: str, unit: str, labels: Labels, text: str, registry: CollectorRegistry, **more: Any
) -> _M:
    """Create a metric, and each series that is known in advance: `increase()` misses the first sample of a series."""
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
    """Declare a gauge. Without labels, its value is NaN until it is known."""
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
    registry: CollectorRegistry = WORKER,
) -> Histogram:
    return _declared(Histogram, name, unit, labels, text, registry, buckets=buckets)


def _retrain(name: str, unit: str, text: str, labels: Labels = _NONE) -> Gauge:
    return _gauge(f"streamguard_retrain_{name}", unit, text, labels, RETRAIN)


def as_markdown() -> str:
    """Tables of docs/metrics.md."""
    out = []
    for title, registry in (
        ("The worker", WORKER),
        ("The campaigns process", CAMPAIGNS),
        ("The retrain", RETRAIN),
        ("The server", SERVE),
    ):
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


# The worker: events and incidents

EVENTS = _counter("streamguard_events_total", "events", "Events scored.", _PARTITION)
ALERTED_EVENTS = _counter(
    "streamguard_alerted_events_total",
    "events",
    "Events above the alert threshold, whether or not their incident was published; one in a thousand by default.",
    _PARTITION,
)
CLAMPED_EVENTS = _counter(
    "streamguard_clamped_events_total",
    "events",
    "Events dated more than 10 minutes later than Kafka appended their records; they are scored at the latest time "
    "that is possible. Many of them mean that a sender's clock is wrong, or that somebody forges times.",
    _PARTITION,
)
PUBLISHED_INCIDENTS = _counter(
    "streamguard_published_incidents_total",
    "incidents",
    "Incidents published: new ones, and updates of open ones.",
    {"severity": SEVERITIES, "entity": ENTITY_KINDS[1:]},
)
INCIDENT_PATTERNS = _counter(
    "streamguard_incident_patterns_total",
    "patterns",
    "Patterns in published incidents.",
    {"pattern": tuple(pattern.name for pattern in PATTERNS)},
)
DEAD_LETTERS = _counter(
    "streamguard_dead_letters_total",
    "records",
    "Records that could not be scored and went to the dead-letter topic.",
    {"reason": tuple(REASONS)},
)
SUMMARISED = _counter(
    "streamguard_summarised_records_total",
    "records",
    "Records that could not be scored and are only listed in a summary in the dead-letter topic, without content, "
    "because there were many.",
    {"reason": tuple(REASONS)},
)
DECISIONS = _counter(
    "streamguard_decisions_total",
    "records",
    "Decisions of people that were read from the events topic, by what became of them: applied, repeated, of an "
    "unknown id, or refused because the partition is full. Decisions without a valid signature are dead letters.",
    {
        "decision": tuple(kind.name.lower() for kind in Kind),
        "outcome": tuple(outcome.name.lower() for outcome in Outcome),
    },
)
REPAIRED_EVENTS = _counter(
    "streamguard_repaired_events_total",
    "events",
    "Events of which a part was repaired before they were scored; an event with several repairs counts for each.",
    {"repair": tuple(REPAIRS)},
)
NOT_UNDERSTOOD_EVENTS = _counter(
    "streamguard_not_understood_events_total",
    "events",
    "Events of which a status, source address or location was given, but is not understood: it counts as neither "
    "success nor failure, as a name, or as a place without a country.",
    {"field": tuple(NOT_UNDERSTOOD)},
)
EVENT_TO_ALERT_SECONDS = _histogram(
    "streamguard_event_to_alert_seconds",
    "Time from an event's record time to the acknowledgement of its incident.",
)
EVENT_TO_VERDICT_SECONDS = _histogram(
    "streamguard_event_to_verdict_seconds",
    "Time from the record time of a chunk's first event to its verdict, alerted or not; one observation per chunk.",
)

# The worker: progress

LAG = _gauge(
    "streamguard_lag_records",
    "records",
    "Offsets between the last scored event and the end of the log (the high watermark); records behind an open "
    "transaction are included.",
    _PARTITION,
)
BLOCKED = _gauge(
    "streamguard_blocked_records",
    "records",
    "Offsets from the oldest open transaction to the end of the log: the high watermark less the last stable offset. "
    "No consumer of committed records can read them.",
    _PARTITION,
)
BLOCKED_SECONDS = _gauge(
    "streamguard_blocked_seconds",
    "seconds",
    "Time since the worker saw that the oldest open transaction blocks the partition; 0 if none does.",
    _PARTITION,
)
LAG_SECONDS = _gauge(
    "streamguard_lag_seconds",
    "seconds",
    "Age of the oldest waiting record by its record time; if it was not fetched yet, time since the worker saw that it "
    "waits; 0 if no record waits. The value is computed at each scrape, so it grows while the worker hangs.",
    _PARTITION,
)
PROCESSED_OFFSET = _gauge(
    "streamguard_processed_offset", "offset", "First source offset that is not folded yet.", _PARTITION
)
CHECKPOINTED_OFFSET = _gauge(
    "streamguard_checkpointed_offset",
    "offset",
    "First source offset that is not in the last durable checkpoint: a restart continues there.",
    _PARTITION,
)
COMMITTED_OFFSET = _gauge(
    "streamguard_committed_offset",
    "offset",
    "Offset that this worker committed for the group, for tools that monitor the group.",
    _PARTITION,
)

# The worker: time of a chunk

FETCH_SECONDS = _histogram(
    "streamguard_fetch_seconds",
    "Duration of one fetch: it ends when events arrive or after 0.2 s, so it is long when few events arrive.",
)
CHUNK_SECONDS = _histogram(
    "streamguard_chunk_seconds",
    "Time from receiving a chunk of records to passing its verdicts to the publisher.",
)
SCORING_SECONDS = _histogram("streamguard_scoring_seconds", "Time to decode, fold and score one chunk.")
CHUNK_EVENTS = _histogram("streamguard_chunk_events", "Records in a chunk.", buckets=_EVENTS, unit="records")
LOOP_DELAY_SECONDS = _histogram(
    "streamguard_event_loop_delay_seconds",
    "Delay with which the main thread's event loop woke up, measured twice a second.",
)

# The worker: state

PROFILE_LOOKUPS = _counter(
    "streamguard_profile_lookups_total",
    "events",
    "Events by the place of their user's profile: the profile cache in memory, RocksDB on disk, or nowhere (new user).",
    {"found": ("memory", "disk", "nowhere")},
)
EXPIRED_PROFILES = _counter(
    "streamguard_expired_profiles_total",
    "profiles",
    "Profiles that have aged out: deleted after `detection.forget_after_days` without an event of the user, or begun "
    "again by an event that came later.",
)
PROFILES_RESIDENT = _gauge(
    "streamguard_profiles_resident", "profiles", "Profiles in the cache in memory.", _PARTITION
)
STORED_KEYS = _gauge(
    "streamguard_stored_keys",
    "keys",
    "Estimated keys of a partition on disk: one for each profile, and about 500 for the population.",
    _PARTITION,
)
STORED_BYTES = _gauge(
    "streamguard_stored_bytes", "bytes", "Size of a partition's RocksDB files on disk.", _PARTITION
)
BLOCK_CACHE_BYTES = _gauge(
    "streamguard_block_cache_bytes", "bytes", "Used part of the block cache that all partitions share."
)
UNFLUSHED_BYTES = _gauge(
    "streamguard_unflushed_bytes",
    "bytes",
    "Data of all partitions that was written to RocksDB and is still in memory.",
)
DATA_FREE_BYTES = _gauge(
    "streamguard_data_free_bytes",
    "bytes",
    "Free space for the worker's user on the file system of worker.data_dir.",
)
DATA_SIZE_BYTES = _gauge(
    "streamguard_data_size_bytes", "bytes", "Size of the file system of worker.data_dir."
)
CHECKPOINT_SECONDS = _histogram("streamguard_checkpoint_seconds", "Time to make one checkpoint durable.")
CHECKPOINT_STAGE_SECONDS = _histogram(
    "streamguard_checkpoint_stage_seconds",
    "Time of each stage of a checkpoint: snapshot (no chunk is folded meanwhile), incidents (until they are "
    "acknowledged), transaction (in Kafka), store (the write to RocksDB).",
    {"stage": ("snapshot", "incidents", "transaction", "store")},
    buckets=_COARSE,
)
CHECKPOINT_RECORDS = _counter("streamguard_checkpoint_records_total", "records", "Changelog records written.")

# The worker: consumer group

REBALANCES = _counter(
    "streamguard_rebalances_total", "rebalances", "Revocations of this worker's partitions."
)
REBALANCE_SECONDS = _histogram(
    "streamguard_rebalance_seconds",
    "Time from the revocation of this worker's partitions until all newly assigned partitions were ready.",
)
PARTITIONS = _gauge(
    "streamguard_partitions",
    "partitions",
    "Partitions assigned to this worker, by state.",
    {"state": ("restoring", "ready")},
)
PARTITION_OWNED = _gauge(
    "streamguard_partition_owned",
    "",
    "1 while the partition is assigned to this worker, whether or not its state is restored.",
    _PARTITION,
)
RESTORE_SECONDS = _histogram(
    "streamguard_restore_seconds", "Time from the assignment of a partition to its first fetch."
)
RESTORED_RECORDS = _counter(
    "streamguard_restored_records_total", "records", "Changelog records read to restore local state."
)
COPIES_REPLACED = _counter(
    "streamguard_state_copies_replaced_total",
    "copies",
    "Local copies of a partition's state that were put aside and read from the changelog again, by reason.",
    {"reason": ("damaged", "misplaced", "superseded", "outdated", "unfinished")},
)
CHANGELOG_REPAIRS = _counter(
    "streamguard_changelog_repairs_total",
    "repairs",
    "Changelog partitions whose beginning was deleted, and into which a complete local copy was written again.",
)
MISSING_OFFSETS = _counter(
    "streamguard_missing_offsets_total",
    "offsets",
    "Offsets that had expired before the first start on their partition, so that they were never scored.",
)

# The worker: model

MODEL_INFO = _gauge("streamguard_model_info", "", "1 for the version of the forest in use.", _VERSION)
MODEL_POINTER = _gauge(
    "streamguard_model_pointer_info",
    "",
    "1 for the version that the registry's pointer names; the worker refused it if it is not the version in use.",
    _VERSION,
)
MODEL_LOADED = _gauge(
    "streamguard_model_loaded_timestamp_seconds",
    "seconds",
    "Time at which the forest in use was loaded; NaN without a forest.",
)
MODEL_PUBLISHED = _gauge(
    "streamguard_model_published_timestamp_seconds",
    "seconds",
    "Time at which the forest in use was published; NaN without a forest. Its age is time() minus this value.",
)
MODEL_LOADS = _counter("streamguard_model_loads_total", "forests", "Forests loaded, including challengers.")
MODEL_REFUSALS = _counter(
    "streamguard_model_refusals_total",
    "refusals",
    "Refusals of a forest, a pointer or a key, including repeated attempts; the previous forest stays in use.",
    {"reason": ("pointer", "unreadable", "untrusted", "unexpected")},
)
MODEL_SWAP_PAUSE_SECONDS = _histogram(
    "streamguard_model_swap_pause_seconds",
    "Total time that chunks waited for the interpreter or for a disk during one model swap.",
    buckets=_PAUSES,
)
MODEL_DISAGREEMENT = _gauge(
    "streamguard_model_disagreement",
    "workers",
    "Other workers whose forest differs from this worker's.",
)
MODEL_DISAGREEMENT.set(0)
SHADOW_INFO = _gauge(
    "streamguard_shadow_info",
    "",
    "1 for the version of the challenger that is scored in shadow mode.",
    _VERSION,
)
SHADOW_EVENTS = _counter(
    "streamguard_shadow_events_total", "events", "Events that the challenger also scored."
)
SHADOW_RANKED = _counter(
    "streamguard_shadow_ranked_total",
    "events",
    "Of these, events of which the champion or the challenger says more than statistics and patterns.",
    {"role": ("champion", "challenger")},
)
SHADOW_FOREST_ALERTS = _counter(
    "streamguard_shadow_forest_alerts_total",
    "events",
    "Of these, events that reach the alert threshold by the bits of the champion or of the challenger alone.",
    {"role": ("champion", "challenger")},
)
READY = _gauge("streamguard_ready", "", "1 while /readyz answers 200.")
FORWARDED = _counter(
    "streamguard_forwarded_events_total",
    "events",
    "Failures and logins that were forwarded to the sources topic, in the transaction of a checkpoint.",
    _PARTITION,
)
FORWARDED_TOO_LARGE = _counter(
    "streamguard_forwarded_too_large_total",
    "events",
    "Failures and logins that were not forwarded, because they are larger than the sources topic accepts; the log "
    "names their offsets.",
)

# The campaigns process

CAMPAIGN_RECORDS = _counter(
    "streamguard_campaigns_alert_records_total",
    "records",
    "Records read from the alerts topic: incidents, and records that were passed over, by reason. After a restart, and "
    "when Kafka has deleted old records, the whole topic is read again.",
    {
        "result": (
            "incident", "empty", "too_large", "unreadable_batch", "not_an_incident", "unknown_version", "out_of_bounds",
            "not_computable",
        )
    },
    CAMPAIGNS,
)  # fmt: skip
CAMPAIGN_ROUND_SECONDS = _histogram(
    "streamguard_campaigns_round_seconds",
    "Time of one round: computing all campaigns, and publishing those that have changed.",
    buckets=_ROUNDS,
    registry=CAMPAIGNS,
)
CAMPAIGNS_PUBLISHED = _counter(
    "streamguard_campaigns_published_total",
    "records",
    "Records written to the campaigns topic: new campaigns, changed ones, and deletions of campaigns that have become "
    "part of another one or were retired.",
    {"change": ("new", "changed", "withdrawn")},
    CAMPAIGNS,
)
CAMPAIGNS_CURRENT = _gauge(
    "streamguard_campaigns_current", "campaigns", "Campaigns in the campaigns topic.", registry=CAMPAIGNS
)
CAMPAIGNS_OPEN = _gauge(
    "streamguard_campaigns_open",
    "campaigns",
    "Campaigns whose last alert is at most three days older than the latest alert, so that incidents may join them.",
    registry=CAMPAIGNS,
)
CAMPAIGNS_RAISED = _gauge(
    "streamguard_campaigns_raised",
    "campaigns",
    "Campaigns in the topic that are raised to a person.",
    {"severity": SEVERITIES},
    CAMPAIGNS,
)
CAMPAIGNS_RAISED_PER_DAY = _gauge(
    "streamguard_campaigns_raised_per_day",
    "campaigns",
    "Raised campaigns a day, of those that began within a day or a week before the latest alert.",
    {"over": ("day", "week")},
    CAMPAIGNS,
)
CAMPAIGNS_PROMISED_PER_DAY = _gauge(
    "streamguard_campaigns_promised_per_day",
    "campaigns",
    "Campaigns a day that a person is expected to read.",
    registry=CAMPAIGNS,
)
CAMPAIGN_UPDATES = _gauge(
    "streamguard_campaigns_updates",
    "records",
    "Updates of incidents in memory, from which campaigns are computed.",
    registry=CAMPAIGNS,
)
CAMPAIGN_SPAN = _gauge(
    "streamguard_campaigns_window_seconds",
    "seconds",
    "Time of alerts from the first to the latest of these updates. Below 37 days it is what the alerts topic keeps, or "
    "what fits into memory.",
    registry=CAMPAIGNS,
)
CAMPAIGNS_LAG = _gauge(
    "streamguard_campaigns_lag_records",
    "records",
    "Offsets of the alerts topic that were not read yet, in all partitions.",
    registry=CAMPAIGNS,
)
CAMPAIGNS_LAG_SECONDS = _gauge(
    "streamguard_campaigns_lag_seconds",
    "seconds",
    "Time for which the oldest update that was read has not been part of a published round; 0 if none waits. The value "
    "is computed at each scrape.",
    registry=CAMPAIGNS,
)
CAMPAIGNS_READY = _gauge(
    "streamguard_campaigns_ready", "", "1 while /readyz answers 200.", registry=CAMPAIGNS
)

# The retrain: values of the last run, NaN until a run has produced them

RETRAIN_RUNS = _counter(
    "streamguard_retrain_runs_total",
    "runs",
    "Runs by result: the forest is current now, the forest was not promoted, or the run failed.",
    {"result": ("current", "not_promoted", "failed")},
    RETRAIN,
)
RETRAIN_RUNNING = _retrain("running", "", "1 while a run is in progress.")
RETRAIN_INTERVAL = _retrain(
    "interval_seconds",
    "seconds",
    "Time between the starts of two runs; for single runs `batch.expected_seconds`, which is 0 if it is not set.",
)
RETRAIN_SINCE = _retrain(
    "since_timestamp_seconds", "seconds", "Time at which the first run began that these metrics include."
)
RETRAIN_START = _retrain("last_start_timestamp_seconds", "seconds", "Time at which the last run began.")
RETRAIN_END = _retrain(
    "last_end_timestamp_seconds", "seconds", "Time at which the last run ended, whether or not it failed."
)
RETRAIN_SUCCESS_TIME = _retrain(
    "last_success_timestamp_seconds", "seconds", "Time at which the last successful run ended."
)
RETRAIN_SUCCESS = _retrain("success", "", "1 if the last run succeeded, 0 if it failed.")
RETRAIN_DURATION = _retrain("duration_seconds", "seconds", "Duration of the last run.")
RETRAIN_STEPS = _retrain(
    "step_duration_seconds",
    "seconds",
    "Duration of each step of the last run.",
    {"step": ("plan", "fold", "select", "train", "publish")},
)
RETRAIN_RECORDS = _retrain("records", "records", "Records in the history of the last run.")
RETRAIN_EVENTS = _retrain("events", "events", "Events folded in the history of the last run.")
RETRAIN_REFUSED = _retrain(
    "refused_records", "records", "Records in the history of the last run that could not be scored."
)
RETRAIN_ALERTED = _retrain("alerted_events", "events", "Alerted events in the history of the last run.")
RETRAIN_USERS = _retrain("users", "users", "Users in the history of the last run.")
RETRAIN_USERS_AT_RISK = _retrain("users_at_risk", "users", "Users at risk in the last run.")
RETRAIN_ROWS = _retrain("training_rows", "rows", "Events on which the forest of the last run was trained.")
RETRAIN_TRIMMED = _retrain(
    "trimmed_ratio", "ratio", "Share of the sample that was left out of training as possible attacks."
)
RETRAIN_DRIFT = _retrain(
    "drift_psi",
    "index",
    "Population stability index of the feature that moved most among the training rows since the run that the last run "
    "continues.",
)
RETRAIN_GATE = _retrain("gate_passed", "", "1 if the forest passed the gate, 0 if not.")
RETRAIN_PROMOTED = _retrain("champion_promoted", "", "1 if the forest became current, 0 if not.")
RETRAIN_MODEL_PUBLISHED = _retrain(
    "model_published_timestamp_seconds",
    "seconds",
    "Time at which the registry's current forest was published.",
)

# The server

SERVED_TOPICS = ("alerts", "campaigns", "decisions")
"""Roles of the topics of the projection, as `streamguard.kafka.topics.names` has them."""
READ_TOPICS = (*SERVED_TOPICS, "changelog")
"""Roles of all topics that a server follows: the copy of the changelog has the profiles."""
ROUTES = ("api", "page", "stream", "sign_in", "static")
"""Classes of a server's routes: JSON, the page, the stream of changes, signing in and out, and files."""

SERVE_READY = _gauge("streamguard_serve_ready", "", "1 while /readyz answers 200.", registry=SERVE)
SERVE_STALENESS = _gauge(
    "streamguard_serve_staleness_seconds",
    "seconds",
    "Time since the server was last known to reflect the whole topic. The value is computed at each scrape.",
    {"topic": READ_TOPICS},
    SERVE,
)
SERVE_LAG = _gauge(
    "streamguard_serve_lag_records",
    "records",
    "Offsets of the topic that were not read yet, in all partitions, by the ends that the brokers named last.",
    {"topic": READ_TOPICS},
    SERVE,
)
SERVE_TROUBLE = _gauge(
    "streamguard_serve_trouble",
    "",
    "1 while the topic cannot be followed: it does not exist, or Kafka does not answer or refuses the request. The log "
    "has the reason.",
    {"topic": READ_TOPICS},
    SERVE,
)
SERVE_FOLLOWING = _gauge(
    "streamguard_serve_following",
    "",
    "1 while the thread that follows the topic runs. 0 after it has ended by an error that waiting does not remove, "
    "until the server is started again.",
    {"topic": READ_TOPICS},
    SERVE,
)
SERVE_RECORDS = _counter(
    "streamguard_serve_records_total",
    "records",
    "Records read from the topic: those in the projection, and those that were passed over, by reason.",
    {
        "topic": SERVED_TOPICS,
        "result": (
            "read", "empty", "too_large", "not_an_incident", "unknown_version", "out_of_bounds", "not_a_campaign",
            "not_an_action", "unknown_kind", "contradictory", "damaged",
        ),
    },
    SERVE,
)  # fmt: skip
SERVE_AUDIT_WAITING = _gauge(
    "streamguard_serve_audit_waiting",
    "records",
    "Records of the audit log that Kafka has not acknowledged. Answers with names are refused while one waits for "
    "more than five seconds.",
    registry=SERVE,
)
SERVE_AUDIT_REFUSED = _counter(
    "streamguard_serve_audit_refused_total",
    "answers",
    "Answers with names that were refused because the audit log could not be written.",
    registry=SERVE,
)
REPLICA_RESULTS = ("applied", "ignored", "damaged")
"""What becomes of a record of the state changelog."""
SERVE_REPLICA_RECORDS = _counter(
    "streamguard_serve_replica_records_total",
    "records",
    "Records of the state changelog: those that were applied to the copies of profiles, those without a key, and those "
    "whose batch cannot be read.",
    {"result": REPLICA_RESULTS},
    SERVE,
)
SERVE_REPLICA_CHECKPOINTS = _counter(
    "streamguard_serve_replica_checkpoints_total",
    "checkpoints",
    "Exact snapshots of the state that the copies have reached, in all partitions.",
    registry=SERVE,
)
SERVE_REPLICA_REBUILT = _counter(
    "streamguard_serve_replica_rebuilt_total",
    "copies",
    "Copies of a partition that were deleted and built again: they were damaged, too old, or of another changelog.",
    registry=SERVE,
)
SERVE_INCIDENTS = _gauge(
    "streamguard_serve_incidents", "incidents", "Incidents in the projection.", registry=SERVE
)
SERVE_OPEN_INCIDENTS = _gauge(
    "streamguard_serve_open_incidents",
    "incidents",
    "Of these, incidents that are not closed, whether or not they are raised to a person.",
    registry=SERVE,
)
SERVE_REQUESTS = _counter(
    "streamguard_serve_requests_total",
    "requests",
    "Requests by the class of their route and of their status; requests that the server refuses are included.",
    {"route": ROUTES, "status": ("2xx", "3xx", "4xx", "5xx")},
    SERVE,
)
SERVE_REQUEST_SECONDS = _histogram(
    "streamguard_serve_request_seconds",
    "Time from a request to the end of its answer; for the stream of changes, to the beginning of its answer.",
    {"route": ROUTES},
    _REQUESTS,
    registry=SERVE,
)
SERVE_PARTITIONS = _gauge(
    "streamguard_serve_partitions",
    "partitions",
    "Partitions of the profiles by who answers for them: this server, only a peer, or no server. The value is computed "
    "at each scrape.",
    {"where": ("here", "peer", "missing")},
    SERVE,
)
SERVE_PEER_REQUESTS = _counter(
    "streamguard_serve_peer_requests_total",
    "requests",
    "Questions to other servers about state that is not held here. A refusal concerns the caller or the question, such "
    "as a name that is masked; failures include those of the regular check.",
    {"result": ("answered", "refused", "failed")},
    SERVE,
)
SERVE_STREAMS = _gauge(
    "streamguard_serve_open_streams",
    "streams",
    "Open streams of changes: browsers that show the page, and programs that watch.",
    registry=SERVE,
)
SERVE_STREAMS.set(0)

for _registry in (WORKER, CAMPAIGNS, RETRAIN, SERVE):
    _build = _declared(
        Gauge,
        "streamguard_build_info",
        "",
        {"version": (), "python": ()},
        "1; the labels contain the versions of StreamGuard and Python.",
        _registry,
    )
    _build.labels(__version__, platform.python_version()).set(1)


def exposition(registry: CollectorRegistry) -> bytes:
    """Text that a scrape of a process returns: its metrics and those of every process."""
    return prometheus_client.generate_latest(registry) + prometheus_client.generate_latest(PROCESS)


def forget_partition(partition: int) -> None:
    """Remove the gauges of a partition that is not assigned to this worker any more."""
    for gauge in (
        LAG, LAG_SECONDS, BLOCKED, BLOCKED_SECONDS, PROCESSED_OFFSET, CHECKPOINTED_OFFSET, COMMITTED_OFFSET,
        PROFILES_RESIDENT, STORED_KEYS, STORED_BYTES, PARTITION_OWNED,
    ):  # fmt: skip
        gauge.remove_by_labels({"partition": str(partition)})


def name_version(info: Gauge, version: str | None) -> None:
    """Set an info gauge to this version and remove its other versions; None removes all."""
    if version is not None:
        info.labels(version).set(1)
    for (named,) in [sample.labels.values() for metric in info.collect() for sample in metric.samples]:
        if named != version:
            info.remove(named)
