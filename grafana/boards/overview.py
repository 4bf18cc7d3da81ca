"""Is it up, is it behind, does it flag too much, which model, how old: in one row; below it, what to look at next."""

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
SAYS = "The first row answers: up, behind, flagging too much, which model, how old."

READY = "(sum(streamguard_ready{WORKER}) or vector(0)) / count(up{PROCESS})"
BEHIND = "max(streamguard_lag_seconds{PARTITION})"
ALERTED_EVENTS = (
    "sum(rate(streamguard_alerted_events_total{PARTITION}[RATE]))"
    " / (sum(rate(streamguard_events_total{PARTITION}[RATE])) > 0)"
)
ALERTS = "60 * sum by (severity) (rate(streamguard_alerts_total{SEVERITY}[RATE]))"
MODEL_AGE = "time() - max(streamguard_model_published_timestamp_seconds{WORKER} > 0)"
RETRAIN_AGE = "time() - max(streamguard_retrain_last_success_timestamp_seconds{WORKER} > 0)"
DEAD = "60 * sum by (reason) (rate(streamguard_dead_letters_total{WORKER}[RATE]))"

DAY = 86_400.0
LAG_STEPS = thresholds((5, YELLOW), (60, RED))
FLAGGED_STEPS = thresholds((0.003, YELLOW), (0.01, RED))
AGE_STEPS = thresholds((0.25 * DAY, YELLOW), (DAY, RED))

WHERE = """
| if | look at | and read |
|---|---|---|
| a worker is not ready | [Worker](/d/streamguard-worker) | [what to do](${runbooks}#streamguardnotready) |
| events wait | [Kafka and state](/d/streamguard-kafka) | [what to do](${runbooks}#streamguardlaggrowing) |
| it flags too much | [Detection](/d/streamguard-detection) | [what to do](${runbooks}#streamguardalertsmany) |
| the model is old | [Models and batch](/d/streamguard-models) | [what to do](${runbooks}#streamguardmodelstale) |
"""


def panels() -> list[Json]:
    """From the most urgent to the least."""
    return [
        stat(
            "Workers ready", "Share of the workers that Prometheus knows whose /readyz is green.", READY, "percentunit",
            steps=thresholds((0.5, YELLOW), (1, GREEN), base=RED), decimals=0, size=(4, 4),
            runbooks=["StreamGuardWorkerDown", "StreamGuardNotReady"],
        ),
        stat(
            "Behind", "Age of the oldest event that waits in any partition; 0 if none waits.", BEHIND, "s",
            steps=LAG_STEPS, size=(4, 4), runbooks=["StreamGuardLagSeconds", "StreamGuardLagGrowing"],
        ),
        stat(
            "Flagged", "Share of events that belong to an incident: one in a thousand is what the default asks for.",
            ALERTED_EVENTS, "percentunit", steps=FLAGGED_STEPS, decimals=2, empty="no events", size=(4, 4),
            runbooks=["StreamGuardAlertsMany", "StreamGuardAlertsSilent"],
        ),
        stat(
            "Model", "Version of the forest in use; more than one while workers disagree.",
            "count by (version) (streamguard_model_info{WORKER} == 1)", "string", legend="{{version}}", name=True,
            empty="none: statistics alone", size=(4, 4),
            runbooks=["StreamGuardModelRefused", "StreamGuardWorkersDisagree"],
        ),
        stat(
            "Model's age", "Since the newest forest in use was published.", MODEL_AGE, "s",
            steps=AGE_STEPS, size=(4, 4), runbooks=["StreamGuardModelStale"],
        ),
        stat(
            "Last good retrain", "Since the last run that did not fail.", RETRAIN_AGE, "s", steps=AGE_STEPS, size=(4,
            4),
            runbooks=["StreamGuardRetrainLate", "StreamGuardRetrainFailing"],
        ),
        row("Events"),
        timeseries(
            "Events scored", "By partition.",
            [("sum by (partition) (rate(streamguard_events_total{PARTITION}[RATE]))", "{{partition}}")],
            "cps", stacked=True, runbooks=["StreamGuardNoEvents"],
        ),
        timeseries(
            "Behind", "Age of the oldest event that waits, by partition.",
            [("max by (partition) (streamguard_lag_seconds{PARTITION})", "{{partition}}")], "s", lines_at=LAG_STEPS,
            runbooks=["StreamGuardLagSeconds"],
        ),
        timeseries(
            "Event to alert", "From an event's record time to the acknowledgement of its incident.",
            quantiles("streamguard_event_to_alert_seconds", 0.5, 0.99), "s", lines_at=thresholds((0.25, RED)),
            runbooks=["StreamGuardEventToAlertSlow"],
        ),
        row("Assessment"),
        timeseries(
            "Alerts a minute", "Incidents published, new or risen, by severity.", [(ALERTS, "{{severity}}")], "cpm",
            stacked=True, bars=True, runbooks=["StreamGuardAlertsMany"],
        ),
        bars(
            "Patterns", "Named in incidents within the time that is looked at.",
            "sort_desc(sum by (pattern) (increase(streamguard_alert_patterns_total{WORKER}[$__range])) > 0)",
            "{{pattern}}", "none",
        ),
        timeseries(
            "Dead letters a minute", "Records that could not be scored, by reason.", [(DEAD, "{{reason}}")], "cpm",
            stacked=True, bars=True, runbooks=["StreamGuardDeadLetters"],
        ),
        row("Workers"),
        table(
            "Workers", "One line each.", "instance",
            [
                ("ready", "bool_yes_no", "sum by (instance) (streamguard_ready{WORKER})"),
                ("partitions", "none", 'sum by (instance) (streamguard_partitions{WORKER})'),
                ("events/s", "none", "sum by (instance) (rate(streamguard_events_total{WORKER}[RATE]))"),
                ("behind", "s", "max by (instance) (streamguard_lag_seconds{WORKER})"),
                ("cores", "none", "sum by (instance) (rate(process_cpu_seconds_total{PROCESS}[RATE]))"),
                ("memory", "bytes", "sum by (instance) (process_resident_memory_bytes{PROCESS})"),
                ("up for", "s", "time() - max by (instance) (process_start_time_seconds{PROCESS})"),
            ],
            size=(24, 6),
        ),
        firing("Alerts of Prometheus", "What fires or is about to, of all jobs.", size=(12, 7)),
        text("Where to look", "The other dashboards and the runbooks.", WHERE, size=(12, 7)),
    ]  # fmt: skip
