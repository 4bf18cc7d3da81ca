"""The trees of a forest as flat arrays, and the check that they are trees at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 8
"""Splits on the longest path. Isolation trees grown on at most 256 rows have no more."""

MAX_TREES = 10_000
"""More would take more than 40 MB when packed."""


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """Trees one after the other, each from its root on.

    Attributes
    ----------
    features : int
        Columns of a row.
    normaliser : float
        Number of trees times the mean path length of a search among a tree's samples.
    roots : (trees,) int32
        Index of each tree's root; the first is 0.
    feature : (nodes,) int32
        Column that a node splits on; -1 at a leaf.
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
        """Depth of every node, a root's being 0, after a check of all that a walk through them relies on.

        Returns
        -------
        (nodes,) int64

        Raises
        ------
        ValueError
            Naming what is wrong, with the first node at fault: a child out of range, a cycle, two parents or
            none, no such feature, a threshold or path length that is not finite, over `MAX_DEPTH` splits.
        """
        nodes = len(self.feature)
        for name in ("threshold", "left", "right", "path"):
            if len(getattr(self, name)) != nodes:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {nodes} nodes")
        if not (np.isfinite(self.normaliser) and self.normaliser > 0):
            raise ValueError(f"normaliser must be finite and positive, not {self.normaliser}")
        roots = self.roots
        if not len(roots) or roots[0] != 0 or (roots[1:] <= roots[:-1]).any() or roots[-1] >= nodes:
            raise ValueError("roots must start at 0 and rise within the nodes")
        if len(roots) > MAX_TREES:
            raise ValueError(f"{len(roots)} trees, but {MAX_TREES} at most are packed")
        ends = np.append(roots[1:], nodes)
        end = np.repeat(ends, ends - roots)
        leaf = self.left == -1
        number = np.arange(nodes)
        _refuse((self.right == -1) != leaf, "has one child")
        for side in (self.left, self.right):
            _refuse(
                ~leaf & ((side <= number) | (side >= end)), "has a child out of range or one that leads back"
            )
        children = np.concatenate([self.left[~leaf], self.right[~leaf], roots])
        _refuse(np.bincount(children, minlength=nodes) != 1, "has two parents or none")
        _refuse(
            ~leaf & ((self.feature < 0) | (self.feature >= self.features)),
            "splits on a feature that does not exist",
        )
        _refuse(~np.isfinite(self.threshold), "has a threshold that is not finite")
        _refuse(
            ~(np.isfinite(self.path) & (self.path >= 0)), "has a path length that is negative or not finite"
        )
        depth = np.zeros(nodes, np.int64)
        level = roots
        for below in range(1, MAX_DEPTH + 2):
            inner = level[~leaf[level]]
            level = np.concatenate([self.left[inner], self.right[inner]])
            depth[level] = below
        _refuse(
            depth > MAX_DEPTH,
            f"lies below {MAX_DEPTH} splits: train with at most {2**MAX_DEPTH} samples a tree",
        )
        return depth


def _refuse(wrong: NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        raise ValueError(f"node {int(wrong.argmax())} {what}")
