"""The Isolation Forest with which the worker scores: packed trees and compiled kernels, without scikit-learn."""

from __future__ import annotations

import hashlib
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from streamguard.compute.compiler import inline, kernel
from streamguard.models.peer_values import PeerValues
from streamguard.models.tail import Tail
from streamguard.models.trees import MAX_DEPTH, Trees

BLOCK = 64
"""Rows that the block kernel passes through one tree together."""
MAX_NODES = 2**MAX_DEPTH - 1
"""Number of inner nodes of a perfect tree, which is also the number of its first leaf in heap order."""

_GO_LEFT = np.uint64(0xFF800000 << 32)
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_ONE = np.uint64(1)
_FIRST_LEAF = np.uint64(MAX_NODES)


class Packed:
    """Trees in a layout for fast scoring: each is a perfect tree in heap order, with one word per node.

    Parameters
    ----------
    trees
        Trees of the forest. They are checked here, because the kernels do not check bounds.
    columns
        For each feature of the trees its column in the rows to score, in rising order; None if they are the same.
    width
        Number of columns of a row to score; None if it has the features of the trees only.

    Raises
    ------
    ValueError
        If the trees are malformed or too deep; the message names the node at fault.
    """

    def __init__(
        self, trees: Trees, columns: NDArray[np.int64] | None = None, width: int | None = None
    ) -> None:
        depth = trees.depths()
        self.features = trees.features if width is None else width
        columns = np.arange(trees.features) if columns is None else columns
        self.normaliser = trees.normaliser
        count = len(trees.roots)
        self._nodes = np.full((count, MAX_NODES), _GO_LEFT, np.uint64)
        """The high half is the order key of the threshold, the low half the feature. Below a leaf all rows go left."""
        self._paths = np.zeros((count, MAX_NODES + 1))
        """Path length of each leaf, copied to all leaves of the subtree that it stands for."""
        words = (order_keys(trees.threshold) << _HIGH) | columns[np.maximum(trees.feature, 0)].astype(
            np.uint64
        )
        _pack(trees.roots, trees.left, trees.right, trees.path, depth, words, self._nodes, self._paths)

    def score_samples(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score rows; see `Forest.score_samples`."""
        raw = finite_rows(rows, self.features).view(np.int32)
        sums = np.empty(len(raw))
        whole = len(raw) - len(raw) % BLOCK
        _sum_blocks(raw[:whole], self._nodes, self._paths, sums[:whole])
        _sum_rows(raw[whole:], self._nodes, self._paths, sums[whole:])
        # numpy computes this: a compiled 2.0**x differs in its last bit from that of numpy and scikit-learn.
        scores: NDArray[np.float64] = -(2 ** -(sums / self.normaliser))
        return scores


class Forest:
    """A trained Isolation Forest, ready to score.

    Parameters
    ----------
    trees
        Trees as they were grown.
    tail
        Tail of the anomalies of the rows that stand for usual events.
    golden_rows : (golden, features) float32
        Rows that are scored again each time the forest is loaded.
    golden_scores : (golden,) float64
        Scores that these rows must get.
    weight
        Factor of `bits`, from 0 (the forest has no say in a verdict) to 1; see `streamguard.models.weight`.
    columns
        For each feature of the trees its column in the rows to score, in rising order; None if they are the same.
    width
        Number of columns of a row to score; None if it has the features of the trees only.
    peers
        What is usual among the peers of each user; it comes with the forest and does not change its scores. None
        without peer groups.

    Raises
    ------
    ValueError
        If the trees are malformed or too deep, the golden rows or the columns do not fit, or the weight is out of
        range; the message says which.

    Attributes
    ----------
    version : str
        Twelve hexadecimal digits that are computed from all parameters: the same training results in the same version.
    features : int
        Columns of a row to score.
    """

    def __init__(
        self,
        trees: Trees,
        tail: Tail,
        golden_rows: NDArray[np.float32],
        golden_scores: NDArray[np.float64],
        *,
        weight: float = 1.0,
        columns: NDArray[np.int64] | None = None,
        width: int | None = None,
        peers: PeerValues | None = None,
    ) -> None:
        if golden_rows.shape != (len(golden_scores), trees.features) or not len(golden_scores):
            raise ValueError(
                f"golden rows of shape {golden_rows.shape} do not fit {len(golden_scores)} scores "
                f"and {trees.features} features"
            )
        self.trees = trees
        self.tail = tail
        self.golden_rows = golden_rows
        self.golden_scores = golden_scores
        self.features = trees.features if width is None else width
        self.columns = np.arange(trees.features) if columns is None else columns
        self.weight = weight
        self.peers = peers
        chosen = self.columns
        if len(chosen) != trees.features or (np.diff(chosen) <= 0).any():
            raise ValueError(
                f"{len(chosen)} columns for {trees.features} features: they must be as many and rise"
            )
        if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < self.features:
            raise ValueError(
                f"columns {chosen[0]} to {chosen[-1]} are not among the {self.features} of a row"
            )
        if not 0.0 <= weight <= 1.0:
            raise ValueError(f"the weight must be from 0 to 1, not {weight:g}")
        self._packed = Packed(trees, self.columns, self.features)
        digest = hashlib.sha256()
        for part in (*astuple(trees), tail.anomaly, tail.level, tail.slope, golden_rows, golden_scores):
            array = np.asarray(part)
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        if weight != 1.0:  # versions of programs without weights stay the same
            digest.update(f"weight {weight!r}".encode())
        if peers is not None:  # those of programs without peers, too
            digest.update(b"peers " + peers.digest())
        self.version = digest.hexdigest()[:12]

    def score_samples(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score rows as scikit-learn's `IsolationForest.score_samples` does, to the bit.

        Parameters
        ----------
        rows : (n, features) float32
            Finite values. Other types are rounded to float32 first, as scikit-learn does. The score of a row does
            not depend on the other rows.

        Returns
        -------
        (n,) float64
            Between -1 and 0; the lower, the more abnormal.

        Raises
        ------
        ValueError
            If the shape does not fit, or if a value is not finite; the message names its row and column.
        """
        return self._packed.score_samples(rows)

    def bits(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute the evidence of the forest: `rarity` times its weight."""
        return self.weight * self.rarity(rows)

    def rarity(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute how abnormal rows are: -log2 of the share of usual rows that are at least as abnormal.

        Parameters
        ----------
        rows : (n, features) float32
            Rows as for `score_samples`.

        Returns
        -------
        (n,) float64
            0 at and below the median; above, the bits rise with the anomaly without a limit.
        """
        return self.tail.bits(-self.score_samples(rows))


def weighted(forest: Forest, weight: float) -> Forest:
    """Return the same forest with another weight."""
    return _changed(forest, weight, forest.peers)


def with_peers(forest: Forest, peers: PeerValues | None) -> Forest:
    """Return the same forest with other peers; another version, because a version is all that workers load."""
    return _changed(forest, forest.weight, peers)


def _changed(forest: Forest, weight: float, peers: PeerValues | None) -> Forest:
    return Forest(
        forest.trees,
        forest.tail,
        forest.golden_rows,
        forest.golden_scores,
        weight=weight,
        columns=forest.columns,
        width=forest.features,
        peers=peers,
    )


def finite_rows(values: NDArray[np.floating], features: int | None = None) -> NDArray[np.float32]:
    """Return `values` as a contiguous (n, features) array of float32.

    Raises
    ------
    ValueError
        If the shape differs, or if a value is not finite as float32; the message names its row and column.

    Examples
    --------
    >>> finite_rows(np.array([[1.0, 2.0], [3.0, 1e39]]))
    Traceback (most recent call last):
    ValueError: row 1, column 1 is inf as float32: features must be finite
    """
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(values, dtype=np.float32)
    if rows.ndim != 2 or (features is not None and rows.shape[1] != features):
        raise ValueError(
            f"rows of shape (n, {'features' if features is None else features}) expected, got {rows.shape}"
        )
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"row {row}, column {column} is {rows[row, column]} as float32: features must be finite"
        )
    return rows


@kernel
def _pack(roots, left, right, path, depth, words, nodes, paths):  # type: ignore[no-untyped-def]
    """Write each tree in heap order: inner nodes to `nodes`, the path of each leaf to all leaves of its subtree."""
    place = np.zeros(len(left), np.int64)
    for k in range(len(roots)):
        end = roots[k + 1] if k + 1 < len(roots) else len(left)
        for i in range(roots[k], end):
            if left[i] != -1:
                nodes[k, 2 ** depth[i] - 1 + place[i]] = words[i]
                place[left[i]] = 2 * place[i]
                place[right[i]] = 2 * place[i] + 1
            else:
                width = 2 ** (MAX_DEPTH - depth[i])
                for q in range(place[i] * width, (place[i] + 1) * width):
                    paths[k, q] = path[i]


def order_keys(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Convert floats to unsigned integers of the same order; both zeros count as +0.

    Examples
    --------
    >>> (order_keys(np.array([-1, -0.0, 0.0, 1], np.float32)).astype(np.int64) - 2**31).tolist()
    [-1065353217, 0, 0, 1065353216]
    """
    raw = np.ascontiguousarray(values + np.float32(0)).view(np.int32)
    return (np.where(raw >= 0, raw, raw ^ 0x7FFFFFFF).astype(np.int64) + 2**31).astype(np.uint64)


@inline
def _key(raw):  # type: ignore[no-untyped-def]
    return np.uint64(np.int64(raw if raw >= 0 else raw ^ np.int32(0x7FFFFFFF)) + np.int64(2147483648))


@kernel
def _sum_blocks(raw, nodes, paths, sums):  # type: ignore[no-untyped-def]
    """Add up path lengths, tree by tree for 64 rows at a time, so that the tree stays in the fastest cache.

    The two upper levels compare whole columns. Below, all rows of the block go down one level before any of them goes
    down the next one, so that their loads overlap. The sums are computed in the order of the trees.
    """
    n, features = raw.shape
    columns = np.empty((features, BLOCK), np.uint32)
    keys = np.empty((BLOCK, features), np.uint64)
    slot = np.empty(BLOCK, np.uint64)
    for start in range(0, n, BLOCK):
        for row in range(BLOCK):
            for feature in range(features):
                key = _key(raw[start + row, feature])
                keys[row, feature] = key
                columns[feature, row] = key
            sums[start + row] = 0.0
        for tree in range(len(nodes)):
            node = nodes[tree]
            path = paths[tree]
            top, left, right = node[0], node[1], node[2]
            at_top, at_left, at_right = columns[top & _LOW], columns[left & _LOW], columns[right & _LOW]
            than_top, than_left, than_right = (
                np.uint32(top >> _HIGH),
                np.uint32(left >> _HIGH),
                np.uint32(right >> _HIGH),
            )
            for row in range(BLOCK):
                if_left = np.uint64(3) + np.uint64(at_left[row] > than_left)
                if_right = np.uint64(5) + np.uint64(at_right[row] > than_right)
                slot[row] = if_right if at_top[row] > than_top else if_left
            for _ in range(MAX_DEPTH - 2):
                for row in range(BLOCK):
                    here = slot[row]
                    word = node[here]
                    slot[row] = here + here + _ONE + np.uint64(keys[row, word & _LOW] > (word >> _HIGH))
            for row in range(BLOCK):
                sums[start + row] += path[slot[row] - _FIRST_LEAF]


@kernel
def _sum_rows(raw, nodes, paths, sums):  # type: ignore[no-untyped-def]
    """Add up path lengths row by row: all trees go down one level before any of them goes down the next one."""
    n, features = raw.shape
    trees = len(nodes)
    keys = np.empty(features, np.uint64)
    slot = np.empty(trees, np.uint64)
    for row in range(n):
        for feature in range(features):
            keys[feature] = _key(raw[row, feature])
        slot[:] = 0
        for _ in range(MAX_DEPTH):
            for tree in range(trees):
                here = slot[tree]
                word = nodes[tree, here]
                slot[tree] = here + here + _ONE + np.uint64(keys[word & _LOW] > (word >> _HIGH))
        total = 0.0
        for tree in range(trees):
            total += paths[tree, slot[tree] - _FIRST_LEAF]
        sums[row] = total
