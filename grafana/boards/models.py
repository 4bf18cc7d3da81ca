"""Which forest is in use and how it came to be: swaps, refusals, the challenger, and the runs that train."""

from __future__ import annotations

from grafana.boards.overview import AGE_STEPS, MODEL_AGE, RETRAIN_AGE
from grafana.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    bars,
    quantiles,
    row,
    stat,
    table,
    thresholds,
    timeline,
    timeseries,
    value_names,
)  # fmt: skip

NAME = "models"
TITLE = "Models and batch"
SAYS = (
    "Which forest is in use and how it came to be: swaps, refusals, the challenger, and the runs that train."
)

YES_NO = value_names(yes=(1, GREEN), no=(0, RED))
DRIFT = "max(streamguard_retrain_drift_psi{WORKER})"
DRIFT_STEPS = thresholds((0.25, YELLOW), (1, RED))
TRIMMED = "max(streamguard_retrain_trimmed_ratio{WORKER})"
TRIMMED_STEPS = thresholds((0.25, YELLOW), (0.5, RED))


def _shadow(metric: str) -> list[tuple[str, str]]:
    return [(
        f"sum by (role) (rate({metric}{{WORKER}}[RATE]))"
        " / on () group_left () (sum(rate(streamguard_shadow_events_total{WORKER}[RATE])) > 0)",
        "{{role}}",
    )]  # fmt: skip


def _last(title: str, description: str, *figures: tuple[str, str], unit: str = "none") -> Json:
    return timeseries(
        title, description,
        [(f"max by (instance) (streamguard_retrain_{name}{{WORKER}})", legend) for name, legend in figures], unit,
    )  # fmt: skip


def panels() -> list[Json]:
    """What is in use, then where it comes from."""
    return [
        stat(
            "Model", "Version of the forest in use.", "count by (version) (streamguard_model_info{WORKER} == 1)",
            "string",
            legend="{{version}}", name=True, empty="none: statistics alone", size=(4, 4),
            runbooks=["StreamGuardModelRefused", "StreamGuardWorkersDisagree"],
        ),
        stat(
            "Age", "Since it was published.", MODEL_AGE, "s", steps=AGE_STEPS, size=(4, 4),
            runbooks=["StreamGuardModelStale"],
        ),
        stat(
            "Last good retrain", "Since the last run that did not fail.", RETRAIN_AGE, "s", steps=AGE_STEPS, size=(4,
            4),
            runbooks=["StreamGuardRetrainLate"],
        ),
        stat(
            "Last retrain", "How the last run ended.", "min(streamguard_retrain_success{WORKER})", "bool_yes_no",
            mappings=value_names(good=(1, GREEN), failed=(0, RED)), steps=thresholds((1, GREEN), base=RED), size=(3, 4),
            runbooks=["StreamGuardRetrainFailing"],
        ),
        stat(
            "Gate", "Whether the last run's forest passed.", "min(streamguard_retrain_gate_passed{WORKER})",
            "bool_yes_no",
            mappings=value_names(passed=(1, GREEN), refused=(0, RED)), steps=thresholds((1, GREEN), base=RED),
            size=(3, 4),
            runbooks=["StreamGuardGateRefuses"],
        ),
        stat(
            "Drift", "Population stability index of the feature that moved most since the run before.", DRIFT, "none",
            decimals=2, steps=DRIFT_STEPS, empty="no run before", size=(3, 4), runbooks=["StreamGuardDrift"],
        ),
        stat(
            "Trimmed", "Share of the last sample that was left out of training as possible attacks.", TRIMMED,
            "percentunit",
            decimals=1, steps=TRIMMED_STEPS, size=(3, 4), runbooks=["StreamGuardGateRefuses"],
        ),
        row("In the workers"),
        timeseries(
            "Age", "Since the forest in use was published, by worker.",
            [("time() - max by (instance) (streamguard_model_published_timestamp_seconds{WORKER} > 0)",
            "{{instance}}")], "s",
            lines_at=AGE_STEPS, runbooks=["StreamGuardModelStale"],
        ),
        timeseries(
            "Versions", "Workers that score with each; two versions for a moment while a new one is taken up.",
            [("count by (version) (streamguard_model_info{WORKER} == 1)", "{{version}}")], "none", stacked=True,
            runbooks=["StreamGuardWorkersDisagree"],
        ),
        timeseries(
            "Swaps and refusals a minute", "Forests that were loaded, challengers included, and what was refused.",
            [
                ("60 * sum(rate(streamguard_model_loads_total{WORKER}[RATE]))", "loaded"),
                ("60 * sum by (reason) (rate(streamguard_model_refusals_total{WORKER}[RATE]))", "refused: {{reason}}"),
            ],
            "cpm", bars=True, runbooks=["StreamGuardModelRefused", "StreamGuardRegistryUnreadable"],
        ),
        table(
            "Who uses what", "The registry's pointer and the forest in use: another one was refused.", "instance",
            [
                ("in use", "none", "sum by (instance, version) (streamguard_model_info{WORKER})"),
                ("pointed to", "none", "sum by (instance, version) (streamguard_model_pointer_info{WORKER})"),
                ("challenger", "none", "sum by (instance, version) (streamguard_shadow_info{WORKER})"),
            ],
            size=(12, 7),
        ),
        timeseries(
            "Disagreement", "Other workers that use another forest than this one.",
            [("max by (instance) (streamguard_model_disagreement{WORKER})", "{{instance}}")], "none", size=(6, 7),
            runbooks=["StreamGuardWorkersDisagree"],
        ),
        timeseries(
            "Pause of a swap", "What chunks waited for it, in sum.", quantiles("streamguard_model_swap_pause_seconds",
            0.5, 0.99),
            "s", lines_at=thresholds((0.01, YELLOW)), size=(6, 7),
        ),
        row("The challenger (models.shadow)"),
        timeseries(
            "Would be alerted", "Share of events whose verdict reaches the threshold with either forest.",
            _shadow("streamguard_shadow_alerts_total"), "percentunit",
        ),
        timeseries(
            "Flagged by the forest alone", "Share of events that reach the threshold by either forest's bits alone.",
            _shadow("streamguard_shadow_forest_alerts_total"), "percentunit",
        ),
        timeseries(
            "Events shadowed", "What the challenger scored too.",
            [("sum(rate(streamguard_shadow_events_total{WORKER}[RATE]))", "events")], "cps",
        ),
        row("Retrains"),
        timeline(
            "Runs", "When a run was under way.",
            [("max by (instance) (streamguard_retrain_running{WORKER})", "{{instance}}")],
            value_names(runs=(1, "blue"), waits=(0, "transparent")), size=(12, 5), runbooks=["StreamGuardRetrainDown"],
        ),
        timeline(
            "Results", "Of the last run: whether it failed, whether its forest passed the gate, and became current.",
            [
                ("min(streamguard_retrain_success{WORKER})", "did not fail"),
                ("min(streamguard_retrain_gate_passed{WORKER})", "gate passed"),
                ("min(streamguard_retrain_champion_promoted{WORKER})", "current"),
            ],
            YES_NO, size=(12, 5), runbooks=["StreamGuardRetrainFailing", "StreamGuardGateRefuses"],
        ),
        bars(
            "Runs", "Within the time that is looked at, by result.",
            "sum by (result) (increase(streamguard_retrain_runs_total{WORKER}[$__range]))", "{{result}}", "none",
        ),
        timeseries(
            "Duration", "Of the last run, by step.",
            [("max by (step) (streamguard_retrain_step_duration_seconds{WORKER})", "{{step}}")], "s", stacked=True,
        ),
        timeseries(
            "Time used", "How long a run takes against how often one is due: above 100 % every run is late.",
            [(
                "max(streamguard_retrain_duration_seconds{WORKER}"
                " / (streamguard_retrain_interval_seconds{WORKER} > 0))", "used",
            )],
            "percentunit", lines_at=thresholds((0.5, YELLOW), (1, RED)), runbooks=["StreamGuardRetrainLate"],
        ),
        _last("FoldedHistory", "What the last run replayed or went on from.", ("records", "records"), ("events", "events")),
        _last(
            "Flagged and unreadable", "In that history.", ("alerted_events", "flagged events"),
            ("refused_records", "unreadable records"),
        ),
        _last("Users", "In that history.", ("users", "users"), ("flagged_users", "flagged")),
        _last("Training rows", "Quiet, settled events that the forest was trained on.", ("training_rows", "rows")),
        timeseries(
            "Trimmed", "Share of the sample left out as possible attacks; above gate.max_trimmed nothing is promoted.",
            [(TRIMMED, "trimmed")], "percentunit", lines_at=TRIMMED_STEPS, runbooks=["StreamGuardGateRefuses"],
        ),
        timeseries(
            "Drift", "Population stability index of the feature that moved most; 0.25 is much.", [(DRIFT,
            "worst feature")],
            "none", lines_at=DRIFT_STEPS, runbooks=["StreamGuardDrift"],
        ),
        timeseries(
            "Processor", "Of the retrain's own process; Spark's is beside it.",
            [("sum by (instance) (rate(process_cpu_seconds_total{RETRAIN_PROCESS}[RATE]))", "{{instance}}")],
            "none", size=(12, 7),
        ),
        timeseries(
            "Memory", "Resident, of the retrain's own process.",
            [("sum by (instance) (process_resident_memory_bytes{RETRAIN_PROCESS})", "{{instance}}")], "bytes",
            size=(12, 7),
        ),
    ]  # fmt: skip
