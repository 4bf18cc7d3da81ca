"""Kafka and state: progress of each partition, checkpoints, state store, and the consumer group."""

from __future__ import annotations

from grafana.boards.overview import LAG, LAG_STEPS
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
SAYS = "Progress of each partition, its checkpoints and its state store, and the assignments of the consumer group."

FREE = "min(streamguard_data_free_bytes{WORKER} / streamguard_data_size_bytes{WORKER})"

UNCHECKPOINTED = (
    "clamp_min(streamguard_processed_offset{PARTITION} - streamguard_checkpointed_offset{PARTITION}, 0)"
)
UNCOMMITTED = (
    "clamp_min(streamguard_checkpointed_offset{PARTITION} - streamguard_committed_offset{PARTITION}, 0)"
)


def _by_partition(metric: str) -> list[tuple[str, str]]:
    return [(f"max by (partition) ({metric}{{PARTITION}})", "{{partition}}")]


def panels() -> list[Json]:
    """Panels, from the log to the disk."""
    return [
        stat(
            "Lag in records", "Records between the last scored event and the end of the log, in all partitions.",
            "sum(streamguard_lag_records{PARTITION})", "short", steps=thresholds((10_000, YELLOW), (1_000_000, RED)),
            size=(4, 4), runbooks=["StreamGuardLagGrowing"],
        ),
        stat(
            "Lag", "Age of the oldest waiting event.", LAG, "s", steps=LAG_STEPS, size=(4, 4),
            runbooks=["StreamGuardLagSeconds"],
        ),
        stat(
            "Partitions ready", "Share of the assigned partitions whose state is restored.",
            "sum(streamguard_partitions{WORKER_READY}) / (sum(streamguard_partitions{WORKER}) > 0)",
            "percentunit", decimals=0, steps=thresholds((1, GREEN), base=YELLOW), size=(4, 4),
            runbooks=["StreamGuardRestoreLong", "StreamGuardPartitionWithoutWorker"],
        ),
        stat(
            "Rebalances", "Rebalances within the selected time range; a start also counts as one.",
            "sum(increase(streamguard_rebalances_total{WORKER}[$__range]))", "none", decimals=0, size=(4, 4),
            runbooks=["StreamGuardRebalances"],
        ),
        stat(
            "Not checkpointed",
            "Records folded since the last durable checkpoint; after a crash they are folded again.",
            f"sum({UNCHECKPOINTED})", "short", size=(4, 4), runbooks=["StreamGuardCommitsStandStill"],
        ),
        stat(
            "Disk free", "Smallest free share of the file system of worker.data_dir among workers.",
            FREE, "percentunit", decimals=0,
            steps=thresholds((0.1, YELLOW), (0.2, GREEN), base=RED), size=(4, 4), runbooks=["StreamGuardDiskFilling"],
        ),
        row("Progress of each partition"),
        timeseries(
            "Lag in records", "Records between the last scored event and the end of the log.",
            _by_partition("streamguard_lag_records"),
            "short", stacked=True, runbooks=["StreamGuardLagGrowing"],
        ),
        timeseries(
            "Blocked records", "Records behind an open transaction of another program, which nobody can read yet.",
            _by_partition("streamguard_blocked_records"),
            "short", stacked=True, runbooks=["StreamGuardBlocked"],
        ),
        timeseries(
            "Blocked", "Time for which the same open transaction has blocked a partition; short ones are normal.",
            _by_partition("streamguard_blocked_seconds"), "s",
            lines_at=thresholds((30, RED)), runbooks=["StreamGuardBlocked"],
        ),
        timeseries(
            "Lag", "Age of the oldest waiting event.", _by_partition("streamguard_lag_seconds"), "s",
            lines_at=LAG_STEPS, runbooks=["StreamGuardLagSeconds"],
        ),
        timeseries(
            "Progress", "Offsets folded per second; 0 while records wait indicates a problem.",
            [("max by (partition) (deriv(streamguard_processed_offset{PARTITION}[RATE]))", "{{partition}}")], "cps",
            runbooks=["StreamGuardCommitsStandStill"],
        ),
        timeseries(
            "Folded, not checkpointed", "Records folded since the last durable checkpoint.",
            [(
                f"max by (partition) ({UNCHECKPOINTED})",
                "{{partition}}",
            )],
            "short", runbooks=["StreamGuardCommitsStandStill"],
        ),
        timeseries(
            "Checkpointed, not committed",
            "Records between the group's offset and the checkpoint. Only tools that monitor the group use that offset.",
            [(
                f"max by (partition) ({UNCOMMITTED})",
                "{{partition}}",
            )],
            "short", runbooks=["StreamGuardGroupOffsetStale"],
        ),
        timeseries(
            "Fetch", "Duration of a fetch: until events arrive, or 0.2 s.",
            quantiles("streamguard_fetch_seconds", 0.5, 0.99), "s",
        ),
        row("Checkpoints"),
        timeseries(
            "Checkpoint", "Time to make one checkpoint durable.",
            quantiles("streamguard_checkpoint_seconds", 0.5, 0.99), "s",
            lines_at=thresholds((1, YELLOW)),
        ),
        timeseries(
            "Stages", "Mean time of each stage; folding waits during the snapshot, but not during the other stages.",
            [(
                "sum by (stage) (rate(streamguard_checkpoint_stage_seconds_sum{WORKER}[RATE]))"
                " / (sum by (stage) (rate(streamguard_checkpoint_stage_seconds_count{WORKER}[RATE])) > 0)",
                "{{stage}}",
            )],
            "s", stacked=True,
        ),
        timeseries(
            "Changelog", "Changelog records written per second and per checkpoint.",
            [
                ("sum(rate(streamguard_checkpoint_records_total{WORKER}[RATE]))", "per second"),
                (
                    "sum(rate(streamguard_checkpoint_records_total{WORKER}[RATE]))"
                    " / (sum(rate(streamguard_checkpoint_seconds_count{WORKER}[RATE])) > 0)",
                    "per checkpoint",
                ),
            ],
            "short",
        ),
        timeseries(
            "Forwarded", "Failures and logins forwarded to the sources topic per second, and those too large for it.",
            [
                ("sum(rate(streamguard_forwarded_events_total{PARTITION}[RATE]))", "forwarded"),
                ("sum(rate(streamguard_forwarded_too_large_total{WORKER}[RATE]))", "too large"),
            ],
            "cps", runbooks=["StreamGuardNotForwarded"],
        ),
        row("State"),
        timeseries(
            "Profile lookups", "Events by the place of their user's profile: memory, disk, or nowhere (new user).",
            [("sum by (found) (rate(streamguard_profile_lookups_total{WORKER}[RATE]))", "{{found}}")], "cps",
            stacked=True,
        ),
        timeseries(
            "Found in memory",
            "Share of the existing profiles found in memory; if it is low, raise worker.resident_profiles.",
            [(
                "sum(rate(streamguard_profile_lookups_total{WORKER_MEMORY}[RATE]))"
                " / (sum(rate(streamguard_profile_lookups_total{WORKER_KNOWN}[RATE])) > 0)",
                "found in memory",
            )],
            "percentunit",
        ),
        timeseries(
            "Aged out profiles per minute", "Profiles of users without an event for detection.forget_after_days.",
            [("60 * sum(rate(streamguard_expired_profiles_total{WORKER}[RATE]))", "aged out")],
            "none", bars=True, size=(8, 8),
        ),
        timeseries(
            "Profiles in memory", "Cached profiles, by partition.", _by_partition("streamguard_profiles_resident"),
            "short", stacked=True,
        ),
        timeseries(
            "Stored keys", "Estimate: one key for each profile, and about 500 for the population of a partition.",
            _by_partition("streamguard_stored_keys"), "short", stacked=True,
        ),
        timeseries(
            "RocksDB on disk", "Size of the files, by partition.", _by_partition("streamguard_stored_bytes"), "bytes",
            stacked=True,
            runbooks=["StreamGuardDiskFilling"],
        ),
        timeseries(
            "RocksDB in memory", "Block cache and unflushed writes of all workers.",
            [
                ("sum(streamguard_block_cache_bytes{WORKER})", "block cache"),
                ("sum(streamguard_unflushed_bytes{WORKER})", "unflushed"),
            ],
            "bytes", stacked=True,
        ),
        row("Consumer group"),
        timeseries(
            "Partitions", "Partitions of all workers, by state.",
            [("sum by (state) (streamguard_partitions{WORKER})", "{{state}}")], "none",
            stacked=True, runbooks=["StreamGuardPartitionWithoutWorker"],
        ),
        timeseries(
            "Owners", "Workers to which each partition is assigned, restored or not; a missing line means no owner.",
            _by_partition("streamguard_partition_owned"), "none", stacked=True,
            runbooks=["StreamGuardPartitionWithoutWorker"],
        ),
        timeseries(
            "Rebalances per minute", "Revocations of a worker's partitions.",
            [("60 * sum by (instance) (rate(streamguard_rebalances_total{WORKER}[RATE]))", "{{instance}}")], "cpm",
            bars=True, runbooks=["StreamGuardRebalances"],
        ),
        timeseries(
            "Rebalance duration",
            "Time from the revocation of the partitions until all assigned partitions were ready.",
            quantiles("streamguard_rebalance_seconds", 0.5, 0.99), "s",
        ),
        timeseries(
            "Restore", "Time from the assignment of a partition to its first fetch.",
            quantiles("streamguard_restore_seconds", 0.5, 0.99), "s", runbooks=["StreamGuardRestoreLong"],
        ),
        timeseries(
            "Restored records", "Changelog records read per second to restore local state.",
            [("sum by (instance) (rate(streamguard_restored_records_total{WORKER}[RATE]))", "{{instance}}")], "cps",
        ),
        timeseries(
            "Repairs of state",
            "Local copies that the changelog replaced, changelogs that were written again from a copy, and "
            "offsets that had expired before the first start.",
            [
                ("sum by (reason) (increase(streamguard_state_copies_replaced_total{WORKER}[RATE]))", "{{reason}}"),
                ("sum(increase(streamguard_changelog_repairs_total{WORKER}[RATE]))", "changelog"),
                ("sum(increase(streamguard_missing_offsets_total{WORKER}[RATE]))", "missing offsets"),
            ],
            "none",
        ),
        timeseries(
            "Disk free", "Free space on the file system of worker.data_dir.",
            [("min by (instance) (streamguard_data_free_bytes{WORKER})", "{{instance}}")], "bytes",
            runbooks=["StreamGuardDiskFilling"],
        ),
    ]  # fmt: skip
