"""The gate: numeric checks that decide whether a challenger may become champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.verdict import verdict
from streamguard.fold.features import NAMES
from streamguard.models.forest import Forest
from streamguard.settings.schema import Gate
from streamguard.text import counted

DISTRIBUTION = "distribution"
"""Key under which the metrics of an artifact store the `distribution` of its training rows."""
LEVELS = 101
"""Number of quantiles in a distribution: 0, 1, ... 100%."""

MAX_INJECTED = 2000
"""Maximum number of quiet rows into which attacks are injected."""
MIN_TOP = 50
"""Minimum number of events in the top 1%: the overlap of fewer events is not meaningful."""
MIN_SHARE = 0.5
"""An attack is injected if at least this share of the features that it changes varies in the training rows: a forest
cannot detect a change of the others."""

Distribution = dict[str, list[float]]
"""Quantiles of each feature: the values below which 0, 1, ... 100% of the rows lie."""

GROWING = {"active_days"}
"""Features that grow with time in any case, and are not checked for drift."""

ATTACKS: dict[str, dict[str, float]] = {
    "takeover": {"source_bits": 10, "network_bits": 8, "location_bits": 8, "agent_bits": 6, "hour_bits": 11},
    "brute_force": {
        "failure_streak": 4.4, "failure_rate_1h": 0.9, "failure_rate_1d": 0.8, "event_rate_5m": 7.9,
        "event_rate_1h": 4.4, "burst": 6, "source_bits": 8, "transition_bits": 6,
    },
    "spray": {
        "crowd_new_sources": 25, "source_bits": 10, "network_bits": 6, "failure_streak": 1, "failure_rate_1h": 0.5,
        "transition_bits": 5,
    },
    "dormant_account": {
        "dormancy": 5.9, "interval_z": 4, "source_bits": 9, "network_bits": 6, "location_bits": 6, "hour_bits": 10,
    },
    "exfiltration": {
        "volume_z": 6, "resource_bits": 8, "event_rate_5m": 8, "event_rate_1h": 5, "burst": 6, "hour_bits": 10,
    },
    "malware": {"host_bits": 8, "resource_bits": 12, "transition_bits": 8, "threat_z": 5, "hour_bits": 10},
}  # fmt: skip
"""Values to which each attack raises features that are lower, in the units of `streamguard.fold.features`."""


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One check of the challenger."""

    name: str
    value: float
    limit: float
    passed: bool
    message: str
    """Result in words, with its numbers."""


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Decision of the gate; the registry stores it as JSON next to the version."""

    passed: bool
    checks: list[Check]
    champion: str | None = None
    """Version that was current at that time; None if there was none."""
    uncompared: str = ""
    """Reason why it was not compared with the champion; empty if it was, or if there was no champion."""

    @property
    def message(self) -> str:
        """Reasons of a refusal, or that all checks passed; then why nothing was compared, if there is a reason."""
        reasons = [check.message for check in self.checks if not check.passed]
        reasons = reasons or [f"passed all {len(self.checks)} checks"]
        if self.uncompared:
            reasons.append(f"not compared with the champion {self.champion}: {self.uncompared}")
        return "; ".join(reasons)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of n events as they arrived, including attacks, in any order.

    Attributes
    ----------
    features
        float32 (n, 28).
    strength
        float64 (n,): evidence without that of a forest.
    quiet
        bool (n,): result of `streamguard.models.sampling.quiet`.
    """

    features: NDArray[np.float32]
    strength: NDArray[np.float64]
    quiet: NDArray[np.bool_]


def judge(
    challenger: Forest,
    champion: Forest | None,
    sample: Sample,
    *,
    rows: NDArray[np.float32],
    before: Mapping[str, list[float]] | None,
    rows_before: int,
    alert_bits: float,
    limits: Gate,
) -> Judgement:
    """Run all checks; the result is deterministic.

    Parameters
    ----------
    champion
        The current forest; None runs only the checks that need no comparison.
    sample
        Events on which both forests are compared.
    rows
        float32 (m, 28): training rows of the challenger.
    before
        `distribution` of the champion's training rows, from its metrics; None if they contain none.
    rows_before
        Number of the champion's training rows. If it is less than half the number of `rows`, drift and overlap are not
        checked: the challenger has to differ from such a champion, and the first model of a short history would stay
        for ever.
    alert_bits
        Evidence from which an event is alerted.
    """
    checks = [_trimmed(sample, limits), _rows(len(rows), limits)]
    comparable = 2 * rows_before >= len(rows)
    if before is not None and comparable:
        checks.append(_drift(drift(before, distribution(rows)), limits))
    if champion is not None and len(sample.features):
        ours, theirs = (forest.bits(sample.features) for forest in (challenger, champion))
        if comparable:
            checks.append(_overlap(ours, theirs, limits))
        checks.append(_alerts(sample.strength, ours, theirs, alert_bits, limits))
    varies = rows.min(axis=0) < rows.max(axis=0) if len(rows) else np.zeros(len(NAMES), bool)
    calm = sample.features[sample.quiet]
    if len(calm):
        calm = calm[np.linspace(0, len(calm) - 1, min(len(calm), MAX_INJECTED)).astype(np.int64)]
        checks += _injected(challenger, calm, varies, limits)
    return Judgement(all(check.passed for check in checks), checks)


def distribution(features: NDArray[np.float32]) -> Distribution:
    """Compute the distribution of training rows, float32 (m, 28), at least one; an artifact's metrics contain it."""
    levels = np.quantile(features, np.linspace(0, 1, LEVELS), axis=0, method="inverted_cdf")
    return {name: np.round(levels[:, k].astype(float), 4).tolist() for k, name in enumerate(NAMES)}


def distribution_in(metrics: Mapping[str, Any]) -> Distribution | None:
    """Return the distribution in an artifact's metrics; None if they contain none, or if it is invalid.

    Examples
    --------
    >>> distribution_in({"distribution": {"burst": []}}) is None
    True
    """
    try:
        kept = msgspec.convert(metrics.get(DISTRIBUTION), dict[str, _Levels])
    except msgspec.ValidationError:
        return None
    known = kept.keys() <= set(NAMES) and all(np.isfinite(levels).all() for levels in kept.values())
    return kept if kept and known else None


_Levels = Annotated[list[float], msgspec.Meta(min_length=LEVELS, max_length=LEVELS)]


def drift(before: Mapping[str, list[float]], now: Mapping[str, list[float]]) -> dict[str, float]:
    """Population stability index of each feature that both distributions contain, over the deciles of `before`.

    0 means no change; by convention 0.1 is a small change and 0.25 a large one.

    Examples
    --------
    >>> flat = {"burst": [float(k) for k in range(101)]}
    >>> drift(flat, flat), drift(flat, {"burst": [k + 10.0 for k in range(101)]})["burst"] > 0.25
    ({'burst': 0.0}, True)
    """
    return {
        name: _psi(np.array(before[name]), np.array(now[name]))
        for name in NAMES
        if {name} <= before.keys() & now.keys()
    }


def _psi(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    edges = np.unique(np.quantile(before, np.linspace(0.1, 0.9, 9), method="inverted_cdf"))
    shares = []
    for values in (before, now):
        below = np.searchsorted(np.sort(values), edges, side="right") / len(values)
        part = np.diff(np.concatenate([[0.0], below, [1.0]]))
        # Half a level is added to each part: an empty part is rare, not impossible.
        shares.append((part * len(values) + 0.5) / (len(values) + 0.5 * len(part)))
    old, new = shares
    return round(float(np.sum((new - old) * np.log(new / old))), 4)


def _trimmed(sample: Sample, limits: Gate) -> Check:
    share = float(1.0 - sample.quiet.mean()) if len(sample.quiet) else 0.0
    return Check(
        "trimmed", share, limits.max_trimmed, share <= limits.max_trimmed,
        f"{share:.1%} of the events look like attacks (limit {limits.max_trimmed:.1%})",
    )  # fmt: skip


def _rows(rows: int, limits: Gate) -> Check:
    return Check(
        "rows", float(rows), float(limits.min_rows), rows >= limits.min_rows,
        f"{counted(rows, 'training row')} (minimum {limits.min_rows:,})",
    )  # fmt: skip


def _drift(moved: Mapping[str, float], limits: Gate) -> Check:
    moved = {name: index for name, index in moved.items() if name not in GROWING}
    worst = max(moved, key=lambda name: moved[name], default="none")
    value = moved.get(worst, 0.0)
    return Check(
        "drift", value, limits.max_drift, value <= limits.max_drift,
        f"{worst} moved most from the champion's training rows: stability index {value:.2f} "
        f"(limit {limits.max_drift:.2f})",
    )  # fmt: skip


def _overlap(ours: NDArray[np.float64], theirs: NDArray[np.float64], limits: Gate) -> Check:
    top = min(len(ours), max(len(ours) // 100, MIN_TOP))
    first, second = (np.argsort(-bits, kind="stable")[:top] for bits in (ours, theirs))
    value = len(np.intersect1d(first, second)) / top
    return Check(
        "overlap", value, limits.min_overlap, value >= limits.min_overlap,
        f"{value:.1%} of the champion's {top:,} most abnormal events are among the challenger's "
        f"(minimum {limits.min_overlap:.1%})",
    )  # fmt: skip


def _alerts(
    strength: NDArray[np.float64],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    alert_bits: float,
    limits: Gate,
) -> Check:
    now, before = (int(np.count_nonzero(verdict(strength, bits) >= alert_bits)) for bits in (ours, theirs))
    value = (now + 1) / (before + 1)
    return Check(
        "alerts", value, limits.max_alert_ratio, value <= limits.max_alert_ratio,
        f"{now:,} of {counted(len(strength), 'event')} would be alerted with the challenger, {before:,} with "
        f"the champion: ratio {value:.2f} (limit {limits.max_alert_ratio:.2f})",
    )  # fmt: skip


def _injected(
    forest: Forest, calm: NDArray[np.float32], varies: NDArray[np.bool_], limits: Gate
) -> list[Check]:
    usual = np.sort(forest.bits(calm))
    checks = []
    for attack, raised in ATTACKS.items():
        columns = np.array([NAMES.index(name) for name in raised])
        if varies[columns].mean() < MIN_SHARE:
            continue
        rows = calm.copy()
        rows[:, columns] = np.maximum(rows[:, columns], np.array(list(raised.values()), np.float32))
        bits = forest.bits(rows)
        above = np.searchsorted(usual, bits, "left") + np.searchsorted(usual, bits, "right")
        value = float(above.mean() / (2 * len(usual)))
        message = (
            f"simulated {attack.replace('_', ' ')} among quiet events: AUC {value:.3f} "
            f"(minimum {limits.min_injected_auc:.3f})"
        )
        passed = value >= limits.min_injected_auc
        checks.append(Check(f"injected_{attack}", value, limits.min_injected_auc, passed, message))
    return checks
