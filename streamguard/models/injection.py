"""Attacks that are injected into quiet rows, and how well a forest separates them from these rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.features import NAMES
from streamguard.models.forest import Forest

MAX_INJECTED = 2000
"""Maximum number of quiet rows into which attacks are injected."""
MIN_SHARE = 0.5
"""An attack is injected if at least this share of the features that it changes varies in the training rows: a forest
cannot detect a change of the others."""

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


def separations(forest: Forest, quiet: NDArray[np.float32], rows: NDArray[np.float32]) -> dict[str, float]:
    """AUC with which a forest separates quiet rows with each attack from quiet rows; 0.5 is chance.

    Parameters
    ----------
    quiet
        float32 (n, 34): rows without attacks; some of them are used if there are many.
    rows
        float32 (m, 34): training rows of the forest. Attacks on features that hardly vary in them are left out.
    """
    if not len(quiet) or not len(rows):
        return {}
    quiet = quiet[np.linspace(0, len(quiet) - 1, min(len(quiet), MAX_INJECTED)).astype(np.int64)]
    visible = np.zeros(len(NAMES), bool)
    visible[forest.columns] = True
    visible &= rows.min(axis=0) < rows.max(axis=0)
    usual = forest.rarity(quiet)
    found = {}
    for attack, raised in ATTACKS.items():
        columns = np.array([NAMES.index(name) for name in raised])
        if visible[columns].mean() < MIN_SHARE:
            continue
        changed = quiet.copy()
        changed[:, columns] = np.maximum(changed[:, columns], np.array(list(raised.values()), np.float32))
        found[attack] = auc(forest.rarity(changed), usual)
    return found


def auc(high: NDArray[np.float64], low: NDArray[np.float64]) -> float:
    """Probability that a value of `high` exceeds one of `low`; equal values count half (Mann and Whitney 1947).

    Examples
    --------
    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(low)
    above = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(above.mean() / (2 * len(ordered)))
