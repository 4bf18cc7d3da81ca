"""Evidence that patterns add to a score: that of the strongest one which is not a habit of the user."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import log2
from streamguard.compute.compiler import inline
from streamguard.fold.patterns import PATTERNS

COUNT = len(PATTERNS)
BITS = tuple(pattern.bits for pattern in PATTERNS)
GUESSING = tuple(one.guessing for one in PATTERNS)
"""For each pattern, whether its bits grow with the number of guesses."""
HABIT_DAYS = 3.0
"""A pattern that was seen on this many days of the last month is a habit of the user and adds no evidence."""
GUESS_BITS = 2.0
"""Bits that each doubling of the failures adds."""
LONG_STREAK = 8.0
"""Failures of one source in a row up to which guessing has the bits of its pattern."""


@inline
def guess_bits(guesses):  # type: ignore[no-untyped-def]
    """Bits that guessing adds to those of its pattern.

    Parameters
    ----------
    guesses
        Failures in a row for this user that the source itself has made within hours.
    """
    return GUESS_BITS * log2(max(guesses / LONG_STREAK, 1.0))


@inline
def evidence(s, patterns, more):  # type: ignore[no-untyped-def]
    """Evidence that a set of patterns adds, in bits: that of the strongest one that is not a habit of this user.

    Parameters
    ----------
    more
        Result of `guess_bits`.
    """
    strongest = 0.0
    for k in range(COUNT):
        if (patterns >> np.uint64(k)) & np.uint64(1) and s.pattern_days[k] < HABIT_DAYS:
            strongest = max(strongest, BITS[k] + more if GUESSING[k] else BITS[k])
    return strongest
