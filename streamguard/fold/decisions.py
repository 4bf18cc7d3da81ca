"""Applies decisions of people in the fold: what is expected of a user, and what is part of an attack."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from streamguard.compute.compiler import inline
from streamguard.events.decision import Kind
from streamguard.fold import components as component
from streamguard.fold.dimensions import ACTION, SKETCHES, SOURCE
from streamguard.fold.sketch import slot_of

CAPACITY = 4096
"""Decisions of a partition: at 32 bytes each, one value of 128 KiB in the changelog. One more is refused."""
MAX_DENIED_SHARE = 0.05
"""Share of a user's sketch below which a denied value is removed from it. A value with more is also the user's own, and
without it all of the user's own events with the value would be new."""
NEVER = np.uint32(0xFFFFFFFF)
"""`until` of a decision without an end, seconds."""

DECISION = np.dtype(
    [
        ("user", "<u8"),  # hash of the user, as the fold knows users
        ("id", "<u8"),  # hash of the decision's id
        ("value", "<u8"),  # hash of the value, as the sketches hold it
        ("until", "<u4"),  # s since 1970, event time at which an expectation ends
        ("field", "u1"),  # sketch of the value
        ("kind", "u1"),  # `streamguard.events.decision.Kind`
        ("unused", "<u2"),
    ]
)
"""A decision that is in force; the table is sorted by user and id."""

CONTROL = np.dtype(
    [
        ("events", "<i8"),  # number of events of the chunk before it
        ("row", "<i8"),  # position of the user's profile, -1 without one
        ("user", "<u8"),
        ("id", "<u8"),  # of a revocation: the id that it removes
        ("value", "<u8"),
        ("until", "<u4"),
        ("field", "u1"),
        ("kind", "u1"),
        ("unused", "<u2"),
    ]
)
"""A control record of a chunk."""

EXPECTED, ATTACK, REVOKE = (int(kind) for kind in Kind)


class Outcome(IntEnum):
    """What became of a control record."""

    APPLIED = 0
    REPEATED = 1
    """The decision was in force already."""
    UNKNOWN = 2
    """A revocation of a decision that is not in force."""
    FULL = 3
    """The partition has no room for it."""


APPLIED, REPEATED, UNKNOWN, FULL = (int(outcome) for outcome in Outcome)


@inline
def place(decided, count, user, identity):  # type: ignore[no-untyped-def]
    """The first position whose decision does not sort before this user and id."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        one = decided[middle]
        if one.user < user or (one.user == user and one.id < identity):
            low = middle + 1
        else:
            high = middle
    return low


@inline
def judged(decided, count, user, values, clock):  # type: ignore[no-untyped-def]
    """The sketches whose value is expected, and those whose value is denied, as bit sets; a denial outweighs.

    The search takes one step for each doubling of the number of decisions, and none without decisions.
    """
    expected, denied = np.uint64(0), np.uint64(0)
    if count == 0 or user == 0:
        return expected, denied
    k = place(decided, count, user, np.uint64(0))
    while k < count and decided[k].user == user:
        c = np.int64(decided[k].field)
        if decided[k].value == values[c]:
            if decided[k].kind == ATTACK:
                denied |= np.uint64(1) << np.uint64(c)
            elif clock < np.int64(decided[k].until) * 1000:
                expected |= np.uint64(1) << np.uint64(c)
        k += 1
    return expected & ~denied, denied


@inline
def accept(s, expected, bits):  # type: ignore[no-untyped-def]
    """Lower the components of expected values to what is typical of the user."""
    for c in range(len(SKETCHES)):
        k = component.OF_SKETCH[c]
        if k >= 0 and (expected >> np.uint64(c)) & np.uint64(1) != np.uint64(0):
            bits[k] = min(bits[k], s.typical[k])
            if c == ACTION:
                bits[component.UNHEARD] = min(bits[component.UNHEARD], s.typical[component.UNHEARD])


@inline
def apply(decided, count, one, profiles, clock):  # type: ignore[no-untyped-def]
    """Apply one control record to the table and to the user's profile; return its `Outcome`.

    Parameters
    ----------
    count
        int64 (1,): number of decisions in force; updated.
    one
        `CONTROL`.
    """
    if one.kind == REVOKE:
        for k in range(count[0]):
            if decided[k].id == one.id:
                remove(decided, count, k)
                return APPLIED
        return UNKNOWN
    at = place(decided, count[0], one.user, one.id)
    if at < count[0] and decided[at].user == one.user and decided[at].id == one.id:
        return REPEATED
    if count[0] >= CAPACITY:
        drop_ended(decided, count, clock)
        if count[0] >= CAPACITY:
            return FULL
        at = place(decided, count[0], one.user, one.id)
    for k in range(count[0], at, -1):
        decided[k] = decided[k - 1]
    entry = decided[at]
    entry.user = one.user
    entry.id = one.id
    entry.value = one.value
    entry.until = one.until
    entry.field = one.field
    entry.kind = one.kind
    count[0] += 1
    if one.kind == ATTACK and one.row >= 0:
        unlearn(profiles[one.row], np.int64(one.field), one.value)
    return APPLIED


@inline
def remove(decided, count, at):  # type: ignore[no-untyped-def]
    """Remove one decision."""
    for k in range(at, count[0] - 1):
        decided[k] = decided[k + 1]
    count[0] -= 1


@inline
def drop_ended(decided, count, clock):  # type: ignore[no-untyped-def]
    """Remove the expectations that have ended; this happens only when there is no more room."""
    kept = 0
    for k in range(count[0]):
        if decided[k].kind != EXPECTED or clock < np.int64(decided[k].until) * 1000:
            decided[kept] = decided[k]
            kept += 1
    count[0] = kept


@inline
def unlearn(s, c, value):  # type: ignore[no-untyped-def]
    """Remove a denied value from a sketch if it holds a small share of it."""
    k = slot_of(s.sketch_hash[c], value)
    if k < 0 or s.sketch_weight[c, k] >= MAX_DENIED_SHARE * s.sketch_total[c]:
        return
    s.sketch_total[c] -= s.sketch_weight[c, k]
    s.sketch_weight[c, k] = 0.0
    s.sketch_hash[c, k] = np.uint64(0)
    s.sketch_proven[c] &= ~(np.uint32(1) << np.uint32(k))
    if c == SOURCE:
        s.suspicion[k] = 0.0
        s.suspicion_ts[k] = 0
