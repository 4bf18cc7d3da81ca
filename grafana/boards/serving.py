"""Serving: whether the page answers, how fast, and how far it has followed its topics."""

from __future__ import annotations

from grafana.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    quantile,
    row,
    stat,
    thresholds,
    timeseries,
    value_names,
)  # fmt: skip

NAME = "serving"
TITLE = "Serving"
SAYS = (
    "The API and the page: whether they answer, how fast, and how far the projection has followed its topics."
)

ERRORS = (
    "sum(rate(streamguard_serve_requests_total{SERVE_ERRORS}[RATE]))"
    " / (sum(rate(streamguard_serve_requests_total{WORKER}[RATE])) > 0)"
)
READ = "sum by (topic, result) (rate(streamguard_serve_records_total{WORKER}[RATE]))"
STALE_STEPS = thresholds((5, YELLOW), (60, RED))
SLOW_STEPS = thresholds((0.1, YELLOW), (1, RED))


def panels() -> list[Json]:
    """Panels: what people notice, then the projection, then the process."""
    return [
        stat(
            "Ready", "Whether every server answers /readyz with 200.", "min(streamguard_serve_ready{WORKER})",
            "bool_yes_no", mappings=value_names(ready=(1, GREEN), not_ready=(0, RED)),
            steps=thresholds((1, GREEN), base=RED), size=(4, 4), runbooks=["StreamGuardServeDown"],
        ),
        stat(
            "Staleness", "Time since the server was last known to reflect a whole topic; the oldest counts.",
            "max(streamguard_serve_staleness_seconds{WORKER})", "s", steps=STALE_STEPS, size=(4, 4),
            runbooks=["StreamGuardServeBehind"],
        ),
        stat(
            "Errors", "Share of requests that are answered with a status of 500 or more.", ERRORS, "percentunit",
            steps=thresholds((0.001, YELLOW), (0.05, RED)), decimals=2, empty="no requests", size=(4, 4),
            runbooks=["StreamGuardServeErrors"],
        ),
        stat(
            "API, p99", "Time to answer a request of the API, 99th percentile.",
            'histogram_quantile(0.99, sum by (le) (rate(streamguard_serve_request_seconds_bucket{API}[RATE])))',
            "s", steps=SLOW_STEPS, empty="no requests", size=(4, 4), runbooks=["StreamGuardServeSlow"],
        ),
        stat(
            "Open incidents", "Incidents that are not closed, whether or not they are raised to a person.",
            "max(streamguard_serve_open_incidents{WORKER})", "none", decimals=0, size=(4, 4),
        ),
        stat(
            "Open streams", "Browsers that show the page, and programs that watch, over all servers.",
            "sum(streamguard_serve_open_streams{WORKER})", "none", decimals=0, size=(4, 4),
        ),
        row("Requests"),
        timeseries(
            "Requests", "Requests per second, by the class of their route.",
            [("sum by (route) (rate(streamguard_serve_requests_total{WORKER}[RATE]))", "{{route}}")], "cps",
            stacked=True,
        ),
        timeseries(
            "Answers", "Requests per second, by the class of their status.",
            [("sum by (status) (rate(streamguard_serve_requests_total{WORKER}[RATE]))", "{{status}}")], "cps",
            stacked=True, runbooks=["StreamGuardServeErrors"],
        ),
        timeseries(
            "Time of a request, p99", "99th percentile, by the class of the route; of a stream, to its beginning.",
            [(quantile(0.99, "streamguard_serve_request_seconds", "route"), "{{route}}")], "s",
            lines_at=SLOW_STEPS, runbooks=["StreamGuardServeSlow"],
        ),
        row("The topics"),
        timeseries(
            "Staleness", "Time since the server was last known to reflect the topic; the changelog has the profiles.",
            [("max by (topic) (streamguard_serve_staleness_seconds{WORKER})", "{{topic}}")], "s",
            lines_at=STALE_STEPS, runbooks=["StreamGuardServeBehind"],
        ),
        timeseries(
            "Records to read", "Offsets of the topic that were not read yet; many after a start without a projection.",
            [("max by (topic) (streamguard_serve_lag_records{WORKER})", "{{topic}}")], "short",
            runbooks=["StreamGuardServeBehind"],
        ),
        timeseries(
            "Topics that cannot be followed", "Servers that cannot follow the topic.",
            [("sum by (topic) (streamguard_serve_trouble{WORKER})", "{{topic}}")], "none",
            runbooks=["StreamGuardServeNotFollowing"],
        ),
        timeseries(
            "Records read", "Records per second: those in the projection, and those that were passed over, by reason.",
            [(f"{READ} > 0", "{{topic}}: {{result}}")],
            "cps",
        ),
        timeseries(
            "Audit log", "Records that Kafka has not acknowledged, and answers with names that were refused for that.",
            [
                ("sum(streamguard_serve_audit_waiting{WORKER})", "waiting records"),
                ("sum(rate(streamguard_serve_audit_refused_total{WORKER}[RATE]))", "refused answers per second"),
            ],
            "short", runbooks=["StreamGuardServeNoAudit"],
        ),
        timeseries(
            "Incidents", "Incidents in the projection, and those of them that are not closed.",
            [
                ("max(streamguard_serve_incidents{WORKER})", "all"),
                ("max(streamguard_serve_open_incidents{WORKER})", "open"),
            ],
            "short",
        ),
        row("Partitions of the profiles"),
        timeseries(
            "Partitions", "By who answers for them, at each server: itself, only a peer, or no server.",
            [("sum by (instance, where) (streamguard_serve_partitions{WORKER})", "{{instance}}: {{where}}")], "none",
        ),
        timeseries(
            "Questions to peers", "Questions to other servers about profiles; failed ones include the regular check.",
            [("sum by (result) (rate(streamguard_serve_peer_requests_total{WORKER}[RATE]))", "{{result}}")], "cps",
        ),
        row("Profiles"),
        timeseries(
            "Changelog", "Records per second of the state changelog, from which the copies of profiles are made.",
            [("sum by (result) (rate(streamguard_serve_replica_records_total{WORKER}[RATE]))", "{{result}}")], "cps",
            runbooks=["StreamGuardServeDamagedBatch"],
        ),
        timeseries(
            "Checkpoints", "Exact snapshots per second that the copies reach, in all partitions.",
            [("sum(rate(streamguard_serve_replica_checkpoints_total{WORKER}[RATE]))", "checkpoints")], "cps",
        ),
        timeseries(
            "Copies built again", "Copies of a partition that were deleted and built again, per second.",
            [("sum(rate(streamguard_serve_replica_rebuilt_total{WORKER}[RATE]))", "copies")], "cps",
        ),
        timeseries(
            "Topics that are followed", "Servers whose thread for the topic runs.",
            [("sum by (topic) (streamguard_serve_following{WORKER})", "{{topic}}")], "none",
            runbooks=["StreamGuardServeThreadEnded"],
        ),
        row("The process"),
        timeseries(
            "Streams", "Open streams, by server; each accepts 200.",
            [("sum by (instance) (streamguard_serve_open_streams{WORKER})", "{{instance}}")], "none",
        ),
        timeseries(
            "Processor", "Cores used by each server.",
            [("sum by (instance) (rate(process_cpu_seconds_total{SERVE_PROCESS}[RATE]))", "{{instance}}")], "none",
        ),
        timeseries(
            "Memory", "Resident memory of each server.",
            [("sum by (instance) (process_resident_memory_bytes{SERVE_PROCESS})", "{{instance}}")], "bytes",
        ),
    ]  # fmt: skip
