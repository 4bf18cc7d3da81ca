"""A forest that separates well has a say in the verdict; one that is random or inverted has none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamguard.alerts.verdict import verdict
from streamguard.fold.features import LEVELS, NAMES, TRAINED
from streamguard.models.injection import ATTACKS, separations
from streamguard.models.sampling import Selection
from streamguard.models.train import train_on
from streamguard.models.weight import Separation, weight_of
from streamguard.models.weighted_training import train_weighted
from streamguard.settings.schema import Training

QUIET, STRANGE = 1500, 150
SETTINGS = Training(trees=60)


def usual(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).gamma(2.0, 0.4, (count, len(NAMES)))
    return rows.astype(np.float32)


def attacked(count: int, seed: int) -> NDArray[np.float32]:
    rows = usual(count, seed)
    for k, attack in enumerate(ATTACKS.values()):
        for name, value in attack.items():
            rows[k :: len(ATTACKS), NAMES.index(name)] = value
    return rows


def history(strange: NDArray[np.float32], trained_on: str = "quiet") -> tuple[NDArray[np.float32], Selection]:
    """Quiet rows, then rows that statistics call strange; the forest is trained on either."""
    features = np.concatenate([usual(QUIET, 1), strange])
    quiet = np.arange(len(features)) < QUIET
    rows = np.flatnonzero(quiet if trained_on == "quiet" else ~quiet)
    return features, Selection(rows, np.arange(len(features)), quiet)


def times(count: int, seed: int = 5) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(count).astype(np.int64)


def test_forest_that_finds_what_statistics_find_has_its_full_weight() -> None:
    features, chosen = history(attacked(STRANGE, 2))
    forest, separation = train_weighted(features, chosen, times(len(features)), SETTINGS)
    assert separation.injected > 0.9 and separation.agreement > 0.9
    assert forest.weight == separation.weight == 1.0
    evidence = np.zeros(len(features))
    assert verdict(evidence, forest.bits(features)).max() > 0


def test_inverted_forest_has_no_say() -> None:
    """It is trained on the attacks, so quiet events are what it finds strange."""
    features, chosen = history(attacked(600, 2), trained_on="strange")
    forest, separation = train_weighted(features, chosen, times(len(features)), SETTINGS)
    assert separation.agreement < 0.5
    assert forest.weight == 0.0
    evidence = np.random.default_rng(0).gamma(2.0, 3.0, len(features))
    assert np.array_equal(verdict(evidence, forest.bits(features)), evidence)


def test_forest_that_does_not_see_what_is_strange_has_no_say_although_it_finds_injected_attacks() -> None:
    features, chosen = history(usual(STRANGE, 2))
    forest, separation = train_weighted(features, chosen, times(len(features)), SETTINGS)
    assert separation.injected > 0.9
    assert separation.agreement == pytest.approx(0.5, abs=0.15)
    assert forest.weight == 0.0


def test_agreement_is_measured_on_events_after_those_that_trained_the_probe() -> None:
    """Quiet events of the last third have moved: a forest of earlier events finds them as strange as the others."""
    features, chosen = history(attacked(STRANGE, 2))
    at = times(len(features))
    late = (at > np.quantile(at, 2 / 3)) & chosen.quiet
    features[late] = attacked(int(late.sum()), 3)
    forest, separation = train_weighted(features, chosen, at, SETTINGS)
    assert separation.agreement < 0.7
    assert forest.weight == 0.0


def test_unproven_forest_has_no_say() -> None:
    features, chosen = history(attacked(0, 2))
    forest, separation = train_weighted(features, chosen, times(len(features)), SETTINGS)
    assert separation.strange == 0
    assert forest.weight == 0.0


def test_few_strange_events_are_weak_evidence() -> None:
    weights = [Separation(1.0, 1.0, strange).weight for strange in (0, 3, 6, 10, 20, 1000)]
    assert weights == sorted(weights)
    assert weights[0] == weights[1] == 0.0
    assert weights[-1] == weights[-2] == 1.0


def test_smaller_measure_decides() -> None:
    assert Separation(0.5, 1.0, 1000).weight == Separation(1.0, 0.5, 1000).weight == 0.0
    assert Separation(0.8, 1.0, 1000).weight == weight_of(0.8) == 0.5


def test_same_events_have_the_same_weight_and_version() -> None:
    features, chosen = history(attacked(STRANGE, 2))
    at = times(len(features))
    first, second = (train_weighted(features, chosen, at, SETTINGS) for _ in range(2))
    assert first[0].version == second[0].version
    assert first[1] == second[1]


def test_forest_does_not_split_on_levels_of_user_and_hour() -> None:
    features, chosen = history(attacked(0, 2))
    forest = train_on(features, chosen, SETTINGS)
    assert [NAMES[k] for k in forest.columns] == list(TRAINED)
    before = forest.score_samples(features)
    for name in LEVELS:
        features[:, NAMES.index(name)] += 20
    assert np.array_equal(forest.score_samples(features), before)
    assert len(separations(forest, features, features)) == len(ATTACKS)
