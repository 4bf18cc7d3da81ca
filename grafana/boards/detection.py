"""What is found: how much is flagged, what it is, how fast it is told, and what could not be read."""

from __future__ import annotations

from grafana.boards.overview import ALERTED_EVENTS, ALERTS, DEAD, FLAGGED_STEPS
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
SAYS = "How much is flagged, what it is, how fast it is told, what could not be read, what a challenger would do."

DEAD_SHARE = (
    "sum(rate(streamguard_dead_letters_total{WORKER}[RATE]))"
    " / (sum(rate(streamguard_dead_letters_total{WORKER}[RATE]))"
    " + sum(rate(streamguard_events_total{WORKER}[RATE])) > 0)"
)
DEAD_STEPS = thresholds((0.001, YELLOW), (0.01, RED))


def panels() -> list[Json]:
    """From how much to how it was judged."""
    return [
        stat(
            "Flagged", "Share of events that belong to an incident.", ALERTED_EVENTS, "percentunit", steps=FLAGGED_STEPS,
            decimals=2, empty="no events", size=(4, 4), runbooks=["StreamGuardAlertsMany"],
        ),
        stat(
            "Critical", "Incidents of this severity within the time that is looked at.",
            'sum(increase(streamguard_alerts_total{WORKER_CRITICAL}[$__range]))', "none", decimals=0,
            steps=thresholds((1, RED)), size=(4, 4),
        ),
        stat(
            "High", "Incidents of this severity within the time that is looked at.",
            'sum(increase(streamguard_alerts_total{WORKER_HIGH}[$__range]))', "none", decimals=0,
            steps=thresholds((1, YELLOW)), size=(4, 4),
        ),
        stat(
            "All alerts", "Incidents, new or risen, within the time that is looked at; severities as chosen above.",
            "sum(increase(streamguard_alerts_total{SEVERITY}[$__range]))", "none", decimals=0, size=(4, 4),
        ),
        stat(
            "Event to alert, p99", "One alert in a hundred takes longer.",
            quantile(0.99, "streamguard_event_to_alert_seconds"), "s", steps=thresholds((0.25, YELLOW), (1, RED)),
            empty="no alerts", size=(4, 4), runbooks=["StreamGuardEventToAlertSlow"],
        ),
        stat(
            "Unreadable", "Share of records that went to the dead-letter topic.", DEAD_SHARE, "percentunit", decimals=2,
            steps=DEAD_STEPS, empty="no records", size=(4, 4), runbooks=["StreamGuardDeadLetters"],
        ),
        row("How much"),
        timeseries(
            "Flagged", "Share of events that belong to an incident, of all partitions together.", [(ALERTED_EVENTS,
            "flagged")],
            "percentunit", lines_at=FLAGGED_STEPS, runbooks=["StreamGuardAlertsMany", "StreamGuardAlertsSilent"],
        ),
        timeseries(
            "Flagged by partition", "Each partition calibrates itself by its own history; a new one knows little.",
            [(
                "sum by (partition) (rate(streamguard_alerted_events_total{PARTITION}[RATE]))"
                " / (sum by (partition) (rate(streamguard_events_total{PARTITION}[RATE])) > 0)",
                "{{partition}}",
            )],
            "percentunit",
        ),
        timeseries(
            "Users never seen before",
            "Share of events whose user has no profile yet: floods of made-up names show here.",
            [(
                'sum(rate(streamguard_profile_lookups_total{WORKER_NOWHERE}[RATE]))'
                " / (sum(rate(streamguard_profile_lookups_total{WORKER}[RATE])) > 0)",
                "new users",
            )],
            "percentunit",
        ),
        row("What"),
        timeseries(
            "Alerts a minute by severity", "Incidents published, new or risen.", [(ALERTS, "{{severity}}")], "cpm",
            stacked=True,
            bars=True, runbooks=["StreamGuardAlertsMany"],
        ),
        timeseries(
            "Alerts a minute by kind", "Of a user, a source that fails at many users, or a whole partition's crowd.",
            [("60 * sum by (entity) (rate(streamguard_alerts_total{SEVERITY}[RATE]))", "{{entity}}")], "cpm",
            stacked=True, bars=True,
        ),
        bars(
            "Kinds and severities", "Within the time that is looked at.",
            "sort_desc(sum by (entity, severity) (increase(streamguard_alerts_total{SEVERITY}[$__range])) > 0)",
            "{{entity}}, {{severity}}", "none",
        ),
        timeseries(
            "Patterns a minute", "Named in published incidents.",
            [("60 * sum by (pattern) (rate(streamguard_alert_patterns_total{WORKER}[RATE])) > 0", "{{pattern}}")],
            "cpm", stacked=True, bars=True, size=(16, 8),
        ),
        bars(
            "Patterns", "Named in incidents within the time that is looked at.",
            "sort_desc(sum by (pattern) (increase(streamguard_alert_patterns_total{WORKER}[$__range])) > 0)",
            "{{pattern}}", "none",
        ),
        row("How fast"),
        timeseries(
            "Event to alert", "From an event's record time to the acknowledgement of its incident.",
            quantiles("streamguard_event_to_alert_seconds", 0.5, 0.9, 0.99), "s", lines_at=thresholds((0.25, RED)),
            runbooks=["StreamGuardEventToAlertSlow"],
        ),
        heatmap(
            "Event to alert", "The same, all of it; darker is more.", "streamguard_event_to_alert_seconds",
        ),
        timeseries(
            "Event to verdict", "The same for events that are not flagged: the first event of each chunk.",
            quantiles("streamguard_event_to_verdict_seconds", 0.5, 0.9, 0.99), "s",
        ),
        row("What could not be read"),
        timeseries(
            "Dead letters", "Records that could not be scored, by reason; each is in the dead-letter topic.",
            [(DEAD, "{{reason}}")], "none", stacked=True, bars=True, size=(12, 8), runbooks=["StreamGuardDeadLetters"],
        ),
        timeseries(
            "Unreadable", "Share of records that went to the dead-letter topic.", [(DEAD_SHARE, "unreadable")],
            "percentunit", lines_at=DEAD_STEPS, size=(12, 8), runbooks=["StreamGuardDeadLetters"],
        ),
    ]  # fmt: skip
