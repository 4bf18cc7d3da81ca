"""The gate: numeric checks that decide whether a challenger may become champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.fold.features import NAMES
from streamguard.models.forest import Forest
from streamguard.models.injection import separations
from streamguard.models.weight import Separation
from streamguard.settings.schema import Gate
from streamguard.text import counted

DISTRIBUTION = "distribution"
"""Key under which the metrics of an artifact store the `distribution` of its training rows."""
LEVELS = 101
"""Number of quantiles in a distribution: 0, 1, ... 100%."""

MIN_TOP = 50
"""Minimum number of events in the top 1%: the overlap of fewer events is not meaningful."""

Distribution = dict[str, list[float]]
"""Quantiles of each feature: the values below which 0, 1, ... 100% of the rows lie."""

GROWING = {"active_days"}
"""Features that grow with time in any case, and are not checked for drift."""


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
        float32 (n, 34).
    quiet
        bool (n,): result of `streamguard.models.sampling.quiet`.
    """

    features: NDArray[np.float32]
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
    separation: Separation | None = None,
) -> Judgement:
    """Run all checks; the result is deterministic.

    Parameters
    ----------
    champion
        The current forest; None runs only the checks that need no comparison.
    sample
        Events on which both forests are compared.
    rows
        float32 (m, 34): training rows of the challenger.
    before
        `distribution` of the champion's training rows, from its metrics; None if they contain none.
    rows_before
        Number of the champion's training rows. If it is less than half the number of `rows`, drift and overlap are not
        checked: the challenger has to differ from such a champion, and the first model of a short history would stay
        for ever.
    alert_bits
        Evidence from which an event is alerted.
    separation
        Why the challenger has its weight; None if this was not measured.
    """
    checks = [_trimmed(sample, limits), _rows(len(rows), limits)]
    comparable = 2 * rows_before >= len(rows)
    if before is not None and comparable:
        checks.append(_drift(drift(before, distribution(rows)), limits))
    if champion is not None and len(sample.features):
        ours, theirs = (forest.rarity(sample.features) for forest in (challenger, champion))
        if comparable:
            checks.append(_overlap(ours, theirs, limits))
        ours, theirs = challenger.weight * ours, champion.weight * theirs
        checks.append(_alerts(ours[sample.quiet], theirs[sample.quiet], alert_bits, limits))
    checks += _injected(separations(challenger, sample.features[sample.quiet], rows), limits)
    if separation is not None:
        checks.append(_weight(separation))
    return Judgement(all(check.passed for check in checks), checks)


def distribution(features: NDArray[np.float32]) -> Distribution:
    """Compute the distribution of training rows, float32 (m, 34), at least one; an artifact's metrics contain it."""
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


def _alerts(ours: NDArray[np.float64], theirs: NDArray[np.float64], alert_bits: float, limits: Gate) -> Check:
    """A forest that calls far more quiet events as rare as an alert is calibrated wrongly."""
    now, before = (int(np.count_nonzero(bits >= alert_bits)) for bits in (ours, theirs))
    value = (now + 1) / (before + 1)
    return Check(
        "alerts", value, limits.max_alert_ratio, value <= limits.max_alert_ratio,
        f"the challenger calls {now:,} of {counted(len(ours), 'quiet event')} as rare as an alert, the champion "
        f"{before:,}: ratio {value:.2f} (limit {limits.max_alert_ratio:.2f})",
    )  # fmt: skip


def _injected(found: Mapping[str, float], limits: Gate) -> list[Check]:
    checks = []
    for attack, value in found.items():
        message = (
            f"simulated {attack.replace('_', ' ')} among quiet events: AUC {value:.3f} "
            f"(minimum {limits.min_injected_auc:.3f})"
        )
        passed = value >= limits.min_injected_auc
        checks.append(Check(f"injected_{attack}", value, limits.min_injected_auc, passed, message))
    return checks


def _weight(separation: Separation) -> Check:
    """The weight of the challenger, for information: a forest without a say does no harm."""
    return Check("weight", separation.weight, 0.0, True, separation.message)
