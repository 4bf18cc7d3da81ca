"""The evidence of a verdict: that of the score and the patterns, together with that of the forest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FOREST_LIMIT = 6.0
"""Bits of the forest that count at most: one event in 64 has them."""


def verdict(strength: NDArray[np.float64], forest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evidence of score and patterns together with that of the forest, in bits: max(strength, min(forest, 6)).

    Both are tail probabilities, and the larger one decides. So the forest ranks the events that statistics call usual,
    and neither raises nor strengthens an alert. More of its bits lowered the recall of the strongest events on
    simulated months, because what is extreme for a forest is often a busy machine (docs/detection.md).

    Parameters
    ----------
    strength
        Evidence of score and patterns, bits.
    forest
        Bits of the forest, times its weight.

    Examples
    --------
    >>> verdict(np.array([9.0, 2.0, 2.0, 2.0]), np.array([14.0, 14.0, 4.0, 0.0])).tolist()
    [9.0, 6.0, 4.0, 2.0]
    """
    return np.maximum(strength, np.minimum(forest, FOREST_LIMIT))
