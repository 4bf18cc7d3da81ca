"""Converts a sum of bits to a tail probability, with the partition's own histogram of scores and an unbounded tail."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2, log2
from streamguard.compute.compiler import inline
from streamguard.fold import population

BINS = population.BINS
PER_BIT = population.BINS_PER_BIT
PRIOR_EVENTS = 25.0
"""Weight of the prior distribution of scores, in events."""

PRIOR_START = 12.0
PRIOR_SLOPE = 3.0
"""Prior: scores up to 12 bits are usual; above, every further 3 bits halve the probability."""

YOUNG_EVENTS = 50.0
"""A partition that has seen n events reports only n / (n + 50) of its bits."""

EVENTS_FOR_TAIL = 30_000.0
"""From this many events on, the score of 1 event in 1,000 is measured, not extrapolated from that of 1 in 100."""


@inline
def quantile(p, tail):  # type: ignore[no-untyped-def]
    """The score that a share `tail` of the events exceeds, according to the histogram alone."""
    above = p.scores_total * tail
    seen = 0.0
    for b in range(BINS - 1, -1, -1):
        w = p.scores[b]
        if seen + w > above:
            return (b + 1.0 - (above - seen) / w) / PER_BIT
        seen += w
    return 0.0


@inline
def tail_bits(p, score):  # type: ignore[no-untyped-def]
    """-log2 of the share of events with at least this score; it rises with the score without a limit.

    The bulk follows the histogram. Beyond the last well-supported level the tail follows the exponential through this
    level and the level that is ten times as frequent. The prior is mixed in until the partition has seen enough events.
    """
    total = p.scores_total
    if total <= 0.0:
        return 0.0
    prior = max(score - PRIOR_START, 0.0) / PRIOR_SLOPE
    rare = 1e-3 if total >= EVENTS_FOR_TAIL else 1e-2
    position = score * PER_BIT
    b = int(min(position, BINS - 1.0))
    below = 0.0
    for q in range(b):
        below += p.scores[q]
    above = (total - below - p.scores[b] * min(position - b, 1.0)) / total
    if above > rare:
        seen = -log2(min(above, 1.0))
    else:
        edge = quantile(p, rare)
        slope = max((edge - quantile(p, 10.0 * rare)) / 3.321928094887362, 0.5)
        seen = -log2(rare) + max(score - edge, 0.0) / slope
    trust = total / (total + PRIOR_EVENTS)
    lower, higher = min(seen, prior), max(seen, prior)
    share = trust if seen <= prior else 1.0 - trust
    bits = lower - log2(share + (1.0 - share) * exp2(lower - higher))
    return max(bits, 0.0) * total / (total + YOUNG_EVENTS)


@inline
def record(p, score, weight):  # type: ignore[no-untyped-def]
    """Add a score to the histogram."""
    b = min(np.int64(score * PER_BIT), BINS - 1)
    p.scores[b] += weight
    p.scores_total += weight
