"""Divides users into K-Means peer groups, and measures the distance of each user from their group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.models import tail
from streamguard.settings.schema import Clusters

CHOOSE_FROM = 2000
"""Maximum number of randomly drawn users on which the number of groups is chosen."""

SMALL_SHARE = 100
"""A group is small if it has fewer than 3 users, fewer than a hundredth of all users, or, with very many groups,
less than half of an equal share. Two users are always equally far from their middle. The largest group is never
small."""

MIN_SPREAD = 0.1
"""Minimum spread of a group, as a part of the usual spread: the members of a group of robots hardly differ."""

PRIOR_USERS = 50.0
"""Weight of the prior distribution of distances, in users."""

PRIOR_BITS = 4.0
"""Bits that the prior distribution adds for each doubling of the distance beyond one spread."""

USERS_A_GROUP = 5
"""Minimum average size of a group when the number of groups is chosen: otherwise groups of 1 or 2 users score best."""

_STARTS = 4
_ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Group:
    """One peer group.

    Attributes
    ----------
    small : bool
        Whether the group is small; its users are measured from the nearest group that is not small.
    spread : float
        Median distance of its users from its centre, in standardised features; the unit of distances.
    centre : (28,) float64
        Mean of its users' usual features.
    apart : (28,) float64
        Standardised centre: its difference from the median user.
    """

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
        int32 (n,): number of the user's group.
    distance
        float64 (n,): distance from the centre, in spreads of the group; 1 is the median user. Users of small
        groups are measured from the nearest group that is not small.
    bits
        float64 (n,): how unusual that distance is among all users. A prior distribution of distances contributes,
        mainly if there are few users; therefore the bits grow with the distance slowly, but without a limit.
    small
        bool (n,): whether the user's group is small.
    """

    group: NDArray[np.int32]
    distance: NDArray[np.float64]
    bits: NDArray[np.float64]
    small: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PeerGroups:
    """Groups of similar users, made from a sample of users; any user can be assigned to one.

    Attributes
    ----------
    groups
        The groups, by decreasing size in the sample and then by centre; none without users.
    silhouette
        Silhouette of the division into groups, from -1 to 1; None if there is only one group.
    anchors
        float64 (groups, 28), standardised: a user belongs to the nearest.
    scale
        How features are standardised.
    tail
        How rare a distance is in the sample.
    users
        Number of users in the sample.
    """

    groups: list[Group]
    silhouette: float | None
    anchors: NDArray[np.float64]
    scale: _Scale
    tail: tail.Tail
    users: int

    def assign(self, usual: NDArray[np.float64]) -> Peers:
        """Assign users to groups, each by itself: it does not matter which users are assigned together.

        Parameters
        ----------
        usual : (n, features) float64
            Usual features, finite, one row for each user.
        """
        if not len(usual):
            nobody = np.empty(0)
            return Peers(nobody.astype(np.int32), nobody, nobody, nobody.astype(bool))
        rows = self.scale.standardised(usual)
        group = _distances(rows, self.anchors).argmin(axis=1)
        distance = _measured(rows, group, self.groups)
        small = np.array([group.small for group in self.groups], bool)
        return Peers(group.astype(np.int32), distance, _bits(distance, self.tail, self.users), small[group])


def peer_groups(usual: NDArray[np.float64], settings: Clusters, *, seed: int) -> PeerGroups:
    """Divide users into groups of similar users; the same input gives the same result to the bit.

    Parameters
    ----------
    usual : (n, features) float64
        Usual features, finite, one row for each user, of all users or of a random sample of them.
    settings
        Number of groups. There are always fewer groups than users, and at most as many as different users; the
        minimum is one group. If the number is chosen automatically, `USERS_A_GROUP` limits it.
    seed
        Seed of the random draws and of K-Means.

    Raises
    ------
    ValueError
        If the rows have a wrong shape or are not finite.

    Examples
    --------
    >>> usual = np.repeat([[0.0, 1.0], [5.0, 1.0], [90.0, 1.0]], [8, 6, 1], axis=0)
    >>> found = peer_groups(usual, Clusters(), seed=0)
    >>> peers = found.assign(usual)
    >>> peers.group.tolist(), [group.small for group in found.groups]
    ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2], [False, False, True])
    >>> bool(peers.distance[-1] > peers.distance[:-1].max())
    True
    """
    from threadpoolctl import threadpool_limits

    if usual.ndim != 2 or not np.isfinite(usual).all():
        raise ValueError(f"finite rows of shape (users, features) expected, got {usual.shape}")
    if not len(usual):
        width = usual.shape[1]
        scale = _Scale(np.zeros(width), np.ones(width))
        return PeerGroups([], None, np.empty((0, width)), scale, tail.measure(np.zeros(1)), 0)
    scale = _Scale.of(usual)
    rows = scale.standardised(usual)
    random = np.random.default_rng(seed)
    # Several threads would add numbers in another order, which changes the last bits.
    with threadpool_limits(1):
        some = _draw(rows, CHOOSE_FROM, random)
        count, silhouette = _number_of_groups(some, settings, seed)
        anchors = rows.mean(axis=0, keepdims=True) if count == 1 else _centres(rows, count, seed)
    anchors, group = _by_size(rows, anchors)
    groups = _described(usual, rows, group)
    measured = tail.measure(_measured(rows, group, groups))
    return PeerGroups(groups, silhouette, anchors, scale, measured, len(usual))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Standardises features: deviations from the median user, in standard deviations of the middle nine tenths.

    The unit is at least a third of all users' standard deviation. Otherwise a feature that only few users have would
    dominate the other features. A constant feature has the unit infinity.
    """

    median: NDArray[np.float64]
    unit: NDArray[np.float64]

    @classmethod
    def of(cls, usual: NDArray[np.float64]) -> _Scale:
        low, median, high = np.quantile(usual, [0.05, 0.5, 0.95], axis=0)
        unit = np.maximum(np.clip(usual, low, high).std(axis=0), usual.std(axis=0) / 3.0)
        constant = unit <= 1e-9 * np.maximum(np.abs(median), 1.0)
        return cls(median, np.where(constant, np.inf, unit))

    def standardised(self, usual: NDArray[np.float64]) -> NDArray[np.float64]:
        return (usual - self.median) / self.unit


def _draw(rows: NDArray[np.float64], limit: int, random: np.random.Generator) -> NDArray[np.float64]:
    if len(rows) <= limit:
        return rows
    return rows[np.sort(random.choice(len(rows), limit, replace=False))]


def _number_of_groups(rows: NDArray[np.float64], settings: Clusters, seed: int) -> tuple[int, float | None]:
    """Number of groups, and their silhouette over the users of groups that are not small.

    A single outlier forms a group with an excellent silhouette, which does not measure the division of the other users.
    """
    limit = min(len(rows) - 1, len(np.unique(rows, axis=0)))
    if limit < 2:
        return 1, None
    if settings.groups:
        count = min(settings.groups, limit)
        return count, _silhouette(rows, _labels(rows, count, seed)) if count > 1 else None
    best: tuple[int, float | None] = 1, None
    for count in range(2, min(settings.max_groups, limit, len(rows) // USERS_A_GROUP) + 1):
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
    minimum = max(3.0, sizes.sum() / max(SMALL_SHARE, 2 * np.count_nonzero(sizes)))
    small: NDArray[np.bool_] = (sizes < minimum) & (sizes < sizes.max())
    return small


def _centres(rows: NDArray[np.float64], count: int, seed: int) -> NDArray[np.float64]:
    from sklearn.cluster import KMeans

    model = KMeans(count, n_init=_STARTS, max_iter=_ITERATIONS, random_state=seed, algorithm="lloyd")
    centres: NDArray[np.float64] = model.fit(rows).cluster_centers_
    return centres


def _distances(rows: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each row from each centre: float64 (n, centres)."""
    out = np.empty((len(rows), len(centres)))
    for k, centre in enumerate(centres):
        out[:, k] = np.sqrt(np.square(rows - centre).sum(axis=1))
    return out


def _by_size(
    rows: NDArray[np.float64], anchors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Number the groups by decreasing size, then by centre; the anchors in this order, and the group of each row."""
    used, group, sizes = np.unique(
        _distances(rows, anchors).argmin(axis=1), return_inverse=True, return_counts=True
    )
    centres = [rows[group == k].mean(axis=0).tolist() for k in range(len(used))]
    order = sorted(range(len(used)), key=lambda k: (-sizes[k], centres[k]))
    return anchors[used][order], np.argsort(order)[group]


def _described(
    usual: NDArray[np.float64], rows: NDArray[np.float64], group: NDArray[np.int64]
) -> list[Group]:
    sizes = np.bincount(group)
    small = _small(sizes)
    centres = np.array([rows[group == k].mean(axis=0) for k in range(len(sizes))])
    own = _distances(rows, centres)[np.arange(len(rows)), group]
    usual_spread = float(np.median(own[~small[group]])) or 1.0
    spread = [max(float(np.median(own[group == k])), MIN_SPREAD * usual_spread) for k in range(len(sizes))]
    return [
        Group(bool(small[k]), spread[k], usual[group == k].mean(axis=0), centres[k])
        for k in range(len(sizes))
    ]


def _measured(
    rows: NDArray[np.float64], group: NDArray[np.int64], groups: list[Group]
) -> NDArray[np.float64]:
    """Distance of each row from its group, or from the nearest group that is not small, in spreads."""
    distances = _distances(rows, np.array([one.apart for one in groups]))
    distances /= np.array([one.spread for one in groups])
    small = np.array([one.small for one in groups])
    own: NDArray[np.float64] = distances[np.arange(len(rows)), group]
    return np.where(small[group], distances[:, ~small].min(axis=1), own)


def _bits(distance: NDArray[np.float64], measured: tail.Tail, users: int) -> NDArray[np.float64]:
    """-log2 of the share of users as far away, from the measured tail and from a prior worth `PRIOR_USERS` users."""
    prior = PRIOR_BITS * np.log2(np.maximum(distance, 1.0))
    trust = users / (users + PRIOR_USERS)
    share: NDArray[np.float64] = np.logaddexp2(
        np.log2(trust) - measured.bits(distance), np.log2(1.0 - trust) - prior
    )
    return np.maximum(-share, 0.0)
