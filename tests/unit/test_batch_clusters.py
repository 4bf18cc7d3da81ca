"""Peer groups: identical for any number of threads, distant outliers, and defined results for unusual input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from streamguard.batch.detection.clusters import peer_groups
from streamguard.settings.schema import Clusters

FEATURES = 28


def blobs(sizes: list[int], spread: float = 1.0, seed: int = 0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    centres = random.normal(scale=8.0, size=(len(sizes), FEATURES))
    return np.concatenate(
        [
            centre + random.normal(scale=spread, size=(n, FEATURES))
            for centre, n in zip(centres, sizes, strict=True)
        ]
    )


class Assigned:
    """Peer groups of users, and the same users assigned to them."""

    def __init__(self, usual: NDArray[np.float64], seed: int, settings: Clusters) -> None:
        self.made = peer_groups(usual, settings, seed=seed)
        self.groups, self.silhouette = self.made.groups, self.made.silhouette
        peers = self.made.assign(usual)
        self.group, self.distance, self.bits, self.small = (
            peers.group,
            peers.distance,
            peers.bits,
            peers.small,
        )

    @property
    def sizes(self) -> list[int]:
        return np.bincount(self.group).tolist()


def groups(usual: NDArray[np.float64], seed: int = 0, **settings: int) -> Assigned:
    return Assigned(usual, seed, Clusters(**settings))


def test_number_of_groups_is_found_and_groups_are_numbered_by_size() -> None:
    peers = groups(blobs([100, 300, 200]))
    assert peers.sizes == [300, 200, 100]
    assert peers.group.tolist() == [2] * 100 + [0] * 300 + [1] * 200
    assert peers.silhouette is not None and peers.silhouette > 0.5
    assert not peers.small.any()


def test_given_number_of_groups_is_used() -> None:
    assert len(groups(blobs([100, 100]), groups=4).groups) == 4
    assert len(groups(blobs([100, 100]), groups=1).groups) == 1


def test_groups_do_not_depend_on_seed_or_order_of_users() -> None:
    usual = blobs([90, 50, 30])
    first = groups(usual)
    assert np.array_equal(groups(usual, seed=5).group, first.group)
    order = np.random.default_rng(1).permutation(len(usual))
    assert np.array_equal(groups(usual[order]).group, first.group[order])


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    code = (
        "import hashlib; from tests.unit.test_batch_clusters import *;"
        "p = groups(blobs([3000, 2500, 900], spread=4.0));"
        "print(hashlib.sha256(p.group.tobytes() + p.distance.tobytes() + p.bits.tobytes()).hexdigest(), p.silhouette)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": "", "PYTHONPATH": ".", "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for threads in ("1", "2", "5")
    }
    assert len(outputs) == 1


def test_outlier_forms_a_small_distant_group() -> None:
    usual = blobs([200, 150])
    outlier = usual[:200].mean(axis=0) + 30.0
    peers = groups(np.vstack([usual, outlier]))
    assert peers.groups[peers.group[-1]].small
    assert peers.distance[-1] == peers.distance.max() > 5
    assert peers.bits[-1] == peers.bits.max() > 10
    assert [peers.sizes[k] for k, group in enumerate(peers.groups) if not group.small] == [200, 150]


def test_three_similar_outliers_form_a_small_distant_group() -> None:
    usual = blobs([600, 500])
    random = np.random.default_rng(3)
    outliers = usual[:600].mean(axis=0) - 25.0 + random.normal(size=(3, FEATURES))
    peers = groups(np.vstack([usual, outliers]))
    assert peers.small[-3:].all() and not peers.small[:-3].any()
    assert peers.distance[-3:].min() > peers.distance[:-3].max()


def test_pair_of_outliers_is_not_measured_by_itself() -> None:
    usual = blobs([40, 30])
    pair = usual[:40].mean(axis=0) - 25.0 + np.random.default_rng(3).normal(size=(2, FEATURES))
    peers = groups(np.vstack([usual, pair]))
    assert peers.small[-2:].all()
    assert peers.distance[-2:].min() > peers.distance[:-2].max()


def test_distances_in_wide_and_tight_groups_are_comparable() -> None:
    usual = np.concatenate([blobs([300]), 60.0 + blobs([300], spread=0.1, seed=1)])
    peers = groups(usual, groups=2)
    medians = [np.median(peers.distance[peers.group == k]) for k in range(2)]
    assert medians == pytest.approx([1.0, 1.0], abs=0.05)


def test_tiny_difference_among_identical_users_is_not_an_outlier() -> None:
    robots = np.repeat(blobs([1]), 200, axis=0)
    robots[0] += 1e-7
    peers = groups(np.concatenate([blobs([300], seed=2) + 40, robots]), groups=2)
    assert peers.bits[300] < 1.0


def test_constant_features_are_ignored_despite_rounding() -> None:
    usual = blobs([60, 40])
    plain = groups(usual)
    random = np.random.default_rng(0)
    usual_and_constant = np.hstack(
        [usual, np.full((100, 3), 0.1) + random.normal(scale=1e-15, size=(100, 3))]
    )
    peers = groups(usual_and_constant)
    assert np.array_equal(peers.group, plain.group)
    assert peers.distance == pytest.approx(plain.distance)
    assert all(not group.apart[-3:].any() for group in peers.groups)


@pytest.mark.parametrize("users", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("wanted", [0, 5])
def test_few_users_give_finite_results(users: int, wanted: int) -> None:
    peers = groups(np.random.default_rng(users).normal(size=(users, FEATURES)), groups=wanted)
    assert len(peers.group) == users == sum(peers.sizes)
    assert np.isfinite(peers.distance).all() and (peers.distance >= 0).all()
    assert np.isfinite(peers.bits).all() and (peers.bits >= 0).all()
    assert any(not group.small for group in peers.groups)
    if users <= 2:
        assert len(peers.groups) == 1 and peers.silhouette is None


@pytest.mark.parametrize(("users", "limit"), [(9, 1), (15, 3), (40, 8)])
def test_few_users_form_few_groups(users: int, limit: int) -> None:
    """The silhouette alone would increase down to groups of one or two users."""
    for seed in range(4):
        usual = np.random.default_rng(seed).normal(size=(users, FEATURES))
        assert len(groups(usual).groups) <= limit
    assert len(groups(usual, groups=5).groups) == 5


def test_no_users_give_no_groups() -> None:
    peers = groups(np.empty((0, FEATURES)))
    assert peers.groups == [] and len(peers.group) == len(peers.small) == 0


def test_identical_users_form_one_group() -> None:
    peers = groups(np.ones((50, FEATURES)), groups=3)
    assert peers.sizes == [50]
    assert not peers.distance.any() and not peers.bits.any()


def test_bits_are_limited_for_few_users() -> None:
    usual = blobs([13])
    peers = groups(np.vstack([usual, usual.mean(axis=0) + 8.0]))
    assert 0 < peers.bits[-1] < 20
    assert peers.bits.argmax() == 13


def test_many_given_groups_leave_one_large_group() -> None:
    peers = groups(np.random.default_rng(0).normal(size=(400, FEATURES)), groups=250)
    assert any(not group.small for group in peers.groups)
    assert np.isfinite(peers.bits).all()


def test_non_finite_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="finite rows"):
        groups(np.full((4, FEATURES), np.nan))


def test_users_are_assigned_alike_together_and_alone() -> None:
    usual = blobs([90, 50, 3], spread=3.0)
    whole = groups(usual)
    for k in range(0, len(usual), 11):
        alone = whole.made.assign(usual[k : k + 1])
        assert (alone.group[0], alone.distance[0], alone.bits[0], alone.small[0]) == (
            whole.group[k],
            whole.distance[k],
            whole.bits[k],
            whole.small[k],
        )


def test_groups_of_a_sample_describe_all_users() -> None:
    usual = blobs([4000, 3000, 2000])
    sample = usual[np.random.default_rng(1).permutation(len(usual))[:900]]
    assigned = peer_groups(sample, Clusters(), seed=0).assign(usual)
    assert np.bincount(assigned.group).tolist() == [4000, 3000, 2000]
    assert np.median(assigned.distance) == pytest.approx(1.0, abs=0.05)
