"""Whether a challenger may become champion: checks with numbers, made before the registry's pointer moves."""

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

DISTRIBUTION = "distribution"
"""Where an artifact's metrics keep `distribution` of its training rows."""
LEVELS = 101

MAX_INJECTED = 2000
"""Quiet rows that attacks are injected into."""
MIN_TOP = 50
"""Events of a top 1 % at the least: of fewer, an overlap says nothing."""
MIN_SHARE = 0.5
"""An attack is injected if so much of what it changes varies in the training rows: the rest no forest can see."""

Distribution = dict[str, list[float]]
"""Of each feature the values below which 0, 1, ... 100 % of the rows lie."""

GROWING = {"active_days"}
"""Moves as time goes by, whatever happens."""

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
"""What an event of each raises a feature to, where it is lower; in the units of `streamguard.fold.features`."""


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question that was asked of the challenger."""

    name: str
    value: float
    limit: float
    passed: bool
    says: str
    """Reason and numbers."""


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gate decided; the registry keeps it as JSON beside the version."""

    passed: bool
    checks: list[Check]
    champion: str | None = None
    """Current at that time; None if there was none."""
    uncompared: str = ""
    """Why it was not compared with the champion; empty if it was, or if there was none."""

    @property
    def says(self) -> str:
        """The reasons of a refusal, or that there is none; and what could not be asked."""
        reasons = [check.says for check in self.checks if not check.passed]
        reasons = reasons or [f"passed all {len(self.checks)} checks"]
        if self.uncompared:
            reasons.append(f"nothing was compared with the champion {self.champion}: {self.uncompared}")
        return "; ".join(reasons)


@dataclass(frozen=True, slots=True)
class Sample:
    """Events as they came, attacks and all; arrays are of the n events in any order.

    Attributes
    ----------
    features
        float32 (n, 28).
    strength
        float64 (n,): evidence without a forest.
    quiet
        bool (n,): of `streamguard.models.sampling.quiet`.
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
    """Ask everything; nothing is random.

    Parameters
    ----------
    champion
        What is current; None asks only what needs no comparison.
    sample
        Both forests are compared on it.
    rows
        float32 (m, 28), what the challenger was trained on.
    before
        `distribution` of the champion's training rows, from its metrics; None if it has none.
    rows_before
        How many those were. Of a champion that knew less than half as many, the challenger has to differ: drift and
        overlap are not asked for, or the first model of a young history would stay for ever.
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
    """What an artifact's metrics keep of its training rows, float32 (m, 28), at least one."""
    levels = np.quantile(features, np.linspace(0, 1, LEVELS), axis=0, method="inverted_cdf")
    return {name: np.round(levels[:, k].astype(float), 4).tolist() for k, name in enumerate(NAMES)}


def distribution_in(metrics: Mapping[str, Any]) -> Distribution | None:
    """The distribution that an artifact's metrics keep; None if they keep none, or something else under its name.

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
    """Population stability index of every feature that both have, over the tenths of `before`.

    0 is no change; by convention 0.1 is little and 0.25 much.

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
        # Half a level in each: an empty one is rare, not impossible.
        shares.append((part * len(values) + 0.5) / (len(values) + 0.5 * len(part)))
    old, new = shares
    return round(float(np.sum((new - old) * np.log(new / old))), 4)


def _trimmed(sample: Sample, limits: Gate) -> Check:
    share = float(1.0 - sample.quiet.mean()) if len(sample.quiet) else 0.0
    return Check(
        "trimmed", share, limits.max_trimmed, share <= limits.max_trimmed,
        f"patterns and bits call {share:.1%} of the events possible attacks, at most {limits.max_trimmed:.1%} may be",
    )  # fmt: skip


def _rows(rows: int, limits: Gate) -> Check:
    return Check(
        "rows", float(rows), float(limits.min_rows), rows >= limits.min_rows,
        f"{rows:,} training rows, at least {limits.min_rows:,} are needed",
    )  # fmt: skip


def _drift(moved: Mapping[str, float], limits: Gate) -> Check:
    moved = {name: index for name, index in moved.items() if name not in GROWING}
    worst = max(moved, key=lambda name: moved[name], default="none")
    value = moved.get(worst, 0.0)
    return Check(
        "drift", value, limits.max_drift, value <= limits.max_drift,
        f"{worst} moved most against the champion's training rows: stability index {value:.2f}, "
        f"at most {limits.max_drift:.2f} may be",
    )  # fmt: skip


def _overlap(ours: NDArray[np.float64], theirs: NDArray[np.float64], limits: Gate) -> Check:
    top = min(len(ours), max(len(ours) // 100, MIN_TOP))
    first, second = (np.argsort(-bits, kind="stable")[:top] for bits in (ours, theirs))
    value = len(np.intersect1d(first, second)) / top
    return Check(
        "overlap", value, limits.min_overlap, value >= limits.min_overlap,
        f"{value:.1%} of the champion's {top:,} most abnormal events are among the challenger's, "
        f"at least {limits.min_overlap:.1%} must be",
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
        f"{now:,} of {len(strength):,} events would be alerted with the challenger, {before:,} with the champion: "
        f"{value:.2f} times, at most {limits.max_alert_ratio:.2f} may be",
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
        says = (
            f"an injected {attack.replace('_', ' ')} is told from quiet events with an AUC of {value:.3f}, "
            f"at least {limits.min_injected_auc:.3f} is needed"
        )
        passed = value >= limits.min_injected_auc
        checks.append(Check(f"injected_{attack}", value, limits.min_injected_auc, passed, says))
    return checks
