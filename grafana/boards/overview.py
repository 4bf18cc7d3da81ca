"""Overview: the first row shows availability, lag, alert rate and model; the rows below show the details."""

from __future__ import annotations

from grafana.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    bars,
    firing,
    quantiles,
    row,
    stat,
    table,
    text,
    thresholds,
    timeseries,
)  # fmt: skip

NAME = "overview"
TITLE = "Overview"
SAYS = "The first row shows ready workers, the lag, the share of alerted events, and the model with its age."

READY = "(sum(streamguard_ready{PROCESS}) or vector(0)) / count(up{PROCESS})"
LAG = "max(streamguard_lag_seconds{PARTITION})"
ALERTED_EVENTS = (
    "sum(rate(streamguard_alerted_events_total{PARTITION}[RATE]))"
    " / (sum(rate(streamguard_events_total{PARTITION}[RATE])) > 0)"
)
ALERTS = "60 * sum by (severity) (rate(streamguard_published_incidents_total{SEVERITY}[RATE]))"
MODEL_AGE = "time() - max(streamguard_model_published_timestamp_seconds{WORKER} > 0)"
RETRAIN_AGE = "time() - max(streamguard_retrain_last_success_timestamp_seconds{WORKER} > 0)"
DEAD = "60 * sum by (reason) (rate(streamguard_dead_letters_total{WORKER}[RATE]))"

DAY = 86_400.0
LAG_STEPS = thresholds((5, YELLOW), (60, RED))
ALERTED_STEPS = thresholds((0.003, YELLOW), (0.01, RED))
AGE_STEPS = thresholds((0.25 * DAY, YELLOW), (DAY, RED))

WHERE = """
| problem | dashboard | runbook |
|---|---|---|
| a worker is not ready | [Worker](/d/streamguard-worker) | [Worker not ready](${runbooks}#streamguardnotready) |
| events wait | [Kafka and state](/d/streamguard-kafka) | [Lag grows](${runbooks}#streamguardlaggrowing) |
| many alerts | [Detection](/d/streamguard-detection) | [Many alerts](${runbooks}#streamguardalertsmany) |
| the model is old | [Models and batch](/d/streamguard-models) | [Stale model](${runbooks}#streamguardmodelstale) |
| the page is out of date | [Serving](/d/streamguard-serving) | [Server behind](${runbooks}#streamguardservebehind) |
"""


def panels() -> list[Json]:
    """Panels, the most urgent first."""
    return [
        stat(
            "Workers ready", "Share of the workers in Prometheus whose /readyz returns 200.", READY, "percentunit",
            steps=thresholds((0.5, YELLOW), (1, GREEN), base=RED), decimals=0, size=(4, 4),
            runbooks=["StreamGuardWorkerDown", "StreamGuardNotReady"],
        ),
        stat(
            "Lag", "Age of the oldest waiting event in any partition; 0 if no event waits.", LAG, "s",
            steps=LAG_STEPS, size=(4, 4), runbooks=["StreamGuardLagSeconds", "StreamGuardLagGrowing"],
        ),
        stat(
            "Alerted events",
            "Share of events above the alert threshold; the default threshold alerts one in a thousand.",
            ALERTED_EVENTS, "percentunit", steps=ALERTED_STEPS, decimals=2, empty="no events", size=(4, 4),
            runbooks=["StreamGuardAlertsMany", "StreamGuardAlertsSilent"],
        ),
        stat(
            "Model", "Version of the forest in use; more than one version means that workers disagree.",
            "count by (version) (streamguard_model_info{WORKER} == 1)", "string", legend="{{version}}", name=True,
            empty="no model", size=(4, 4),
            runbooks=["StreamGuardModelRefused", "StreamGuardWorkersDisagree"],
        ),
        stat(
            "Model's age", "Time since the newest forest in use was published.", MODEL_AGE, "s",
            steps=AGE_STEPS, size=(4, 4), runbooks=["StreamGuardModelStale"],
        ),
        stat(
            "Last successful retrain", "Time since the last successful run ended.", RETRAIN_AGE, "s", steps=AGE_STEPS,
            size=(4, 4), runbooks=["StreamGuardRetrainLate", "StreamGuardRetrainFailing"],
        ),
        row("Events"),
        timeseries(
            "Events scored", "Events scored per second, by partition.",
            [("sum by (partition) (rate(streamguard_events_total{PARTITION}[RATE]))", "{{partition}}")],
            "cps", stacked=True, runbooks=["StreamGuardNoEvents"],
        ),
        timeseries(
            "Lag", "Age of the oldest waiting event, by partition.",
            [("max by (partition) (streamguard_lag_seconds{PARTITION})", "{{partition}}")], "s", lines_at=LAG_STEPS,
            runbooks=["StreamGuardLagSeconds"],
        ),
        timeseries(
            "Event to alert", "Time from an event's record time to the acknowledgement of its incident.",
            quantiles("streamguard_event_to_alert_seconds", 0.5, 0.99), "s", lines_at=thresholds((0.25, RED)),
            runbooks=["StreamGuardEventToAlertSlow"],
        ),
        row("Incidents"),
        timeseries(
            "Incidents per minute", "Published incidents, new ones and updates, by severity.",
            [(ALERTS, "{{severity}}")], "cpm",
            stacked=True, bars=True, runbooks=["StreamGuardAlertsMany"],
        ),
        bars(
            "Patterns", "Patterns in published incidents within the selected time range.",
            "sort_desc(sum by (pattern) (increase(streamguard_incident_patterns_total{WORKER}[$__range])) > 0)",
            "{{pattern}}", "none",
        ),
        timeseries(
            "Dead letters per minute", "Records that could not be scored, by reason.", [(DEAD, "{{reason}}")], "cpm",
            stacked=True, bars=True, runbooks=["StreamGuardDeadLetters"],
        ),
        row("Workers"),
        table(
            "Workers", "One row for each worker.", "instance",
            [
                ("ready", "bool_yes_no", "sum by (instance) (streamguard_ready{WORKER})"),
                ("partitions", "none", 'sum by (instance) (streamguard_partitions{WORKER})'),
                ("events/s", "none", "sum by (instance) (rate(streamguard_events_total{WORKER}[RATE]))"),
                ("lag", "s", "max by (instance) (streamguard_lag_seconds{WORKER})"),
                ("cores", "none", "sum by (instance) (rate(process_cpu_seconds_total{PROCESS}[RATE]))"),
                ("memory", "bytes", "sum by (instance) (process_resident_memory_bytes{PROCESS})"),
                ("up for", "s", "time() - max by (instance) (process_start_time_seconds{PROCESS})"),
            ],
            size=(24, 6),
        ),
        firing("Prometheus alerts", "Alerts of all jobs that are firing or pending.", size=(12, 7)),
        text("Next steps", "Links to the other dashboards and to the runbooks.", WHERE, size=(12, 7)),
    ]  # fmt: skip
