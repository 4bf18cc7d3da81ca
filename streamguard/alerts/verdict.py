"""From bits to a verdict: evidence of the score, the patterns and the forest, and its risk and severity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.settings.schema import RISK_PER_BIT

FOREST_SHARE = 0.25
"""Share of the forest's bits above `FOREST_USUAL` that adds to the evidence: the forest supports an alert and rarely
raises one alone."""

FOREST_USUAL = 6.0
"""Bits of the forest that are usual: one event in 64 has more."""
SEVERITIES = ("low", "medium", "high", "critical")
_SEVERITY_BITS = (("critical", 20.0), ("high", 14.0), ("medium", 9.0), ("low", -1.0))


def verdict(strength: NDArray[np.float64], forest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evidence of score and patterns together with that of the forest, in bits.

    Examples
    --------
    >>> verdict(np.array([9.0, 9.0]), np.array([5.0, 14.0])).tolist()
    [9.0, 11.0]
    """
    return strength + FOREST_SHARE * np.maximum(forest - FOREST_USUAL, 0.0)


def risk(evidence: float) -> float:
    """Evidence in bits on the scale from 0 to 100: 50 is one event in a hundred, 75 one in a thousand.

    Examples
    --------
    >>> round(risk(9.965784)), risk(50.0)
    (75, 100.0)
    """
    return round(min(max(evidence * RISK_PER_BIT, 0.0), 100.0), 1)


def severity(evidence: float) -> str:
    """The band of an evidence in bits.

    Examples
    --------
    >>> severity(10.0), severity(25.0)
    ('medium', 'critical')
    """
    return next(name for name, bits in _SEVERITY_BITS if evidence >= bits)
