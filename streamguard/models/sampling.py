"""What a forest is trained on: a sample by hash, of it what is quiet and of users known for some days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.features import NAMES

QUIET_TAIL_BITS = 6.0
"""A row that the score calls rarer than one in 64 teaches the forest nothing."""

SETTLED_DAYS = 3
"""What a user does in the first days is neither usual nor unusual, and accounts under attack are often new."""

MIN_ROWS = 256
"""What one tree sees. Fewer settled rows than this, and those of new users are taken too."""

MIN_SETTLED = 0.5
"""Likewise if settled rows are less than this share: then nobody is known for long."""

_ACTIVE_DAYS = NAMES.index("active_days")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of a sample of n train.

    Attributes
    ----------
    rows
        int64 (rows,): indices, in the order in which they are handed to training.
    calibration
        int64 (m,): indices of the rows whose scores are what is usual.
    quiet
        bool (n,): what neither patterns nor bits call an attack.
    """

    rows: NDArray[np.int64]
    calibration: NDArray[np.int64]
    quiet: NDArray[np.bool_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool (n,): which events train."""
        chosen = np.zeros(len(self.quiet), bool)
        chosen[self.rows] = True
        return chosen

    @property
    def trimmed(self) -> float:
        """Share of the sample that is left out as possible attacks."""
        return float(1.0 - self.quiet.mean()) if len(self.quiet) else 0.0


def choose(
    priority: NDArray[np.uint64],
    user: NDArray[Any],
    features: NDArray[np.float32],
    tail: NDArray[np.float64],
    patterns: NDArray[np.uint64],
    alerted: NDArray[np.bool_],
    *,
    per_user: int,
) -> Selection:
    """Which events of a sample train a forest, and which say how rare its scores are.

    Parameters
    ----------
    priority
        uint64 (n,), see the function of this name.
    user
        (n,), anything that sorts and is the same for the same user.
    features
        float32 (n, 28).
    tail, patterns, alerted
        As for `quiet`.
    per_user
        Rows of a user at the most.
    """
    calm = quiet(tail, patterns, alerted)
    return Selection(
        training_rows(priority, user, calm, settled(features), per_user=per_user),
        calibration_rows(priority, user, patterns, alerted, per_user=per_user),
        calm,
    )


def priority(partition: int, offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number for each event that looks random and follows from where the event stands.

    Those with the smallest make a uniform sample; samples of two stretches merge into that of both.

    Parameters
    ----------
    partition
        Number of the events' partition.
    offsets
        int64 (n,).

    Returns
    -------
    uint64 (n,)
        Different for each offset of a partition.

    Examples
    --------
    >>> priority(0, np.array([0, 1]))
    array([ 9669442505924063346, 14597238741446171578], dtype=uint64)
    """
    return _mix(offsets.astype(np.uint64) + _mix(np.array([partition], np.uint64)) * _STEP)


_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The step and the finaliser of splitmix64."""
    mixed = values + _STEP
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def smallest(priority: NDArray[np.uint64], most: int) -> NDArray[np.int64]:
    """Indices of the `most` smallest, smallest first.

    Examples
    --------
    >>> smallest(np.array([7, 3, 9, 5], np.uint64), 2)
    array([1, 3])
    """
    return np.argsort(priority, kind="stable")[:most]


def quiet(
    tail: NDArray[np.float64], patterns: NDArray[np.uint64], alerted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """What neither patterns nor bits call an attack.

    Parameters
    ----------
    tail
        float64 (n,), bits; as `streamguard.state.partition.Folded` has it.
    patterns
        uint64 (n,).
    alerted
        bool (n,).
    """
    return np.asarray((tail <= QUIET_TAIL_BITS) & (patterns == 0) & ~alerted, np.bool_)


def settled(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Events of users that have been seen on `SETTLED_DAYS` days; of (n, 28) features, a bool (n,)."""
    return np.asarray(features[:, _ACTIVE_DAYS] > np.log2(SETTLED_DAYS + 0.5), np.bool_)


def training_rows(
    priority: NDArray[np.uint64],
    user: NDArray[Any],
    quiet: NDArray[np.bool_],
    settled: NDArray[np.bool_],
    *,
    per_user: int,
) -> NDArray[np.int64]:
    """Which rows of a sample train a forest.

    The quiet and settled ones, or all quiet ones while the former are few; of a user only those with the smallest
    priority.

    Parameters
    ----------
    priority
        uint64 (n,).
    user
        (n,), anything that sorts and is the same for the same user.
    quiet, settled
        bool (n,).
    per_user
        Rows of a user at the most.

    Returns
    -------
    int64 (rows,)
        Indices, smallest priority first, so that the same events in another order give the same forest.

    Examples
    --------
    >>> few = np.ones(4, bool)
    >>> training_rows(np.array([4, 3, 2, 1], np.uint64), np.array(["a", "b", "a", "a"]), few, few, per_user=2)
    array([3, 2, 1])
    """
    known = _capped(priority, user, quiet & settled, per_user)
    all_quiet = _capped(priority, user, quiet, per_user)
    enough = len(known) >= max(MIN_ROWS, MIN_SETTLED * len(all_quiet))
    return known if enough else all_quiet


def calibration_rows(
    priority: NDArray[np.uint64],
    user: NDArray[Any],
    patterns: NDArray[np.uint64],
    alerted: NDArray[np.bool_],
    *,
    per_user: int,
) -> NDArray[np.int64]:
    """Which rows of a sample say how rare a forest's score is: all that was not called an attack, new users too.

    The training rows alone would make everything else look rarer than it is.

    Parameters
    ----------
    priority, user, per_user
        As for `training_rows`.
    patterns, alerted
        As for `quiet`.

    Returns
    -------
    int64 (rows,)
        As of `training_rows`.
    """
    return _capped(priority, user, (patterns == 0) & ~alerted, per_user)


def _capped(
    priority: NDArray[np.uint64], user: NDArray[Any], among: NDArray[np.bool_], per_user: int
) -> NDArray[np.int64]:
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(priority[rows], kind="stable")]
    _, group = np.unique(user[rows], return_inverse=True)
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    return rows[place < per_user]
