"""The trees of a forest as flat arrays, and the check that they are well-formed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.compute.compiler import kernel

MAX_DEPTH = 8
"""Number of splits on the longest path. Isolation trees that are grown on at most 256 rows do not exceed it."""

MAX_TREES = 10_000
"""Maximum number of trees; more would take over 40 MB when packed."""


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """Trees one after the other, each beginning with its root.

    Attributes
    ----------
    features : int
        Columns of a row.
    normaliser : float
        Number of trees times the mean path length of a search among a tree's samples.
    roots : (trees,) int32
        Index of each tree's root; the first is 0.
    feature : (nodes,) int32
        Column on which a node splits; -1 at a leaf.
    threshold : (nodes,) float32
        A row goes left if its value is not greater; 0 at a leaf.
    left, right : (nodes,) int32
        Indices of the children, greater than the node's own and within its tree; -1 at a leaf.
    path : (nodes,) float64
        Path length of a row that ends at this leaf; 0 at an inner node.
    """

    features: int
    normaliser: float
    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    path: NDArray[np.float64]

    def depths(self) -> NDArray[np.int64]:
        """Check everything on which a traversal of the trees relies, and return the depth of each node.

        Returns
        -------
        (nodes,) int64
            Depth of each node; that of a root is 0.

        Raises
        ------
        ValueError
            If the trees are malformed; the message names the fault and the first such node: a child out of range, a
            cycle, two parents or none, a feature that does not exist, a threshold or path length that is not finite,
            or more than `MAX_DEPTH` splits.
        """
        nodes = len(self.feature)
        for name in ("threshold", "left", "right", "path"):
            if len(getattr(self, name)) != nodes:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {nodes} nodes")
        if not (np.isfinite(self.normaliser) and self.normaliser > 0):
            raise ValueError(f"normaliser must be finite and positive, not {self.normaliser}")
        if not len(self.roots):
            raise ValueError("roots must start at 0 and rise within the nodes")
        if len(self.roots) > MAX_TREES:
            raise ValueError(f"{len(self.roots)} trees, but at most {MAX_TREES} can be packed")
        depth = np.zeros(nodes, np.int64)
        fault, node = _check(
            self.roots, self.feature, self.threshold, self.left, self.right, self.path, self.features, depth
        )
        if fault == ROOTS:
            raise ValueError("roots must start at 0 and rise within the nodes")
        if fault:
            raise ValueError(f"node {node} {FAULTS[fault]}")
        return depth


ROOTS = 1
FAULTS = (
    "",
    "",
    "has one child",
    "has a child out of range or one that leads back",
    "has two parents or none",
    "splits on a feature that does not exist",
    "has a threshold that is not finite",
    "has a path length that is negative or not finite",
    f"lies below {MAX_DEPTH} splits: train with at most {2**MAX_DEPTH} samples a tree",
)
"""Faults that `_check` finds, by their number."""


@kernel
def _check(roots, feature, threshold, left, right, path, features, depth):  # type: ignore[no-untyped-def]
    """Fill `depth` and return the number of the first fault and its node; this does not hold the interpreter lock.

    A worker loads a forest while it scores, and array operations of numpy would hold the lock from time to time.
    """
    nodes, count = len(feature), len(roots)
    if roots[0] != 0 or roots[count - 1] >= nodes:
        return ROOTS, 0
    for k in range(1, count):
        if roots[k] <= roots[k - 1]:
            return ROOTS, 0
    for i in range(nodes):
        if (left[i] == -1) != (right[i] == -1):
            return 2, i
    for k in range(count):
        end = roots[k + 1] if k + 1 < count else nodes
        for i in range(roots[k], end):
            if left[i] != -1 and (left[i] <= i or left[i] >= end or right[i] <= i or right[i] >= end):
                return 3, i
    parents = np.zeros(nodes, np.int64)
    for k in range(count):
        parents[roots[k]] += 1
    for i in range(nodes):
        if left[i] != -1:
            parents[left[i]] += 1
            parents[right[i]] += 1
    for i in range(nodes):
        if parents[i] != 1:
            return 4, i
    for i in range(nodes):
        if left[i] != -1 and (feature[i] < 0 or feature[i] >= features):
            return 5, i
    for i in range(nodes):
        if not np.isfinite(threshold[i]):
            return 6, i
    for i in range(nodes):
        if not (np.isfinite(path[i]) and path[i] >= 0.0):
            return 7, i
    for i in range(nodes):
        if left[i] != -1:
            depth[left[i]] = depth[i] + 1
            depth[right[i]] = depth[i] + 1
    for i in range(nodes):
        if depth[i] > MAX_DEPTH:
            return 8, i
    return 0, 0
