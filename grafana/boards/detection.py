"""Detection: share of alerted events, kinds of incidents, latency, and unreadable records."""

from __future__ import annotations

from grafana.boards.overview import ALERTED_EVENTS, ALERTED_STEPS, ALERTS, DEAD
from grafana.panels import (
    RED,
    YELLOW,
    Json,
    bars,
    heatmap,
    quantile,
    quantiles,
    row,
    stat,
    thresholds,
    timeseries,
)  # fmt: skip

NAME = "detection"
TITLE = "Detection"
SAYS = "Share of alerted events, kinds of incidents, time from event to alert, and records that could not be read."

DEAD_SHARE = (
    "sum(rate(streamguard_dead_letters_total{WORKER}[RATE]))"
    " / (sum(rate(streamguard_dead_letters_total{WORKER}[RATE]))"
    " + sum(rate(streamguard_events_total{WORKER}[RATE])) > 0)"
)
SUMMARISED_SHARE = (
    "sum(rate(streamguard_summarised_records_total{WORKER}[RATE]))"
    " / (sum(rate(streamguard_dead_letters_total{WORKER}[RATE]))"
    " + sum(rate(streamguard_events_total{WORKER}[RATE])) > 0)"
)
DEAD_STEPS = thresholds((0.001, YELLOW), (0.01, RED))


def panels() -> list[Json]:
    """Panels: amounts, kinds, latency, unreadable records."""
    return [
        stat(
            "Alerted events", "Share of events above the alert threshold.", ALERTED_EVENTS, "percentunit",
            steps=ALERTED_STEPS, decimals=2, empty="no events", size=(4, 4), runbooks=["StreamGuardAlertsMany"],
        ),
        stat(
            "Critical", "Incidents of this severity within the selected time range.",
            'sum(increase(streamguard_published_incidents_total{WORKER_CRITICAL}[$__range]))', "none", decimals=0,
            steps=thresholds((1, RED)), size=(4, 4),
        ),
        stat(
            "High", "Incidents of this severity within the selected time range.",
            'sum(increase(streamguard_published_incidents_total{WORKER_HIGH}[$__range]))', "none", decimals=0,
            steps=thresholds((1, YELLOW)), size=(4, 4),
        ),
        stat(
            "All incidents",
            "Incidents published within the selected time range, with the selected severities.",
            "sum(increase(streamguard_published_incidents_total{SEVERITY}[$__range]))", "none", decimals=0, size=(4, 4),
        ),
        stat(
            "Event to alert, p99", "One incident in a hundred takes longer than this.",
            quantile(0.99, "streamguard_event_to_alert_seconds"), "s", steps=thresholds((0.25, YELLOW), (1, RED)),
            empty="no incidents", size=(4, 4), runbooks=["StreamGuardEventToAlertSlow"],
        ),
        stat(
            "Unreadable", "Share of records that went to the dead-letter topic.", DEAD_SHARE, "percentunit",
            decimals=2, steps=DEAD_STEPS, empty="no records", size=(4, 4), runbooks=["StreamGuardDeadLetters"],
        ),
        row("Amount"),
        timeseries(
            "Alerted events", "Share of events above the alert threshold, in all partitions together.",
            [(ALERTED_EVENTS, "alerted")], "percentunit", lines_at=ALERTED_STEPS,
            runbooks=["StreamGuardAlertsMany", "StreamGuardAlertsSilent"],
        ),
        timeseries(
            "Alerted events by partition",
            "Each partition is calibrated by its own history; a new partition has little history.",
            [(
                "sum by (partition) (rate(streamguard_alerted_events_total{PARTITION}[RATE]))"
                " / (sum by (partition) (rate(streamguard_events_total{PARTITION}[RATE])) > 0)",
                "{{partition}}",
            )],
            "percentunit",
        ),
        timeseries(
            "Users never seen before",
            "Share of events whose user has no profile yet; a flood of invented names appears here.",
            [(
                'sum(rate(streamguard_profile_lookups_total{WORKER_NOWHERE}[RATE]))'
                " / (sum(rate(streamguard_profile_lookups_total{WORKER}[RATE])) > 0)",
                "new users",
            )],
            "percentunit",
        ),
        row("Kinds"),
        timeseries(
            "Incidents per minute by severity", "Incidents published, new ones and updates.",
            [(ALERTS, "{{severity}}")],
            "cpm", stacked=True, bars=True, runbooks=["StreamGuardAlertsMany"],
        ),
        timeseries(
            "Incidents per minute by kind",
            "Incidents of a user, of a source that fails for many users, or of the crowd of a partition.",
            [("60 * sum by (entity) (rate(streamguard_published_incidents_total{SEVERITY}[RATE]))", "{{entity}}")],
            "cpm",
            stacked=True, bars=True,
        ),
        bars(
            "Kinds and severities", "Incidents published within the selected time range.",
            "sort_desc(sum by (entity, severity)"
            " (increase(streamguard_published_incidents_total{SEVERITY}[$__range])) > 0)",
            "{{entity}}, {{severity}}", "none",
        ),
        timeseries(
            "Patterns per minute", "Patterns in published incidents.",
            [("60 * sum by (pattern) (rate(streamguard_incident_patterns_total{WORKER}[RATE])) > 0", "{{pattern}}")],
            "cpm", stacked=True, bars=True, size=(16, 8),
        ),
        bars(
            "Patterns", "Patterns in published incidents within the selected time range.",
            "sort_desc(sum by (pattern) (increase(streamguard_incident_patterns_total{WORKER}[$__range])) > 0)",
            "{{pattern}}", "none",
        ),
        row("Latency"),
        timeseries(
            "Event to alert", "Time from an event's record time to the acknowledgement of its incident.",
            quantiles("streamguard_event_to_alert_seconds", 0.5, 0.9, 0.99), "s", lines_at=thresholds((0.25, RED)),
            runbooks=["StreamGuardEventToAlertSlow"],
        ),
        heatmap(
            "Event to alert", "Distribution of the same time; a darker colour means more incidents.",
            "streamguard_event_to_alert_seconds",
        ),
        timeseries(
            "Event to verdict", "Time from record time to verdict of the first event of each chunk, alerted or not.",
            quantiles("streamguard_event_to_verdict_seconds", 0.5, 0.9, 0.99), "s",
        ),
        row("Unreadable records"),
        timeseries(
            "Dead letters per minute",
            "Records that could not be scored, by reason; the dead-letter topic contains or lists each of them.",
            [(DEAD, "{{reason}}")], "none", stacked=True, bars=True, size=(8, 8),
            runbooks=["StreamGuardDeadLetters"],
        ),
        timeseries(
            "Unreadable", "Share of records that went to the dead-letter topic, and of those that it only lists.",
            [(DEAD_SHARE, "unreadable"), (SUMMARISED_SHARE, "only listed")],
            "percentunit", lines_at=DEAD_STEPS, size=(8, 8), runbooks=["StreamGuardDeadLetters"],
        ),
        timeseries(
            "Repaired events per minute", "Events that were scored after a repair, by repair.",
            [("60 * sum by (repair) (rate(streamguard_repaired_events_total{WORKER}[RATE]))", "{{repair}}")],
            "none", stacked=True, bars=True, size=(8, 8),
        ),
        timeseries(
            "Not understood", "Share of events with a status, source address or location that is not understood.",
            [(
                "sum by (field) (rate(streamguard_not_understood_events_total{WORKER}[RATE]))"
                " / ignoring(field) group_left sum(rate(streamguard_events_total{WORKER}[RATE]))",
                "{{field}}",
            )],
            "percentunit", size=(8, 8), runbooks=["StreamGuardNotUnderstood"],
        ),
        timeseries(
            "Dated into the future",
            "Share of events with a time more than 10 minutes after their records were appended; a wrong clock or a "
            "forged time. They are scored at the latest time that is possible.",
            [(
                "sum by (partition) (rate(streamguard_clamped_events_total{PARTITION}[RATE]))"
                " / (sum by (partition) (rate(streamguard_events_total{PARTITION}[RATE])) > 0)",
                "{{partition}}",
            )],
            "percentunit", size=(8, 8),
        ),
        timeseries(
            "Decisions per minute", "Decisions of people that were read from the events topic, by what became of them.",
            [("60 * sum by (outcome) (rate(streamguard_decisions_total{WORKER}[RATE]))", "{{outcome}}")],
            "none", stacked=True, bars=True, size=(8, 8),
        ),
    ]  # fmt: skip
