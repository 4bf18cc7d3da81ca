"""The packed forest compared with scikit-learn and with a walk through its trees in plain Python."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from streamguard.models.forest import Forest, Packed
from streamguard.models.tail import Tail, measure
from streamguard.models.train import flatten, train
from streamguard.models.trees import Trees


def sample(count: int, features: int = 28, seed: int = 0) -> NDArray[np.float32]:
    """Rows with the kinds of columns that features have: counts, heavy tails, constants."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, features)).astype(np.float32)
    rows[:, ::3] = np.round(rows[:, ::3] * 3)
    rows[:, 1::5] = np.exp(3 * rows[:, 1::5])
    rows[:, 4::9] = 0
    return rows


def walk(forest: Forest, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores from the flat trees, node by node."""
    trees = forest.trees
    sums = np.zeros(len(rows))
    for number, row in enumerate(rows):
        for root in trees.roots:
            node = root
            while trees.left[node] != -1:
                goes_left = row[trees.feature[node]] <= trees.threshold[node]
                node = trees.left[node] if goes_left else trees.right[node]
            sums[number] += trees.path[node]
    return -(2 ** -(sums / trees.normaliser))


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return sample(1500)


@pytest.fixture(scope="module")
def forest(rows: NDArray[np.float32]) -> Forest:
    return train(rows, trees=50)


@pytest.mark.parametrize("count", [0, 1, 3, 7, 8, 63, 64, 65, 128, 1000])
def test_scores_equal_scikit_learn_to_the_bit(count: int, rows: NDArray[np.float32]) -> None:
    from sklearn.ensemble import IsolationForest

    model = IsolationForest(n_estimators=300, max_samples=256, random_state=7).fit(rows)
    forest = train(rows, seed=7, background=0)
    fresh = sample(1000, seed=1)
    assert np.array_equal(forest.score_samples(fresh[:count]), model.score_samples(fresh)[:count])


def test_scores_equal_a_plain_walk(forest: Forest) -> None:
    fresh = sample(70, seed=2)
    assert np.array_equal(forest.score_samples(fresh), walk(forest, fresh))


def test_row_on_a_threshold_goes_left(forest: Forest) -> None:
    trees = forest.trees
    inner = np.flatnonzero(trees.left != -1)[:400]
    on_them = np.zeros((len(inner), forest.features), np.float32)
    on_them[np.arange(len(inner)), trees.feature[inner]] = trees.threshold[inner]
    beyond = np.nextafter(on_them, np.float32(np.inf))
    for batch in (on_them, beyond):
        assert np.array_equal(forest.score_samples(batch), walk(forest, batch))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_positive_and_negative_zero_are_equal(zero: float) -> None:
    trees = Trees(
        features=1,
        normaliser=1.0,
        roots=np.array([0], np.int32),
        feature=np.array([0, -1, -1], np.int32),
        threshold=np.array([zero, 0, 0], np.float32),
        left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32),
        path=np.array([0.0, 1.0, 2.0]),
    )
    values = np.array([[-0.0], [0.0], [-1e-45], [1e-45]], np.float32)
    assert Packed(trees).score_samples(values).tolist() == [-0.5, -0.5, -0.5, -0.25]


@pytest.mark.parametrize("count", [3, 100])
def test_wider_floats_are_rounded_like_scikit_learn(count: int, forest: Forest) -> None:
    wide = np.random.default_rng(3).normal(size=(count, forest.features))
    assert np.array_equal(forest.score_samples(wide), forest.score_samples(wide.astype(np.float32)))
    assert np.array_equal(forest.score_samples(np.asfortranarray(wide)), forest.score_samples(wide))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [6, 200])
def test_non_finite_value_is_refused_with_row_and_column(value: float, count: int, forest: Forest) -> None:
    bad = sample(count)
    bad[5, 3] = value
    for call in (forest.score_samples, forest.bits, train):
        with pytest.raises(ValueError, match="row 5, column 3"):
            call(bad)


def test_wrong_number_of_columns_is_refused(forest: Forest) -> None:
    with pytest.raises(ValueError, match=r"\(n, 28\) expected, got \(5, 27\)"):
        forest.score_samples(np.zeros((5, 27), np.float32))


def test_single_row_without_a_matrix_is_refused(forest: Forest) -> None:
    with pytest.raises(ValueError, match=r"got \(28,\)"):
        forest.score_samples(np.zeros(28, np.float32))


def test_training_twice_gives_the_same_forest(rows: NDArray[np.float32], forest: Forest) -> None:
    again = train(rows.copy(), trees=50)
    assert again.version == forest.version
    for name in ("roots", "feature", "threshold", "left", "right", "path"):
        assert getattr(again.trees, name).tobytes() == getattr(forest.trees, name).tobytes()
    assert train(rows, seed=1, trees=50).version != forest.version


@pytest.mark.parametrize(
    "rows",
    [sample(2), sample(3, features=1), np.ones((300, 4), np.float32), np.eye(40, dtype=np.float32)],
    ids=["two rows", "one feature", "all the same", "one of each"],
)
def test_small_and_degenerate_training_sets_agree_with_scikit_learn(rows: NDArray[np.float32]) -> None:
    from sklearn.ensemble import IsolationForest

    forest = train(rows, trees=20, background=0)
    model = IsolationForest(n_estimators=20, max_samples=min(256, len(rows)), random_state=0).fit(rows)
    assert np.array_equal(forest.score_samples(rows), model.score_samples(rows))
    assert np.isfinite(forest.bits(rows)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train(sample(1)), "2 rows"),
        (lambda: train(np.zeros((5, 0), np.float32)), "1 feature"),
        (lambda: train(sample(9), samples=257), "samples must be from 2 to 256"),
        (lambda: train(sample(9), trees=0), "trees must be"),
        (lambda: train(sample(9), background=1.5), "background must be from 0 to 1"),
    ],
)
def test_invalid_training_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_too_deep_forest_is_refused(rows: NDArray[np.float32]) -> None:
    from sklearn.ensemble import IsolationForest

    model = IsolationForest(n_estimators=5, max_samples=1000, random_state=0).fit(rows)
    with pytest.raises(ValueError, match="below 8 splits: train with at most 256 samples"):
        Packed(flatten(model))


def test_background_exposes_outliers_among_nearly_identical_rows() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(4000, 6)).astype(np.float32)
    normal[:, 3:] = np.where(rng.random((4000, 3)) < 0.002, 20.0, 0.0)
    far = np.zeros((1, 6), np.float32)
    far[0, 3:] = 12
    assert train(normal).bits(far) > train(normal, background=0).bits(far) + 5


def test_constant_columns_stay_unused_with_a_background() -> None:
    forest = train(np.c_[sample(300, features=2), np.full(300, 7)].astype(np.float32))
    assert 2 not in forest.trees.feature


def test_bits_are_measured_on_the_calibration_rows(rows: NDArray[np.float32], forest: Forest) -> None:
    worst = rows[np.argsort(forest.score_samples(rows))[:700]]
    other = train(rows, trees=50, calibration=worst)
    assert np.array_equal(other.score_samples(rows), forest.score_samples(rows))
    assert np.mean(other.bits(worst) >= 3) == pytest.approx(1 / 8, rel=0.1)


def test_bits_match_the_shares_of_the_training_rows(rows: NDArray[np.float32], forest: Forest) -> None:
    bits = forest.bits(rows)
    for level in (2, 3, 4, 5):
        assert np.mean(bits >= level) == pytest.approx(2.0**-level, rel=0.1)
    assert np.mean(bits == 0) == pytest.approx(0.5, abs=0.01)


def test_bits_have_no_upper_limit() -> None:
    normal = np.random.default_rng(0).normal(size=(4000, 5)).astype(np.float32)
    forest = train(normal)
    far = forest.bits(np.full((1, 5), 50, np.float32))
    assert far > forest.bits(normal).max() > 10
    tail = forest.tail
    beyond = tail.bits(tail.anomaly[-1] + np.array([0.1, 0.2, 0.3]))
    assert np.diff(beyond) == pytest.approx(tail.slope * 0.1)


def test_few_attacks_in_the_training_rows_do_not_flatten_the_tail() -> None:
    quiet = np.random.default_rng(0).normal(0.4, 0.02, 20_000)
    attacks = np.full(10, 0.8)
    clean, dirty = (
        measure(quiet).bits(attacks[:1]),
        measure(np.concatenate([quiet, attacks])).bits(attacks[:1]),
    )
    assert dirty == pytest.approx(clean, rel=0.25)


def test_tied_anomalies_get_the_bits_of_their_joint_share() -> None:
    tail = measure(np.repeat([0.4, 0.5, 0.6], [600, 300, 100]))
    assert tail.bits(np.array([0.4, 0.5, 0.6])) == pytest.approx([0, 2, np.log2(10)], abs=0.5)


@pytest.mark.parametrize(
    ("anomaly", "level", "slope", "message"),
    [
        ([], [], 1.0, "equal and at least 1"),
        ([0.1, 0.2], [0.0], 1.0, "2 quantiles for 1 level:"),
        ([0.1, np.nan], [0.0, 2.0], 1.0, "quantiles must be finite"),
        ([0.2, 0.1], [0.0, 2.0], 1.0, "quantiles must be finite and rise"),
        ([0.1, 0.2], [0.0, 0.0], 1.0, "levels must be finite and rise"),
        ([0.1, 0.2], [1.0, 2.0], 1.0, "start at 0 bits"),
        ([0.0, 1e-300], [0.0, 1e300], 1.0, "infinite"),
        ([0.1, 0.2], [0.0, 2.0], np.nan, "slope"),
        ([0.1, 0.2], [0.0, 2.0], 0.0, "slope"),
    ],
)
def test_invalid_tail_is_refused(
    anomaly: list[float], level: list[float], slope: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Tail(np.array(anomaly), np.array(level), slope)


def first_inner(trees: Trees) -> int:
    return int(np.flatnonzero(trees.left != -1)[1])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("left", 0, "leads back"),
        ("right", 10**6, "child out of range"),
        ("right", -7, "leads back"),
        ("left", -1, "one child"),
        ("feature", 28, "feature that does not exist"),
        ("feature", -1, "feature that does not exist"),
        ("threshold", np.nan, "threshold that is not finite"),
        ("threshold", np.inf, "threshold that is not finite"),
        ("path", -1.0, "path length"),
        ("path", np.nan, "path length"),
    ],
)
def test_malformed_trees_are_refused_with_the_node(
    name: str, value: float, message: str, forest: Forest
) -> None:
    node = first_inner(forest.trees)
    wrong = getattr(forest.trees, name).copy()
    wrong[node] = value
    with pytest.raises(ValueError, match=f"node {node} .*{message}"):
        Packed(dataclasses.replace(forest.trees, **{name: wrong}))


def test_node_with_two_parents_is_refused(forest: Forest) -> None:
    node = first_inner(forest.trees)
    left = forest.trees.left.copy()
    left[node] = forest.trees.right[node]
    with pytest.raises(ValueError, match="two parents or none"):
        Packed(dataclasses.replace(forest.trees, left=left))


@pytest.mark.parametrize("roots", [[], [1], [0, 0], [0, -5], [0, 10**7]])
def test_roots_out_of_order_are_refused(roots: list[int], forest: Forest) -> None:
    with pytest.raises(ValueError, match="roots must start at 0"):
        Packed(dataclasses.replace(forest.trees, roots=np.array(roots, np.int32)))


def test_scoring_does_not_import_scikit_learn() -> None:
    program = (
        "import sys, streamguard.models.forest, streamguard.models.artifact, streamguard.models.registry;"
        "sys.exit(any(name.split('.')[0] in ('sklearn', 'pandas', 'pyarrow') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
