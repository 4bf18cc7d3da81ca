"""Models and batch: the model in use, swaps and refusals, the challenger, and retrains."""

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
SAYS = "The model in use, swaps and refusals, the challenger, and the retrains that produce models."

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
    """Panels: the model in use, then the retrains that produced it."""
    return [
        stat(
            "Model", "Version of the forest in use.", "count by (version) (streamguard_model_info{WORKER} == 1)",
            "string", legend="{{version}}", name=True, empty="no model", size=(4, 4),
            runbooks=["StreamGuardModelRefused", "StreamGuardWorkersDisagree"],
        ),
        stat(
            "Model's age", "Time since the newest forest in use was published.", MODEL_AGE, "s", steps=AGE_STEPS,
            size=(4, 4), runbooks=["StreamGuardModelStale"],
        ),
        stat(
            "Last successful retrain", "Time since the last successful run ended.", RETRAIN_AGE, "s", steps=AGE_STEPS,
            size=(4, 4), runbooks=["StreamGuardRetrainLate"],
        ),
        stat(
            "Last retrain", "Result of the last run.", "min(streamguard_retrain_success{WORKER})", "bool_yes_no",
            mappings=value_names(succeeded=(1, GREEN), failed=(0, RED)), steps=thresholds((1, GREEN), base=RED),
            size=(3, 4), runbooks=["StreamGuardRetrainFailing"],
        ),
        stat(
            "Gate", "Whether the last run's forest passed the gate.", "min(streamguard_retrain_gate_passed{WORKER})",
            "bool_yes_no", mappings=value_names(passed=(1, GREEN), refused=(0, RED)),
            steps=thresholds((1, GREEN), base=RED), size=(3, 4), runbooks=["StreamGuardGateRefuses"],
        ),
        stat(
            "Drift", "Population stability index of the feature that moved most since the previous run.", DRIFT,
            "none",
            decimals=2, steps=DRIFT_STEPS, empty="no previous run", size=(3, 4), runbooks=["StreamGuardDrift"],
        ),
        stat(
            "Trimmed", "Share of the last sample that was left out of training as possible attacks.", TRIMMED,
            "percentunit", decimals=1, steps=TRIMMED_STEPS, size=(3, 4), runbooks=["StreamGuardGateRefuses"],
        ),
        row("Workers"),
        timeseries(
            "Model's age", "Time since the forest in use was published, by worker.",
            [(
                "time() - max by (instance) (streamguard_model_published_timestamp_seconds{WORKER} > 0)",
                "{{instance}}",
            )],
            "s", lines_at=AGE_STEPS, runbooks=["StreamGuardModelStale"],
        ),
        timeseries(
            "Versions", "Workers by the version that they use; during a swap there are two versions for a moment.",
            [("count by (version) (streamguard_model_info{WORKER} == 1)", "{{version}}")], "none", stacked=True,
            runbooks=["StreamGuardWorkersDisagree"],
        ),
        timeseries(
            "Swaps and refusals per minute",
            "Forests that were loaded, including challengers, and refusals by reason.",
            [
                ("60 * sum(rate(streamguard_model_loads_total{WORKER}[RATE]))", "loaded"),
                ("60 * sum by (reason) (rate(streamguard_model_refusals_total{WORKER}[RATE]))", "refused: {{reason}}"),
            ],
            "cpm", bars=True, runbooks=["StreamGuardModelRefused", "StreamGuardRegistryUnreadable"],
        ),
        table(
            "Versions by worker",
            "Forest in use, and version that the registry's pointer names; the worker refused it if they differ.",
            "instance",
            [
                ("in use", "none", "sum by (instance, version) (streamguard_model_info{WORKER})"),
                ("pointed to", "none", "sum by (instance, version) (streamguard_model_pointer_info{WORKER})"),
                ("challenger", "none", "sum by (instance, version) (streamguard_shadow_info{WORKER})"),
            ],
            size=(12, 7),
        ),
        timeseries(
            "Disagreement", "Number of other workers whose forest differs from this worker's.",
            [("max by (instance) (streamguard_model_disagreement{WORKER})", "{{instance}}")], "none", size=(6, 7),
            runbooks=["StreamGuardWorkersDisagree"],
        ),
        timeseries(
            "Pause of a swap", "Total time that chunks waited during a model swap.",
            quantiles("streamguard_model_swap_pause_seconds", 0.5, 0.99), "s", lines_at=thresholds((0.01, YELLOW)),
            size=(6, 7),
        ),
        row("The challenger (models.shadow)"),
        timeseries(
            "Ranked by the forest", "Share of events of which each forest says more than statistics and patterns.",
            _shadow("streamguard_shadow_ranked_total"), "percentunit",
        ),
        timeseries(
            "Alerted by the forest alone",
            "Share of events that reach the alert threshold by the bits of each forest alone.",
            _shadow("streamguard_shadow_forest_alerts_total"), "percentunit",
        ),
        timeseries(
            "Events in shadow mode", "Events that the challenger also scored, per second.",
            [("sum(rate(streamguard_shadow_events_total{WORKER}[RATE]))", "events")], "cps",
        ),
        row("Retrains"),
        timeline(
            "Run in progress", "Times at which a run was in progress.",
            [("max by (instance) (streamguard_retrain_running{WORKER})", "{{instance}}")],
            value_names(running=(1, "blue"), idle=(0, "transparent")), size=(12, 5),
            runbooks=["StreamGuardRetrainDown"],
        ),
        timeline(
            "Results", "Last run: whether it succeeded, and whether its forest passed the gate and became current.",
            [
                ("min(streamguard_retrain_success{WORKER})", "succeeded"),
                ("min(streamguard_retrain_gate_passed{WORKER})", "gate passed"),
                ("min(streamguard_retrain_champion_promoted{WORKER})", "current"),
            ],
            YES_NO, size=(12, 5), runbooks=["StreamGuardRetrainFailing", "StreamGuardGateRefuses"],
        ),
        bars(
            "Runs", "Runs within the selected time range, by result.",
            "sum by (result) (increase(streamguard_retrain_runs_total{WORKER}[$__range]))", "{{result}}", "none",
        ),
        timeseries(
            "Duration", "Duration of the last run, by step.",
            [("max by (step) (streamguard_retrain_step_duration_seconds{WORKER})", "{{step}}")], "s", stacked=True,
        ),
        timeseries(
            "Time used", "Duration of a run as a share of the interval between runs; above 100 % every run is late.",
            [(
                "max(streamguard_retrain_duration_seconds{WORKER}"
                " / (streamguard_retrain_interval_seconds{WORKER} > 0))", "used",
            )],
            "percentunit", lines_at=thresholds((0.5, YELLOW), (1, RED)), runbooks=["StreamGuardRetrainLate"],
        ),
        _last("History", "History of the last run, including the runs that it continues.", ("records", "records"),
              ("events", "events")),
        _last(
            "Alerted and unreadable", "Counts in the history of the last run.", ("alerted_events", "alerted events"),
            ("refused_records", "unreadable records"),
        ),
        _last("Users", "Users in the history of the last run.", ("users", "users"), ("users_at_risk", "at risk")),
        _last("Training rows", "Quiet, settled events on which the forest was trained.", ("training_rows", "rows")),
        timeseries(
            "Trimmed",
            "Share of the sample left out as possible attacks; above gate.max_trimmed no model is promoted.",
            [(TRIMMED, "trimmed")], "percentunit", lines_at=TRIMMED_STEPS, runbooks=["StreamGuardGateRefuses"],
        ),
        timeseries(
            "Drift", "Population stability index of the feature that moved most; 0.25 is a large change.",
            [(DRIFT, "feature that moved most")], "none", lines_at=DRIFT_STEPS, runbooks=["StreamGuardDrift"],
        ),
        timeseries(
            "Processor", "Cores used by the retrain's own process, without Spark.",
            [("sum by (instance) (rate(process_cpu_seconds_total{RETRAIN_PROCESS}[RATE]))", "{{instance}}")],
            "none", size=(12, 7),
        ),
        timeseries(
            "Memory", "Resident memory of the retrain's own process.",
            [("sum by (instance) (process_resident_memory_bytes{RETRAIN_PROCESS})", "{{instance}}")], "bytes",
            size=(12, 7),
        ),
    ]  # fmt: skip
