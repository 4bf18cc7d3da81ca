"""Sets of users in 256 bits: membership and an estimate of their number."""

from __future__ import annotations

import numpy as np

from streamguard.compute.arithmetic import LN2, log2, popcount
from streamguard.compute.compiler import inline


@inline
def distinct(bitmap):  # type: ignore[no-untyped-def]
    """Estimate the number of users in a 256-bit bitmap by linear counting (Whang et al. 1990)."""
    used = np.uint64(0)
    for q in range(4):
        used += popcount(bitmap[q])
    return -256.0 * LN2 * log2(1.0 - min(np.float64(used), 255.0) / 256.0)


@inline
def mark(bitmap, user):  # type: ignore[no-untyped-def]
    """Add a user to a 256-bit bitmap."""
    bit = user >> np.uint64(56)
    bitmap[np.int64(bit >> np.uint64(6))] |= np.uint64(1) << (bit & np.uint64(63))


@inline
def marked(bitmap, user):  # type: ignore[no-untyped-def]
    """Whether a user, or one with the same bit, is in a 256-bit bitmap."""
    bit = user >> np.uint64(56)
    return (bitmap[np.int64(bit >> np.uint64(6))] >> (bit & np.uint64(63))) & np.uint64(1) != np.uint64(0)


@inline
def clear(bitmap):  # type: ignore[no-untyped-def]
    """Remove all users."""
    for q in range(4):
        bitmap[q] = np.uint64(0)
