"""K-Means peer groups of users, and how far each user is from theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.models import tail
from streamguard.settings.schema import Clusters

CHOOSE_FROM = 2000
"""UserTable, drawn with the seed, among whom the number of groups is chosen."""

FIT_ON = 100_000
"""UserTable, drawn with the seed, that scikit-learn finds centres for; all users are then put to the nearest."""

SMALL_SHARE = 100
"""A group is small with fewer than 3 users (of two, both are as far from their middle as the other), or than a
hundredth of all, or than half a fair share of very many groups. The largest never is."""

MIN_SPREAD = 0.1
"""No group's spread counts as less than this part of all groups' spread: a group of robots is not a needle."""

PRIOR_USERS = 50.0
"""What the prior distribution of distances is worth in users."""

PRIOR_BITS = 4.0
"""Prior: with each doubling of the distance beyond one spread, so many bits fewer are as far."""

USERS_A_GROUP = 5
"""On an average at least, where the number of groups is chosen: few users fall apart best into ones and twos."""

_STARTS = 4
_ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Group:
    """One peer group.

    Attributes
    ----------
    size : int
        UserTable in it.
    small : bool
        Whether its users are measured from the nearest group that is not.
    spread : float
        Median distance of its users from its centre, in standardised features; what distances are divided by.
    centre : (28,) float64
        Mean of its users' usual features.
    apart : (28,) float64
        The same, standardised: how it differs from the median user.
    """

    size: int
    small: bool
    spread: float
    centre: NDArray[np.float64]
    apart: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Peers:
    """The peer groups of n users.

    Attributes
    ----------
    group
        int32 (n,): 0 is the largest group.
    distance
        float64 (n,): from the centre, in spreads of the group; 1 is the median user. For users of small groups
        from the nearest group that is not small.
    bits
        float64 (n,): how unusual that distance is among all users; rises without end, but slowly: what a prior
        distribution of distances allows counts too, most among few users.
    groups
        By size, falling; ties by centre.
    silhouette
        Of the chosen number of groups, from -1 to 1; None if there is one group only.
    """

    group: NDArray[np.int32]
    distance: NDArray[np.float64]
    bits: NDArray[np.float64]
    groups: list[Group]
    silhouette: float | None

    @property
    def small(self) -> NDArray[np.bool_]:
        """bool (n,): whether the user's group is small."""
        return np.array([group.small for group in self.groups], bool)[self.group]


def peer_groups(usual: NDArray[np.float64], settings: Clusters, *, seed: int) -> Peers:
    """Put users into groups of alike; the same input gives the same result to the bit.

    Parameters
    ----------
    usual : (n, features) float64
        Finite; a user each.
    settings
        How many groups. With fewer users than one more than the groups,
        or than that many different users, there are fewer groups, and at last one. Where the number is chosen,
        `USERS_A_GROUP` bounds it.
    seed
        Of the draws and starts.

    Raises
    ------
    ValueError
        If the rows do not fit.

    Examples
    --------
    >>> usual = np.repeat([[0.0, 1.0], [5.0, 1.0], [90.0, 1.0]], [8, 6, 1], axis=0)
    >>> peers = peer_groups(usual, Clusters(), seed=0)
    >>> peers.group.tolist(), [group.small for group in peers.groups]
    ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2], [False, False, True])
    >>> bool(peers.distance[-1] > peers.distance[:-1].max())
    True
    """
    from threadpoolctl import threadpool_limits

    if usual.ndim != 2 or not np.isfinite(usual).all():
        raise ValueError(f"finite rows of shape (users, features) expected, got {usual.shape}")
    if not len(usual):
        return Peers(np.empty(0, np.int32), np.empty(0), np.empty(0), [], None)
    rows = _standardised(usual)
    random = np.random.default_rng(seed)
    # More threads add up in another order.
    with threadpool_limits(1):
        some = _draw(rows, CHOOSE_FROM, random)
        count, silhouette = _choose(some, settings, seed)
        one = rows.mean(axis=0, keepdims=True)
        centres = one if count == 1 else _centres(_draw(rows, FIT_ON, random), count, seed)
    group = _distances(rows, centres).argmin(axis=1)
    return _measured(usual, rows, *_ordered(rows, group), silhouette)


def _standardised(usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations from the median user, in standard deviations of the middle nine tenths of users.

    But no less than a third of all users' standard deviation, lest a feature that few users have drown the others.
    """
    low, median, high = np.quantile(usual, [0.05, 0.5, 0.95], axis=0)
    scale = np.maximum(np.clip(usual, low, high).std(axis=0), usual.std(axis=0) / 3.0)
    constant = scale <= 1e-9 * np.maximum(np.abs(median), 1.0)
    return np.where(constant, 0.0, (usual - median) / np.where(constant, 1.0, scale))


def _draw(rows: NDArray[np.float64], most: int, random: np.random.Generator) -> NDArray[np.float64]:
    if len(rows) <= most:
        return rows
    return rows[np.sort(random.choice(len(rows), most, replace=False))]


def _choose(rows: NDArray[np.float64], settings: Clusters, seed: int) -> tuple[int, float | None]:
    """How many groups, and their silhouette, over users of groups that are not small.

    A loner makes a group of its own whose silhouette is splendid; only what it leaves of the others tells
    whether they are well divided.
    """
    most = min(len(rows) - 1, len(np.unique(rows, axis=0)))
    if most < 2:
        return 1, None
    if settings.groups:
        count = min(settings.groups, most)
        return count, _silhouette(rows, _labels(rows, count, seed)) if count > 1 else None
    best: tuple[int, float | None] = 1, None
    for count in range(2, min(settings.max_groups, most, len(rows) // USERS_A_GROUP) + 1):
        value = _silhouette(rows, _labels(rows, count, seed))
        if value is not None and (best[1] is None or value > best[1]):
            best = count, value
    return best


def _labels(rows: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = _distances(rows, _centres(rows, count, seed)).argmin(axis=1)
    return labels


def _silhouette(rows: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    from sklearn.metrics import silhouette_score

    large = ~_small(np.bincount(labels))
    if large.sum() < 2:
        return None
    members = large[labels]
    return float(silhouette_score(rows[members], labels[members]))


def _small(sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    least = max(3.0, sizes.sum() / max(SMALL_SHARE, 2 * np.count_nonzero(sizes)))
    small: NDArray[np.bool_] = (sizes < least) & (sizes < sizes.max())
    return small


def _centres(rows: NDArray[np.float64], count: int, seed: int) -> NDArray[np.float64]:
    from sklearn.cluster import KMeans

    model = KMeans(count, n_init=_STARTS, max_iter=_ITERATIONS, random_state=seed, algorithm="lloyd")
    centres: NDArray[np.float64] = model.fit(rows).cluster_centers_
    return centres


def _distances(rows: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (n, centres)."""
    out = np.empty((len(rows), len(centres)))
    for k, centre in enumerate(centres):
        out[:, k] = np.sqrt(np.square(rows - centre).sum(axis=1))
    return out


def _ordered(
    rows: NDArray[np.float64], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Groups numbered by size, falling, ties by centre; and their centres."""
    used, group, sizes = np.unique(group, return_inverse=True, return_counts=True)
    centres = np.array([rows[group == k].mean(axis=0) for k in range(len(used))])
    order = sorted(range(len(used)), key=lambda k: (-sizes[k], centres[k].tolist()))
    return np.argsort(order)[group], centres[order]


def _measured(
    usual: NDArray[np.float64],
    rows: NDArray[np.float64],
    group: NDArray[np.int64],
    centres: NDArray[np.float64],
    silhouette: float | None,
) -> Peers:
    distances = _distances(rows, centres)
    own = distances[np.arange(len(rows)), group]
    sizes = np.bincount(group)
    small = _small(sizes)
    usual_spread = float(np.median(own[~small[group]])) or 1.0
    spread = np.array([np.median(own[group == k]) for k in range(len(sizes))])
    spread = np.maximum(spread, MIN_SPREAD * usual_spread)
    distance = np.where(small[group], (distances / spread)[:, ~small].min(axis=1), own / spread[group])
    return Peers(
        group=group.astype(np.int32),
        distance=distance,
        bits=_bits(distance),
        groups=[
            Group(int(sizes[k]), bool(small[k]), float(spread[k]), usual[group == k].mean(axis=0), centres[k])
            for k in range(len(sizes))
        ],
        silhouette=silhouette,
    )


def _bits(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """-log2 of the share of users as far away, by the measured tail and a prior that few users hardly outweigh."""
    measured = tail.measure(distance).bits(distance)
    prior = PRIOR_BITS * np.log2(np.maximum(distance, 1.0))
    trust = len(distance) / (len(distance) + PRIOR_USERS)
    share: NDArray[np.float64] = np.logaddexp2(np.log2(trust) - measured, np.log2(1.0 - trust) - prior)
    return np.maximum(-share, 0.0)
