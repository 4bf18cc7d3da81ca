"""Peer groups: the same to the bit, whatever the threads; loners are far away, and odd inputs are defined."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from streamguard.batch.detection.clusters import Peers, peer_groups
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


def groups(usual: NDArray[np.float64], seed: int = 0, **settings: int) -> Peers:
    return peer_groups(usual, Clusters(**settings), seed=seed)


def test_as_many_groups_as_there_are_numbered_by_size() -> None:
    peers = groups(blobs([100, 300, 200]))
    assert [group.size for group in peers.groups] == [300, 200, 100]
    assert peers.group.tolist() == [2] * 100 + [0] * 300 + [1] * 200
    assert peers.silhouette is not None and peers.silhouette > 0.5
    assert not peers.small.any()


def test_given_groups_are_made() -> None:
    assert len(groups(blobs([100, 100]), groups=4).groups) == 4
    assert len(groups(blobs([100, 100]), groups=1).groups) == 1


def test_another_seed_or_order_of_users_finds_the_same_groups() -> None:
    usual = blobs([90, 50, 30])
    first = groups(usual)
    assert np.array_equal(groups(usual, seed=5).group, first.group)
    order = np.random.default_rng(1).permutation(len(usual))
    assert np.array_equal(groups(usual[order]).group, first.group[order])


def test_the_same_to_the_bit_with_any_number_of_threads() -> None:
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


def test_a_loner_is_not_the_centre_of_a_group_but_far_from_one() -> None:
    usual = blobs([200, 150])
    loner = usual[:200].mean(axis=0) + 30.0
    peers = groups(np.vstack([usual, loner]))
    assert peers.groups[peers.group[-1]].small
    assert peers.distance[-1] == peers.distance.max() > 5
    assert peers.bits[-1] == peers.bits.max() > 10
    assert [group.size for group in peers.groups if not group.small] == [200, 150]


def test_three_that_differ_alike_are_a_small_group_and_far_too() -> None:
    usual = blobs([600, 500])
    random = np.random.default_rng(3)
    gang = usual[:600].mean(axis=0) - 25.0 + random.normal(size=(3, FEATURES))
    peers = groups(np.vstack([usual, gang]))
    assert peers.small[-3:].all() and not peers.small[:-3].any()
    assert peers.distance[-3:].min() > peers.distance[:-3].max()


def test_a_pair_is_no_measure_of_itself() -> None:
    usual = blobs([40, 30])
    pair = usual[:40].mean(axis=0) - 25.0 + np.random.default_rng(3).normal(size=(2, FEATURES))
    peers = groups(np.vstack([usual, pair]))
    assert peers.small[-2:].all()
    assert peers.distance[-2:].min() > peers.distance[:-2].max()


def test_wide_and_tight_groups_compare() -> None:
    usual = np.concatenate([blobs([300]), 60.0 + blobs([300], spread=0.1, seed=1)])
    peers = groups(usual, groups=2)
    medians = [np.median(peers.distance[peers.group == k]) for k in range(2)]
    assert medians == pytest.approx([1.0, 1.0], abs=0.05)


def test_users_who_are_all_alike_do_not_make_a_needle() -> None:
    robots = np.repeat(blobs([1]), 200, axis=0)
    robots[0] += 1e-7
    peers = groups(np.concatenate([blobs([300], seed=2) + 40, robots]), groups=2)
    assert peers.bits[300] < 1.0


def test_constant_features_and_their_rounding_count_for_nothing() -> None:
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
def test_few_users_are_defined(users: int, wanted: int) -> None:
    peers = groups(np.random.default_rng(users).normal(size=(users, FEATURES)), groups=wanted)
    assert len(peers.group) == users == sum(group.size for group in peers.groups)
    assert np.isfinite(peers.distance).all() and (peers.distance >= 0).all()
    assert np.isfinite(peers.bits).all() and (peers.bits >= 0).all()
    assert any(not group.small for group in peers.groups)
    if users <= 2:
        assert len(peers.groups) == 1 and peers.silhouette is None


@pytest.mark.parametrize(("users", "most"), [(9, 1), (15, 3), (40, 8)])
def test_few_users_fall_into_few_groups(users: int, most: int) -> None:
    """The silhouette alone would rise up to ones and twos."""
    for seed in range(4):
        usual = np.random.default_rng(seed).normal(size=(users, FEATURES))
        assert len(groups(usual).groups) <= most
    assert len(groups(usual, groups=5).groups) == 5


def test_no_users_are_no_groups() -> None:
    peers = groups(np.empty((0, FEATURES)))
    assert peers.groups == [] and len(peers.group) == len(peers.small) == 0


def test_users_without_a_difference_are_one_group() -> None:
    peers = groups(np.ones((50, FEATURES)), groups=3)
    assert [group.size for group in peers.groups] == [50]
    assert not peers.distance.any() and not peers.bits.any()


def test_fourteen_users_do_not_claim_one_in_a_million() -> None:
    usual = blobs([13])
    peers = groups(np.vstack([usual, usual.mean(axis=0) + 8.0]))
    assert 0 < peers.bits[-1] < 20
    assert peers.bits.argmax() == 13


def test_many_given_groups_leave_one_that_is_large() -> None:
    peers = groups(np.random.default_rng(0).normal(size=(400, FEATURES)), groups=250)
    assert any(not group.small for group in peers.groups)
    assert np.isfinite(peers.bits).all()


def test_rows_that_are_no_features_are_refused() -> None:
    with pytest.raises(ValueError, match="finite rows"):
        groups(np.full((4, FEATURES), np.nan))
