"""Converts evidence in bits to a risk and back; severities are bands of risk.

Evidence of log2(10) * d bits stands for one event in 10**d. Its risk is 100 * d / (d + 1): 50 for one event in ten,
75 for one in a thousand, 85.7 for one in a million. More evidence always gives a higher risk, which stays below 100.
"""

from __future__ import annotations

import math
from bisect import bisect_right

SEVERITIES = ("low", "medium", "high", "critical")

SEVERITY_RISKS = (0.0, 73.0, 80.8, 85.7)
"""Lowest risk of each severity: that of 0, 9, 14 and 20 bits, which is one event in 500, 16,000 and a million."""

HIGH_RISK = SEVERITY_RISKS[SEVERITIES.index("high")]

_DECADE = math.log2(10.0)
"""Bits of one event in ten."""


def bits(risk: float) -> float:
    """The evidence in bits at which a risk is reached.

    Parameters
    ----------
    risk
        From 0 to less than 100.

    Examples
    --------
    >>> 2 ** bits(75.0)
    1000.0
    >>> [round(bits(risk), 1) for risk in SEVERITY_RISKS]
    [0.0, 9.0, 14.0, 19.9]
    """
    return _DECADE * (risk / (100.0 - risk))


_STEPS = tuple(bits(tenths / 10) for tenths in range(1000))


def risk(evidence: float) -> float:
    """The risk of an evidence in bits, rounded down to a tenth: the highest tenth that the evidence reaches.

    Rounding down keeps every limit: an event is alerted if and only if its risk reaches a `detection.alert_risk` in
    tenths, and 100 is never reached. Evidence below zero has the risk 0.

    Examples
    --------
    >>> [risk(-1.0), risk(math.log2(10.0)), risk(9.96), risk(9.97), risk(20.0), risk(110.4), risk(1e9)]
    [0.0, 50.0, 74.9, 75.0, 85.7, 97.0, 99.9]
    """
    return max(bisect_right(_STEPS, evidence) - 1, 0) / 10


def severity(risk: float) -> str:
    """The band of a risk.

    Examples
    --------
    >>> [severity(risk) for risk in (72.9, 75.0, 85.6, 97.0)]
    ['low', 'medium', 'high', 'critical']
    """
    return SEVERITIES[max(bisect_right(SEVERITY_RISKS, risk) - 1, 0)]
