"""Whether an incident has grown beyond what a person saw when they decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from streamguard.fold.grouping import RISE_BITS
from streamguard.serving.decisions.update import Update


class Growth(msgspec.Struct, frozen=True):
    """The first update beyond what a person saw that is a reason to look again.

    Attributes
    ----------
    count
        Number of alerts of this update.
    why
        `evidence`: it has risen by `RISE_BITS`, for which workers publish an incident again; `pattern`: an attack
        pattern is new.
    bits_before, bits
        The strongest evidence that the person saw, and that of the update.
    patterns
        Names of the new patterns.
    """

    count: int
    why: Literal["evidence", "pattern"]
    bits_before: float
    bits: float
    patterns: tuple[str, ...] = ()


def growth(updates: Sequence[Update], seen: int) -> Growth | None:
    """The first growth beyond an update; None if there is none.

    Parameters
    ----------
    updates
        Updates of one incident, ordered.
    seen
        Number of alerts of the last update that the person saw. Without a known update up to it, the evidence that they
        saw counts as none, so that every update is growth.

    Examples
    --------
    >>> first = Update(1, 12.0, "2026-11-30T06:00:00.000Z", "user", "ann", ("brute_force",), ())
    >>> later = Update(9, 13.5, "2026-11-30T06:10:00.000Z", "user", "ann", ("brute_force",), ())
    >>> growth([first, later], 1).why, growth([first, later], 9)
    ('evidence', None)
    """
    before = [update for update in updates if update.count <= seen]
    known = {pattern for update in before for pattern in update.patterns}
    bits = max((update.bits for update in before), default=0.0)
    for update in updates:  # those before have nothing new
        new = tuple(pattern for pattern in update.patterns if pattern not in known)
        if new:
            return Growth(update.count, "pattern", bits, update.bits, new)
        # Published evidence has two decimals; their difference has more, which mean nothing.
        if round(update.bits - bits, 2) >= RISE_BITS:
            return Growth(update.count, "evidence", bits, update.bits)
    return None
