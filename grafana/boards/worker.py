"""What a worker costs: processor, memory, and where a chunk's time goes."""

from __future__ import annotations

from grafana.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    heatmap,
    quantile,
    quantiles,
    row,
    stat,
    thresholds,
    timeline,
    timeseries,
    value_names,
)  # fmt: skip

NAME = "worker"
TITLE = "Worker"
SAYS = "What a worker costs: processor, memory, and where a chunk's time goes."

LOOP_STEPS = thresholds((0.1, YELLOW), (1, RED))
CPU = "rate(process_cpu_seconds_total{PROCESS}[RATE])"


def panels() -> list[Json]:
    """From the process to the chunk."""
    return [
        stat(
            "Up", "Workers that answer.", "sum(up{PROCESS})", "none", steps=thresholds((1, GREEN), base=RED), size=(4,
            4),
            runbooks=["StreamGuardWorkerDown", "StreamGuardNoWorkers"],
        ),
        stat(
            "Ready", "Workers whose /readyz is green.", "sum(streamguard_ready{WORKER})", "none",
            steps=thresholds((1, GREEN), base=RED), size=(4, 4), runbooks=["StreamGuardNotReady"],
        ),
        stat(
            "CPU an event", "Processor time of all workers by events scored: at a trickle it is mostly waiting.",
            f"sum({CPU}) / (sum(rate(streamguard_events_total{{WORKER}}[RATE])) > 0)", "s",
            empty="no events", size=(4, 4),
        ),
        stat(
            "Memory", "Resident, of the largest worker.", "max(process_resident_memory_bytes{PROCESS})", "bytes",
            size=(4, 4),
        ),
        stat(
            "Youngest", "Since the last worker was started.", "time() - max(process_start_time_seconds{PROCESS})", "s",
            size=(4, 4), runbooks=["StreamGuardRestarts"],
        ),
        stat(
            "Version", "Of StreamGuard.", "count by (version) (streamguard_build_info{PROCESS})", "string",
            legend="{{version}}",
            name=True, size=(4, 4),
        ),
        row("Process"),
        timeseries(
            "Processor", "Cores in use; a worker folds on one, RocksDB and the network take a little beside it.",
            [(f"sum by (instance) ({CPU})", "{{instance}}")], "none", lines_at=thresholds((0.9, YELLOW)),
        ),
        timeseries(
            "CPU an event", "Processor time by events scored.",
            [(
                f"sum by (instance) ({CPU}) / (sum by (instance) (rate(streamguard_events_total{{WORKER}}[RATE])) > 0)",
                "{{instance}}",
            )],
            "s",
        ),
        timeseries(
            "Memory", "Resident. It is bounded by worker.resident_profiles and worker.block_cache_mb.",
            [("sum by (instance) (process_resident_memory_bytes{PROCESS})", "{{instance}}")], "bytes",
        ),
        timeseries(
            "Open files", "Share of the limit: connections and RocksDB's files.",
            [(
                "max by (instance) (process_open_fds{PROCESS} / process_max_fds{PROCESS})", "{{instance}}",
            )],
            "percentunit", lines_at=thresholds((0.8, RED)),
        ),
        timeseries(
            "Garbage collection", "Python's collections, by generation; the oldest is what takes long.",
            [("sum by (generation) (rate(python_gc_collections_total{PROCESS}[RATE]))", "generation {{generation}}")],
            "cps",
        ),
        timeline(
            "Ready", "Whether /readyz is green.", [("max by (instance) (streamguard_ready{WORKER})", "{{instance}}")],
            value_names(ready=(1, GREEN), not_ready=(0, RED)), size=(8, 8), runbooks=["StreamGuardNotReady"],
        ),
        row("A chunk's time"),
        timeseries(
            "Chunk", "From a chunk of records to its verdicts handed to the publisher.",
            quantiles("streamguard_chunk_seconds", 0.5, 0.9, 0.99), "s",
        ),
        timeseries(
            "Scoring", "Of this: decoding, folding, scoring.", quantiles("streamguard_scoring_seconds", 0.5, 0.9,
            0.99), "s",
        ),
        timeseries(
            "Records in a chunk", "Few while a worker keeps up, worker.chunk_events on a backlog.",
            [
                (
                    "sum(rate(streamguard_chunk_events_sum{WORKER}[RATE]))"
                    " / (sum(rate(streamguard_chunk_events_count{WORKER}[RATE])) > 0)",
                    "mean",
                ),
                (quantile(0.99, "streamguard_chunk_events"), "p99"),
            ],
            "none",
        ),
        heatmap("Scoring", "All chunks; darker is more.", "streamguard_scoring_seconds"),
        timeseries(
            "Event to verdict", "From the record time of a chunk's first event to its verdict.",
            quantiles("streamguard_event_to_verdict_seconds", 0.5, 0.99), "s",
        ),
        timeseries(
            "Event loop's delay", "How late the main thread wakes up: while it folds, nothing else runs.",
            quantiles("streamguard_event_loop_delay_seconds", 0.5, 0.99), "s", lines_at=LOOP_STEPS,
        ),
        timeseries(
            "Busy", "Share of the time in which a worker's main thread handles chunks: at 100 % it is at its limit.",
            [("sum by (instance) (rate(streamguard_chunk_seconds_sum{WORKER}[RATE]))", "{{instance}}")],
            "percentunit", lines_at=thresholds((0.8, YELLOW), (0.95, RED)), size=(12, 8),
            runbooks=["StreamGuardLagGrowing"],
        ),
        timeseries(
            "Events", "Scored by each worker.",
            [("sum by (instance) (rate(streamguard_events_total{WORKER}[RATE]))", "{{instance}}")], "cps",
            stacked=True, size=(12, 8), runbooks=["StreamGuardNoEvents"],
        ),
    ]  # fmt: skip
