"""Training: scikit-learn grows the trees; the resulting forest does not need scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.errors import ConfigurationError
from streamguard.fold.features import NAMES, TRAINED
from streamguard.models import tail
from streamguard.models.forest import Forest, Packed, finite_rows
from streamguard.models.sampling import Selection
from streamguard.models.trees import MAX_DEPTH, MAX_TREES, Trees
from streamguard.settings.schema import Training

GOLDEN = 16
"""Number of training rows that are stored with their scores, from the least to the most abnormal."""


MARGIN = 0.5
"""The background extends beyond the rows on both sides by this fraction of their range."""


def train_on(features: NDArray[np.float32], chosen: Selection, settings: Training) -> Forest:
    """Train on the features `TRAINED` of the selected rows of a sample, with the parameters of the settings.

    Parameters
    ----------
    features : (n, 34) float32
        Rows with all features.
    chosen
        Selection among them.

    Returns
    -------
    Forest
        It scores rows with all features.

    Raises
    ------
    ValueError
        See `train`.
    """
    return train(
        features[chosen.rows],
        calibration=features[chosen.calibration],
        columns=np.array([NAMES.index(name) for name in TRAINED]),
        seed=settings.seed,
        trees=settings.trees,
        samples=settings.samples,
        background=settings.background,
    )


def train(
    rows: NDArray[np.float32],
    *,
    calibration: NDArray[np.float32] | None = None,
    columns: NDArray[np.int64] | None = None,
    seed: int = 0,
    trees: int = 300,
    samples: int = 256,
    background: float = 0.2,
) -> Forest:
    """Train an Isolation Forest; the same rows and parameters result in the same forest, to the bit.

    A tree splits only within the range of its rows. If nearly all rows were equal, few trees would split at all, and
    extreme events would look like usual ones. Therefore random rows, spread over the range of all rows and beyond, are
    added to the rows of the trees, so that every tree has such splits. They are used for nothing else.

    Parameters
    ----------
    rows : (n, features) float32
        Finite values, at least two rows. Leave out events that look like attacks, or the forest learns them as normal.
    calibration : (m, features) float32
        Rows that stand for usual events: `Forest.bits` is relative to them. None: the training rows.
    columns : (k,) int64
        Columns of the rows on which the trees split, in rising order; None: all.
    seed
        Seed of the random splits and the background.
    trees
        Number of trees, 1 to 10,000.
    samples
        Number of rows of each tree, 2 to 256; all rows if there are fewer.
    background
        Number of random rows as a share of the rows, 0 to 1; 0 for none.

    Raises
    ------
    ValueError
        If a parameter or the rows are invalid; the message says which and where.
    ConfigurationError
        If the installed version of scikit-learn is not supported.
    """
    from sklearn.ensemble import IsolationForest

    rows = finite_rows(rows)
    if len(rows) < 2 or not rows.shape[1]:
        raise ValueError(f"a forest needs at least 2 rows and 1 feature, got {rows.shape}")
    if not 2 <= samples <= 2**MAX_DEPTH:
        raise ValueError(f"samples must be from 2 to {2**MAX_DEPTH}, not {samples}")
    if not 1 <= trees <= MAX_TREES:
        raise ValueError(f"trees must be from 1 to {MAX_TREES}, not {trees}")
    if not 0.0 <= background <= 1.0:
        raise ValueError(f"the background must be from 0 to 1, not {background:g}")
    width = rows.shape[1]
    columns = np.arange(width) if columns is None else columns
    usual_rows = rows if calibration is None else finite_rows(calibration, width)
    rows = np.ascontiguousarray(rows[:, columns])
    seen = np.concatenate([rows, _background(rows, round(background * len(rows)), seed)])
    samples = min(samples, len(seen))
    model = IsolationForest(
        n_estimators=trees, max_samples=samples, contamination="auto", random_state=seed
    ).fit(seen)
    grown = flatten(model)
    packed = Packed(grown)
    scores = packed.score_samples(rows)
    usual = scores if calibration is None else packed.score_samples(usual_rows[:, columns])
    golden = rows[np.argsort(-scores, kind="stable")[np.linspace(0, len(rows) - 1, GOLDEN).astype(int)]]
    forest = Forest(
        grown, tail.measure(-usual), golden, model.score_samples(golden), columns=columns, width=width
    )
    if not np.array_equal(packed.score_samples(golden), forest.golden_scores):
        raise ConfigurationError(
            "the packed trees and scikit-learn compute different scores: this version of scikit-learn is not "
            "supported; install the version that constraints.txt names"
        )
    return forest


def _background(rows: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """Draw rows uniformly from the range of the rows, widened by `MARGIN`; a constant column stays constant."""
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    margin = MARGIN * (high - low)
    most = float(np.finfo(np.float32).max)
    drawn = np.random.default_rng(seed).random((count, rows.shape[1]))
    wide = (low - margin) + drawn * (high - low + 2 * margin)
    return np.asarray(np.clip(wide, -most, most), np.float32)


def flatten(model: Any) -> Trees:
    """Convert the trees of a fitted `IsolationForest` to flat arrays.

    Thresholds are rounded down to float32: no float32 lies between the two values, so every row takes the same path.
    """
    parts: list[tuple[NDArray[Any], ...]] = []
    start = 0
    roots = []
    for estimator, columns in zip(model.estimators_, model.estimators_features_, strict=True):
        tree = estimator.tree_
        leaf = tree.children_left == -1
        path = tree.compute_node_depths() + mean_path(tree.n_node_samples) - 1.0
        parts.append(
            (
                np.where(leaf, -1, columns[np.maximum(tree.feature, 0)]),
                np.where(leaf, np.float32(0), _round_down(tree.threshold)),
                np.where(leaf, -1, tree.children_left + start),
                np.where(leaf, -1, tree.children_right + start),
                np.where(leaf, path, 0.0),
            )
        )
        roots.append(start)
        start += tree.node_count
    feature, threshold, left, right, path = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Trees(
        features=model.n_features_in_,
        normaliser=len(roots) * float(mean_path(np.array([model.max_samples_]))[0]),
        roots=np.array(roots, np.int32),
        feature=feature.astype(np.int32),
        threshold=threshold,
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        path=path,
    )


def mean_path(samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean path length of an unsuccessful search among `samples` samples, computed in scikit-learn's order.

    Examples
    --------
    >>> mean_path(np.array([1, 2, 256])).round(3).tolist()
    [0.0, 1.0, 10.245]
    """
    length = np.zeros(samples.shape)
    length[samples == 2] = 1.0
    many = samples > 2
    some = samples[many]
    length[many] = 2.0 * (np.log(some - 1.0) + np.euler_gamma) - 2.0 * (some - 1.0) / some
    return length


def _round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
