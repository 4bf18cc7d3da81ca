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

STRANGE_BITS = 7.0
"""Bits of a tail from which a score is strange: usually 1 in 128 events has them."""
STRANGE_SHARE = 1.0 / 64.0
"""Strange scores that one day adds, as a share of all scores: twice the usual number."""
STRANGE_PRIOR = 3.0
"""Strange scores that are always added, so that a small log can change."""

MEASURED_SHARE = 1e-3
"""Rarest share of the events whose score is measured; rarer ones are extrapolated."""
LEAST_SLOPE = 0.5
"""Least number of bits of score that halve the tail beyond it: equal scores do not make the next one impossible."""
LOG2_10 = 3.321928094887362
"""Bits of a share that is ten times as rare."""
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
    rare = MEASURED_SHARE if total >= EVENTS_FOR_TAIL else MEASURED_SHARE * 10.0
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
        slope = max((edge - quantile(p, 10.0 * rare)) / LOG2_10, LEAST_SLOPE)
        seen = -log2(rare) + max(score - edge, 0.0) / slope
    trust = total / (total + PRIOR_EVENTS)
    lower, higher = min(seen, prior), max(seen, prior)
    share = trust if seen <= prior else 1.0 - trust
    bits = lower - log2(share + (1.0 - share) * exp2(lower - higher))
    return max(bits, 0.0) * p.events / (p.events + YOUNG_EVENTS)


@inline
def record(p, score, tail, weight):  # type: ignore[no-untyped-def]
    """Add a score to the histogram.

    Of scores that only few events have, one day adds about as much as is usual: whoever plants strange events does not
    make strange events usual.
    """
    if tail >= STRANGE_BITS:
        room = STRANGE_SHARE * p.recent + STRANGE_PRIOR - p.strange
        weight = min(weight, max(room, 0.0))
        p.strange += weight
    p.recent += weight
    b = min(np.int64(score * PER_BIT), BINS - 1)
    p.scores[b] += weight
    p.scores_total += weight
