"""From bits to a verdict: a forest's evidence joined with the score's, and both as risk and severity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.settings.schema import RISK_PER_BIT

FOREST_SHARE = 0.25
"""Of the forest's bits beyond `FOREST_USUAL`, what adds to the evidence: it supports a finding and rarely makes one."""

FOREST_USUAL = 6.0
SEVERITIES = ("low", "medium", "high", "critical")
_SEVERITY_BITS = (("critical", 20.0), ("high", 14.0), ("medium", 9.0), ("low", -1.0))


def verdict(strength: NDArray[np.float64], forest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evidence of score and patterns together with the forest's, in bits.

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
    """The name of a strength of evidence.

    Examples
    --------
    >>> severity(10.0), severity(25.0)
    ('medium', 'critical')
    """
    return next(name for name, bits in _SEVERITY_BITS if evidence >= bits)
