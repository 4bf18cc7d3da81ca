"""Selects the training rows of a forest: the quiet events of known users from a sample by hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.features import NAMES

QUIET_TAIL_BITS = 6.0
"""The forest is not trained on rows whose score is rarer than 1 in 64."""

SETTLED_DAYS = 3
"""Number of days after which a user is settled. Before, the user's events are neither usual nor unusual, and accounts
under attack are often new."""

MIN_ROWS = 256
"""Number of rows of one tree. If there are fewer settled rows than this, rows of new users are used, too."""

MIN_SETTLED = 0.5
"""Rows of new users are also used if the share of settled rows is less than this, as in a short history."""

_ACTIVE_DAYS = NAMES.index("active_days")


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of the training events from a sample of n events.

    Attributes
    ----------
    rows
        int64 (rows,): indices of the training rows, in the order in which they are passed to the training.
    calibration
        int64 (m,): indices of the rows whose scores define what is usual.
    quiet
        bool (n,): whether neither patterns nor bits classify an event as an attack.
    """

    rows: NDArray[np.int64]
    calibration: NDArray[np.int64]
    quiet: NDArray[np.bool_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool (n,): whether an event is a training row."""
        chosen = np.zeros(len(self.quiet), bool)
        chosen[self.rows] = True
        return chosen

    @property
    def trimmed(self) -> float:
        """Share of the sample that is left out as possible attacks."""
        return float(1.0 - self.quiet.mean()) if len(self.quiet) else 0.0


def select(
    priority: NDArray[np.uint64],
    user: NDArray[Any],
    features: NDArray[np.float32],
    tail: NDArray[np.float64],
    patterns: NDArray[np.uint64],
    alerted: NDArray[np.bool_],
    *,
    per_user: int,
) -> Selection:
    """Select the events of a sample that train a forest, and those that calibrate how rare its scores are.

    Parameters
    ----------
    priority
        uint64 (n,); see the function `priority`.
    user
        (n,), anything that sorts and is the same for the same user.
    features
        float32 (n, 34).
    tail, patterns, alerted
        See `quiet`.
    per_user
        Maximum number of rows of a user.
    """
    calm = quiet(tail, patterns, alerted)
    return Selection(
        training_rows(priority, user, calm, settled(features), per_user=per_user),
        calibration_rows(priority, user, patterns, alerted, per_user=per_user),
        calm,
    )


def priority(partition: int, offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Compute a pseudo-random number for each event from its partition and offset.

    The events with the smallest numbers are a uniform sample; the samples of two offset ranges can be merged into the
    sample of both.

    Parameters
    ----------
    partition
        Number of the partition of the events.
    offsets
        int64 (n,).

    Returns
    -------
    uint64 (n,)
        The numbers; they differ for all offsets of a partition.

    Examples
    --------
    >>> priority(0, np.array([0, 1]))
    array([ 9669442505924063346, 14597238741446171578], dtype=uint64)
    """
    return _mix(offsets.astype(np.uint64) + _mix(np.array([partition], np.uint64)) * _STEP)


_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Step and finaliser of SplitMix64."""
    mixed = values + _STEP
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def smallest(priority: NDArray[np.uint64], most: int) -> NDArray[np.int64]:
    """Return the indices of the `most` smallest values, smallest first.

    Examples
    --------
    >>> smallest(np.array([7, 3, 9, 5], np.uint64), 2)
    array([1, 3])
    """
    return np.argsort(priority, kind="stable")[:most]


def quiet(
    tail: NDArray[np.float64], patterns: NDArray[np.uint64], alerted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether neither patterns nor bits classify an event as an attack.

    Parameters
    ----------
    tail
        float64 (n,), bits; see `streamguard.state.partition.Folded`.
    patterns
        uint64 (n,).
    alerted
        bool (n,).
    """
    return np.asarray((tail <= QUIET_TAIL_BITS) & (patterns == 0) & ~alerted, np.bool_)


def settled(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the user of an event was seen on `SETTLED_DAYS` days: bool (n,), from (n, 34) features."""
    return np.asarray(features[:, _ACTIVE_DAYS] > np.log2(SETTLED_DAYS + 0.5), np.bool_)


def training_rows(
    priority: NDArray[np.uint64],
    user: NDArray[Any],
    quiet: NDArray[np.bool_],
    settled: NDArray[np.bool_],
    *,
    per_user: int,
) -> NDArray[np.int64]:
    """Select the rows of a sample that train a forest.

    These are the quiet and settled rows, or all quiet rows if the former are few. If a user has too many, those with
    the smallest priority are selected.

    Parameters
    ----------
    priority
        uint64 (n,).
    user
        (n,), anything that sorts and is the same for the same user.
    quiet, settled
        bool (n,).
    per_user
        Maximum number of rows of a user.

    Returns
    -------
    int64 (rows,)
        Indices, smallest priority first, so that the same events in another order result in the same forest.

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
    """Select the rows that calibrate how rare a score is: all rows that are not attacks, including those of new users.

    With the training rows alone, all other events would appear rarer than they are.

    Parameters
    ----------
    priority, user, per_user
        See `training_rows`.
    patterns, alerted
        See `quiet`.

    Returns
    -------
    int64 (rows,)
        Indices, smallest priority first.
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
