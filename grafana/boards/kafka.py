"""Where each partition stands, how its state is saved, and how the group deals partitions out."""

from __future__ import annotations

from grafana.boards.overview import BEHIND, LAG_STEPS
from grafana.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    quantiles,
    row,
    stat,
    thresholds,
    timeseries,
)  # fmt: skip

NAME = "kafka"
TITLE = "Kafka and state"
SAYS = "Where each partition stands, how its state is saved, and how the group deals partitions out."

FREE = "min(streamguard_data_free_bytes{WORKER} / streamguard_data_size_bytes{WORKER})"

UNSAVED = "clamp_min(streamguard_processed_offset{PARTITION} - streamguard_checkpointed_offset{PARTITION}, 0)"
UNCOMMITTED = (
    "clamp_min(streamguard_checkpointed_offset{PARTITION} - streamguard_committed_offset{PARTITION}, 0)"
)


def _by_partition(metric: str) -> list[tuple[str, str]]:
    return [(f"max by (partition) ({metric}{{PARTITION}})", "{{partition}}")]


def panels() -> list[Json]:
    """From the log to the disk."""
    return [
        stat(
            "Waiting", "Records between the last scored event and the log's end, of all partitions.",
            "sum(streamguard_lag_records{PARTITION})", "short", steps=thresholds((10_000, YELLOW), (1_000_000, RED)),
            size=(4, 4), runbooks=["StreamGuardLagGrowing"],
        ),
        stat(
            "Behind", "Age of the oldest event that waits.", BEHIND, "s", steps=LAG_STEPS, size=(4, 4),
            runbooks=["StreamGuardLagSeconds"],
        ),
        stat(
            "Partitions ready", "Partitions whose state is recovered, of those that workers have.",
            "sum(streamguard_partitions{WORKER_READY}) / (sum(streamguard_partitions{WORKER}) > 0)",
            "percentunit", decimals=0, steps=thresholds((1, GREEN), base=YELLOW), size=(4, 4),
            runbooks=["StreamGuardRecoveryLong", "StreamGuardPartitionWithoutWorker"],
        ),
        stat(
            "Rebalances", "Within the time that is looked at; a start is one too.",
            "sum(increase(streamguard_rebalances_total{WORKER}[$__range]))", "none", decimals=0, size=(4, 4),
            runbooks=["StreamGuardRebalances"],
        ),
        stat(
            "Unsaved", "Records folded since the last durable checkpoint: what a crash folds again.",
            f"sum({UNSAVED})", "short",
            size=(4, 4), runbooks=["StreamGuardCommitsStandStill"],
        ),
        stat(
            "Disk free", "Of the file system with worker.data_dir, where it is least.", FREE, "percentunit", decimals=0,
            steps=thresholds((0.1, YELLOW), (0.2, GREEN), base=RED), size=(4, 4), runbooks=["StreamGuardDiskFilling"],
        ),
        row("Where each partition stands"),
        timeseries(
            "Waiting", "Records between the last scored event and the log's end.",
            _by_partition("streamguard_lag_records"),
            "short", stacked=True, runbooks=["StreamGuardLagGrowing"],
        ),
        timeseries(
            "Behind", "Age of the oldest event that waits.", _by_partition("streamguard_lag_seconds"), "s",
            lines_at=LAG_STEPS, runbooks=["StreamGuardLagSeconds"],
        ),
        timeseries(
            "Progress", "Offsets folded a second; at a stand-still while records wait, something is wrong.",
            [("max by (partition) (deriv(streamguard_processed_offset{PARTITION}[RATE]))", "{{partition}}")], "cps",
            runbooks=["StreamGuardCommitsStandStill"],
        ),
        timeseries(
            "Folded and not saved", "Records since the last durable checkpoint.",
            [(
                f"max by (partition) ({UNSAVED})",
                "{{partition}}",
            )],
            "short", runbooks=["StreamGuardCommitsStandStill"],
        ),
        timeseries(
            "Saved and not committed", "How far the group's offset is behind: only those who watch the group care.",
            [(
                f"max by (partition) ({UNCOMMITTED})",
                "{{partition}}",
            )],
            "short", runbooks=["StreamGuardGroupOffsetStale"],
        ),
        timeseries(
            "Fetch", "Until a fetch has events, or 0.2 s are over.", quantiles("streamguard_fetch_seconds", 0.5,
            0.99), "s",
        ),
        row("Checkpoints"),
        timeseries(
            "Checkpoint", "Making one durable.", quantiles("streamguard_checkpoint_seconds", 0.5, 0.99), "s",
            lines_at=thresholds((1, YELLOW)),
        ),
        timeseries(
            "Stages", "Mean of each: the snapshot holds up folding, the others do not.",
            [(
                "sum by (stage) (rate(streamguard_checkpoint_stage_seconds_sum{WORKER}[RATE]))"
                " / (sum by (stage) (rate(streamguard_checkpoint_stage_seconds_count{WORKER}[RATE])) > 0)",
                "{{stage}}",
            )],
            "s", stacked=True,
        ),
        timeseries(
            "Changelog", "Records written to it, and how many a checkpoint has.",
            [
                ("sum(rate(streamguard_checkpoint_records_total{WORKER}[RATE]))", "a second"),
                (
                    "sum(rate(streamguard_checkpoint_records_total{WORKER}[RATE]))"
                    " / (sum(rate(streamguard_checkpoint_seconds_count{WORKER}[RATE])) > 0)",
                    "a checkpoint",
                ),
            ],
            "short",
        ),
        row("State"),
        timeseries(
            "Where profiles were", "When an event came: in memory, on disk, or nowhere yet.",
            [("sum by (found) (rate(streamguard_profile_lookups_total{WORKER}[RATE]))", "{{found}}")], "cps",
            stacked=True,
        ),
        timeseries(
            "Found in memory", "Of the profiles that exist; if it is low, raise worker.resident_profiles.",
            [(
                "sum(rate(streamguard_profile_lookups_total{WORKER_MEMORY}[RATE]))"
                " / (sum(rate(streamguard_profile_lookups_total{WORKER_KNOWN}[RATE])) > 0)",
                "found in memory",
            )],
            "percentunit",
        ),
        timeseries(
            "Profiles in memory", "By partition.", _by_partition("streamguard_profiles_resident"), "short",
            stacked=True,
        ),
        timeseries(
            "Stored keys", "Estimated; a profile each, and some 500 of a partition's population.",
            _by_partition("streamguard_stored_keys"), "short", stacked=True,
        ),
        timeseries(
            "RocksDB on disk", "By partition.", _by_partition("streamguard_stored_bytes"), "bytes", stacked=True,
            runbooks=["StreamGuardDiskFilling"],
        ),
        timeseries(
            "RocksDB in memory", "Block cache, and what is not flushed yet, of all workers.",
            [
                ("sum(streamguard_block_cache_bytes{WORKER})", "block cache"),
                ("sum(streamguard_unflushed_bytes{WORKER})", "not flushed"),
            ],
            "bytes", stacked=True,
        ),
        row("The group"),
        timeseries(
            "Partitions", "Of all workers.", [("sum by (state) (streamguard_partitions{WORKER})", "{{state}}")], "none",
            stacked=True, runbooks=["StreamGuardPartitionWithoutWorker"],
        ),
        timeseries(
            "Owners", "Workers that have each partition, recovered or not yet; no line is nobody's.",
            _by_partition("streamguard_partition_owned"), "none", stacked=True,
            runbooks=["StreamGuardPartitionWithoutWorker"],
        ),
        timeseries(
            "Rebalances a minute", "Times the group took a worker's partitions.",
            [("60 * sum by (instance) (rate(streamguard_rebalances_total{WORKER}[RATE]))", "{{instance}}")], "cpm",
            bars=True, runbooks=["StreamGuardRebalances"],
        ),
        timeseries(
            "How long a rebalance takes", "From when the group took the partitions until each was ready.",
            quantiles("streamguard_rebalance_seconds", 0.5, 0.99), "s",
        ),
        timeseries(
            "Recovery", "Of one partition, from assignment to its first fetch.",
            quantiles("streamguard_recovery_seconds", 0.5, 0.99), "s", runbooks=["StreamGuardRecoveryLong"],
        ),
        timeseries(
            "Recovered", "Changelog records read into local state.",
            [("sum by (instance) (rate(streamguard_recovered_records_total{WORKER}[RATE]))", "{{instance}}")], "cps",
        ),
        timeseries(
            "Disk free", "Of the file system with worker.data_dir.",
            [("min by (instance) (streamguard_data_free_bytes{WORKER})", "{{instance}}")], "bytes",
            runbooks=["StreamGuardDiskFilling"],
        ),
    ]  # fmt: skip
