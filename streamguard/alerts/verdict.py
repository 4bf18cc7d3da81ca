"""The evidence of a verdict: that of the score and the patterns, together with that of the forest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FOREST_SHARE = 0.25
"""Share of the forest's bits above `FOREST_USUAL` that adds to the evidence: the forest supports an alert and rarely
raises one alone."""

FOREST_USUAL = 6.0
"""Bits of the forest that are usual: one event in 64 has more."""


def verdict(strength: NDArray[np.float64], forest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evidence of score and patterns together with that of the forest, in bits.

    Examples
    --------
    >>> verdict(np.array([9.0, 9.0]), np.array([5.0, 14.0])).tolist()
    [9.0, 11.0]
    """
    return strength + FOREST_SHARE * np.maximum(forest - FOREST_USUAL, 0.0)
