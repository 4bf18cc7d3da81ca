"""From a sum of bits to a tail probability: the partition's own histogram of scores, open at its end."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import exp2, log2
from streamguard.compute.compiler import inline
from streamguard.fold import population as crowd

BINS = crowd.BINS
PER_BIT = crowd.BINS_PER_BIT
PRIOR_EVENTS = 25.0
"""What the prior distribution of scores is worth in events."""

PRIOR_START = 12.0
PRIOR_SLOPE = 3.0
"""Prior: no score below 12 bits is unusual; above, each further 3 bits halve the probability."""

YOUNG_EVENTS = 50.0
"""A partition that has seen n events claims only n / (n + 100) of its bits."""

EVENTS_FOR_TAIL = 30_000.0
"""From this many on, the one event in a thousand is measured, not extrapolated from the one in a hundred."""


@inline
def quantile(p, tail):  # type: ignore[no-untyped-def]
    """The score that a share `tail` of events exceeds, by the histogram alone."""
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
    """-log2 of the share of events with a score this high; never clipped, rising without end.

    Within the bulk by the histogram; beyond the last well-supported level by the exponential through it and the
    level ten times as frequent. The prior counts while few events were seen.
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
