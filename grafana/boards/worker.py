"""Worker: processor and memory that it uses, and the time of a chunk."""

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
SAYS = "Processor and memory that workers use, and where the time of a chunk is spent."

LOOP_STEPS = thresholds((0.1, YELLOW), (1, RED))
CPU = "rate(process_cpu_seconds_total{PROCESS}[RATE])"


def panels() -> list[Json]:
    """Panels, from the process to the chunk."""
    return [
        stat(
            "Up", "Workers that answer scrapes.", "sum(up{PROCESS})", "none", steps=thresholds((1, GREEN), base=RED),
            size=(4, 4), runbooks=["StreamGuardWorkerDown", "StreamGuardNoWorkers"],
        ),
        stat(
            "Ready", "Workers whose /readyz returns 200.", "sum(streamguard_ready{PROCESS})", "none",
            steps=thresholds((1, GREEN), base=RED), size=(4, 4), runbooks=["StreamGuardNotReady"],
        ),
        stat(
            "CPU per event",
            "Processor time of all workers per scored event; with little traffic, waiting for events uses most of it.",
            f"sum({CPU}) / (sum(rate(streamguard_events_total{{WORKER}}[RATE])) > 0)", "s",
            empty="no events", size=(4, 4),
        ),
        stat(
            "Memory", "Resident memory of the largest worker.", "max(process_resident_memory_bytes{PROCESS})",
            "bytes", size=(4, 4),
        ),
        stat(
            "Last start", "Time since the last start of a worker.",
            "time() - max(process_start_time_seconds{PROCESS})", "s",
            size=(4, 4), runbooks=["StreamGuardRestarts"],
        ),
        stat(
            "Version", "Version of StreamGuard.", "count by (version) (streamguard_build_info{PROCESS})", "string",
            legend="{{version}}", name=True, size=(4, 4),
        ),
        row("Process"),
        timeseries(
            "Processor", "Cores in use. A worker folds on one core; RocksDB and the network need a little more.",
            [(f"sum by (instance) ({CPU})", "{{instance}}")], "none", lines_at=thresholds((0.9, YELLOW)),
        ),
        timeseries(
            "CPU per event", "Processor time per scored event.",
            [(
                f"sum by (instance) ({CPU}) / (sum by (instance) (rate(streamguard_events_total{{WORKER}}[RATE])) > 0)",
                "{{instance}}",
            )],
            "s",
        ),
        timeseries(
            "Memory", "Resident memory. worker.resident_profiles and worker.block_cache_mb limit it.",
            [("sum by (instance) (process_resident_memory_bytes{PROCESS})", "{{instance}}")], "bytes",
        ),
        timeseries(
            "Open files", "Open files as a share of the limit: connections and RocksDB's files.",
            [(
                "max by (instance) (process_open_fds{PROCESS} / process_max_fds{PROCESS})", "{{instance}}",
            )],
            "percentunit", lines_at=thresholds((0.8, RED)),
        ),
        timeseries(
            "Garbage collection",
            "Python's collections by generation; those of the oldest generation take the most time.",
            [("sum by (generation) (rate(python_gc_collections_total{PROCESS}[RATE]))", "generation {{generation}}")],
            "cps",
        ),
        timeline(
            "Ready", "Whether /readyz returns 200.",
            [("max by (instance) (streamguard_ready{WORKER})", "{{instance}}")],
            value_names(ready=(1, GREEN), not_ready=(0, RED)), size=(8, 8), runbooks=["StreamGuardNotReady"],
        ),
        row("Time of a chunk"),
        timeseries(
            "Chunk", "Time from receiving a chunk of records to passing its verdicts to the publisher.",
            quantiles("streamguard_chunk_seconds", 0.5, 0.9, 0.99), "s",
        ),
        timeseries(
            "Scoring", "Part of the chunk's time: decoding, folding and scoring.",
            quantiles("streamguard_scoring_seconds", 0.5, 0.9, 0.99), "s",
        ),
        timeseries(
            "Records in a chunk", "Low while a worker keeps up; worker.chunk_events while it works on a backlog.",
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
        heatmap(
            "Scoring", "Scoring time of all chunks; a darker colour means more chunks.",
            "streamguard_scoring_seconds",
        ),
        timeseries(
            "Event to verdict", "Time from the record time of a chunk's first event to its verdict.",
            quantiles("streamguard_event_to_verdict_seconds", 0.5, 0.99), "s",
        ),
        timeseries(
            "Event loop delay",
            "Delay with which the main thread wakes up; it does not run other tasks while it folds.",
            quantiles("streamguard_event_loop_delay_seconds", 0.5, 0.99), "s", lines_at=LOOP_STEPS,
        ),
        timeseries(
            "Busy",
            "Share of time in which a worker's main thread handles chunks; at 100 % the worker is at its limit.",
            [("sum by (instance) (rate(streamguard_chunk_seconds_sum{WORKER}[RATE]))", "{{instance}}")],
            "percentunit", lines_at=thresholds((0.8, YELLOW), (0.95, RED)), size=(12, 8),
            runbooks=["StreamGuardLagGrowing"],
        ),
        timeseries(
            "Events", "Events scored per second by each worker.",
            [("sum by (instance) (rate(streamguard_events_total{WORKER}[RATE]))", "{{instance}}")], "cps",
            stacked=True, size=(12, 8), runbooks=["StreamGuardNoEvents"],
        ),
    ]  # fmt: skip
