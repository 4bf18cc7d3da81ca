"""Campaigns: how many reach a person, how long rounds take, and whether the process follows the alerts."""

from __future__ import annotations

from grafana.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    quantiles,
    stat,
    thresholds,
    timeseries,
    value_names,
)  # fmt: skip

NAME = "campaigns"
TITLE = "Campaigns"
SAYS = "Incidents of one attack as one campaign: how many reach a person, and whether the process follows the alerts."

LAG_STEPS = thresholds((60, YELLOW), (300, RED))


def panels() -> list[Json]:
    """Panels: what reaches a person, then the process."""
    return [
        stat(
            "Ready", "Whether the campaigns process answers /readyz with 200.",
            "max(streamguard_campaigns_ready{WORKER})", "bool_yes_no",
            mappings=value_names(ready=(1, GREEN), not_ready=(0, RED)), steps=thresholds((1, GREEN), base=RED),
            size=(4, 4), runbooks=["StreamGuardCampaignsDown", "StreamGuardCampaignsStalled"],
        ),
        stat(
            "Raised a day", "Raised campaigns a day, over the last week of alerts.",
            "max(streamguard_campaigns_raised_per_day{WEEK})", "none", decimals=1, steps=thresholds((5, YELLOW)),
            size=(4, 4), runbooks=["StreamGuardCampaignsMany"],
        ),
        stat(
            "Raised in the last day", "Raised campaigns that began within a day before the latest alert.",
            "max(streamguard_campaigns_raised_per_day{DAY})", "none", decimals=0, size=(4, 4),
        ),
        stat(
            "Open campaigns", "Campaigns that further incidents may join.", "max(streamguard_campaigns_open{WORKER})",
            "none", decimals=0, size=(4, 4),
        ),
        stat(
            "Waiting", "Time for which the oldest incident has not been part of a published round.",
            "max(streamguard_campaigns_lag_seconds{WORKER})", "s", steps=LAG_STEPS, size=(4, 4),
            runbooks=["StreamGuardCampaignsStalled"],
        ),
        stat(
            "Window",
            "Time of alerts from which campaigns are computed; 37 days unless the topic or the memory holds less.",
            "max(streamguard_campaigns_window_seconds{WORKER})", "s", size=(4, 4),
        ),
        timeseries(
            "Raised campaigns", "Campaigns in the topic that are raised to a person, by severity.",
            [("max by (severity) (streamguard_campaigns_raised{SEVERITY})", "{{severity}}")], "none", stacked=True,
        ),
        timeseries(
            "Raised a day and the promise", "Raised campaigns a day, and the number that a person is expected to read.",
            [
                ("max by (over) (streamguard_campaigns_raised_per_day{WORKER})", "{{over}}"),
                ("max(streamguard_campaigns_promised_per_day{WORKER})", "promise"),
            ],
            "none", runbooks=["StreamGuardCampaignsMany"],
        ),
        timeseries(
            "Campaigns and updates", "Campaigns in the topic, and updates of incidents from which they are computed.",
            [
                ("max(streamguard_campaigns_current{WORKER})", "campaigns"),
                ("max(streamguard_campaigns_updates{WORKER})", "updates"),
            ],
            "short",
        ),
        timeseries(
            "Published changes", "Records written to the campaigns topic.",
            [("sum by (change) (rate(streamguard_campaigns_published_total{WORKER}[RATE]))", "{{change}}")], "cps",
        ),
        timeseries(
            "Round", "Time to compute all campaigns and publish those that have changed.",
            quantiles("streamguard_campaigns_round_seconds", 0.5, 0.99), "s",
        ),
        timeseries(
            "Records read", "Records of the alerts topic: incidents, and records that were passed over, by reason.",
            [("sum by (result) (rate(streamguard_campaigns_alert_records_total{WORKER}[RATE]))", "{{result}}")], "cps",
        ),
        timeseries(
            "Lag", "Offsets of the alerts topic that were not read yet.",
            [("max(streamguard_campaigns_lag_records{WORKER})", "offsets")], "none",
        ),
        timeseries(
            "Processor", "Cores used by the campaigns process; rounds use at most a quarter of one.",
            [("sum by (instance) (rate(process_cpu_seconds_total{CAMPAIGNS_PROCESS}[RATE]))", "{{instance}}")], "none",
        ),
        timeseries(
            "Memory", "Resident memory of the campaigns process.",
            [("sum by (instance) (process_resident_memory_bytes{CAMPAIGNS_PROCESS})", "{{instance}}")], "bytes",
        ),
    ]  # fmt: skip
