"""Converts a forest's score to bits: how unusual it is according to the tail of the training scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.compute.compiler import kernel
from streamguard.text import counted

SUPPORT = 32
"""Number of training rows that must lie beyond a quantile for it to be used."""

_STEP = 0.5
"""Bits between two knots."""
_REACH = 2.0
"""Range below the last knot, in bits, from which the slope beyond it is computed."""
_DEFAULT_SLOPE = 100.0
"""Bits per unit of anomaly if all training rows are equally abnormal."""


@kernel
def _bits(anomaly, knots, level, slopes, ceiling, bits):  # type: ignore[no-untyped-def]
    for i in range(len(anomaly)):
        knot = max(np.searchsorted(knots, anomaly[i], side="right") - 1, 0)
        above = max(anomaly[i] - knots[knot], 0.0)
        bits[i] = min(level[knot] + above * slopes[knot], ceiling[knot])


class Tail:
    """Converts an anomaly to -log2 of the share of training rows that are at least as abnormal.

    An anomaly is a forest's score with the opposite sign. The bits are interpolated linearly between the knots and are
    0 below the first one. Beyond the last one the tail continues as an exponential.

    Parameters
    ----------
    anomaly : (knots,) float64
        Anomaly at each knot, rising; the first one is the median.
    level : (knots,) float64
        Bits at each knot, rising from 0.
    slope : float
        Bits per unit of anomaly beyond the last knot.

    Raises
    ------
    ValueError
        If a knot is not finite or not above the one before it, or the slope is not positive.

    Examples
    --------
    >>> Tail(np.array([0.4, 0.5]), np.array([0.0, 2.0]), 30.0).bits(np.array([0.3, 0.45, 0.5, 0.6]))
    array([0., 1., 2., 5.])
    """

    def __init__(self, anomaly: NDArray[np.float64], level: NDArray[np.float64], slope: float) -> None:
        if not len(anomaly) or len(anomaly) != len(level):
            raise ValueError(
                f"{counted(len(anomaly), 'quantile')} for {counted(len(level), 'level')}: "
                "both numbers must be equal and at least 1"
            )
        for name, knots in (("quantiles", anomaly), ("levels", level)):
            if not (np.isfinite(knots).all() and (np.diff(knots) > 0).all()):
                raise ValueError(f"{name} must be finite and rise")
        if level[0] != 0:
            raise ValueError(f"levels must start at 0 bits, not {level[0]}")
        if not (np.isfinite(slope) and slope > 0):
            raise ValueError(f"the slope beyond the last quantile must be finite and positive, not {slope}")
        with np.errstate(over="ignore"):
            slopes = np.append(np.diff(level) / np.diff(anomaly), slope)
        if not np.isfinite(slopes).all():
            raise ValueError(
                "two quantiles are so close to each other that the slope between them is infinite"
            )
        self.anomaly = anomaly
        self.level = level
        self.slope = slope
        self._slopes = slopes
        self._ceiling = np.append(level[1:], np.inf)

    def bits(self, anomaly: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the bits of each anomaly; they are monotone to the last digit."""
        bits = np.empty(len(anomaly))
        _bits(anomaly, self.anomaly, self.level, self._slopes, self._ceiling, bits)
        return bits


def measure(anomaly: NDArray[np.float64]) -> Tail:
    """Compute the tail of a sample of anomalies.

    The knots are the median, then every half bit from 2 (the upper quarter) to the last quantile with `SUPPORT` rows
    beyond it. The exact value at the median is 1 bit; it is set to 0, which also lowers the line to the upper quarter,
    so that usual rows add no bits. The slope beyond the last knot is that of the last two bits, which a few attacks
    among the rows do not change. If many rows have the same anomaly, it gets the bits of all rows that reach it.

    Parameters
    ----------
    anomaly : (rows,) float64
        Finite values, at least one.
    """
    ordered = np.sort(anomaly)
    last = max(2.0, np.floor(np.log2(len(ordered) / SUPPORT) / _STEP) * _STEP)
    levels = np.concatenate([[0.0], np.arange(2.0, last + _STEP / 2, _STEP)])
    shares = np.concatenate([[0.5], 2.0 ** -levels[1:]])
    quantiles = np.quantile(ordered, 1.0 - shares)
    first = np.concatenate([[True], np.diff(quantiles) > 0])
    quantiles, levels = quantiles[first], levels[first]
    start = int(np.searchsorted(levels, levels[-1] - _REACH, side="right")) - 1
    if len(levels) > 1:
        slope = (levels[-1] - levels[start]) / (quantiles[-1] - quantiles[start])
    elif ordered[-1] > quantiles[0]:
        slope = np.log2(len(ordered)) / (ordered[-1] - quantiles[0])
    else:
        slope = _DEFAULT_SLOPE
    return Tail(quantiles, levels, float(slope))
