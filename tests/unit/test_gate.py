"""The gate accepts an equal model, and reports reasons and figures if it refuses one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from streamguard.fold.features import NAMES
from streamguard.models.forest import Forest, weighted
from streamguard.models.gate import (
    Check,
    Judgement,
    Sample,
    distribution,
    distribution_in,
    drift,
    judge,
)
from streamguard.models.injection import ATTACKS
from streamguard.models.train import train
from streamguard.models.weight import Separation
from streamguard.settings.schema import Gate


def events(n: int = 3000, seed: int = 0) -> NDArray[np.float32]:
    """Feature rows in which every feature varies a little."""
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, 0.4, (n, len(NAMES))).astype(np.float32)


def attacks(n: int = 3000, seed: int = 1) -> NDArray[np.float32]:
    rows = events(n, seed)
    for k, attack in enumerate(ATTACKS.values()):
        part = rows[k :: len(ATTACKS)]
        for name, value in attack.items():
            column = NAMES.index(name)
            part[:, column] = np.maximum(part[:, column], value)
    return rows


QUIET = events()


@pytest.fixture(scope="module")
def champion() -> Forest:
    return train(QUIET, trees=100)


def sample(hot: float = 0.1) -> Sample:
    calm, loud = events(2000, seed=3), attacks(int(2000 * hot), seed=4)
    features = np.concatenate([calm, loud])
    is_quiet = np.arange(len(features)) < 2000
    return Sample(features, is_quiet)


def judged(
    challenger: Forest, champion: Forest | None, rows: NDArray[np.float32] = QUIET, **changes: object
) -> Judgement:
    given = sample(changes.pop("hot", 0.1))  # type: ignore[arg-type]
    before = distribution(QUIET) if champion else None
    known = changes.pop("rows_before", len(QUIET))  # type: ignore[call-overload]
    limits = msgspec.structs.replace(Gate(), **changes)
    return judge(
        challenger, champion, given, rows=rows, before=before, rows_before=known, alert_bits=10.0, limits=limits
    )  # fmt: skip


def refused(judgement: Judgement) -> dict[str, str]:
    return {check.name: check.message for check in judgement.checks if not check.passed}


def test_equal_model_passes_every_check(champion: Forest) -> None:
    rows = events(seed=7)
    judgement = judged(train(rows, trees=100), champion, rows)
    assert judgement.passed, judgement.message
    assert [check.name for check in judgement.checks] == [
        "trimmed", "rows", "drift", "overlap", "alerts", *(f"injected_{name}" for name in ATTACKS),
    ]  # fmt: skip
    assert judgement.message == f"passed all {len(judgement.checks)} checks"


def test_first_model_is_not_compared(champion: Forest) -> None:
    judgement = judged(champion, None)
    assert judgement.passed
    assert not {"drift", "overlap", "alerts"} & {check.name for check in judgement.checks}


def test_inverted_forest_is_refused_with_the_attacks_it_misses(champion: Forest) -> None:
    rows = np.concatenate([attacks(3000), events(100)])
    inverted = train(rows, trees=100)
    for before in (champion, None):
        reasons = refused(judged(inverted, before, rows))
        assert "injected_takeover" in reasons
        assert "simulated takeover among quiet events: AUC 0." in reasons["injected_takeover"]
    assert "overlap" in refused(judged(inverted, champion, rows))


def test_weight_is_reported_and_does_not_refuse(champion: Forest) -> None:
    given = sample()
    for separation in (Separation(0.4, 0.3, 100), Separation(0.99, 0.98, 100)):
        judgement = judge(
            champion, None, given, rows=QUIET, before=None, rows_before=0, alert_bits=10.0, limits=Gate(),
            separation=separation,
        )  # fmt: skip
        check = judgement.checks[-1]
        assert (check.name, check.value, check.passed) == ("weight", separation.weight, True)
        assert judgement.passed
        assert f"weight {separation.weight:.2f}" in check.message


def test_forest_without_a_say_is_still_compared_with_the_champion(champion: Forest) -> None:
    """The checks of separation and overlap use the forest itself, whatever its weight."""
    silent = weighted(champion, 0.0)
    assert judged(silent, champion).passed
    inverted = weighted(train(attacks(3000), trees=100), 0.0)
    assert {"injected_takeover", "overlap"} <= refused(judged(inverted, champion)).keys()


def test_history_with_many_attacks_is_refused(champion: Forest) -> None:
    reasons = refused(judged(champion, None, hot=1.5))
    assert reasons["trimmed"] == ("60.0% of the events look like attacks (limit 50.0%)")


def test_too_few_rows_are_refused(champion: Forest) -> None:
    assert refused(judged(champion, None, QUIET[:255]))["rows"] == "255 training rows (minimum 256)"


def test_drift_reports_the_most_changed_feature_and_ignores_time(champion: Forest) -> None:
    rows = events(seed=8)
    rows[:, NAMES.index("burst")] += 5
    assert refused(judged(champion, champion, rows))["drift"].startswith(
        "burst moved most from the champion's training rows: stability index "
    )
    rows = events(seed=8)
    rows[:, NAMES.index("active_days")] += 5
    assert "drift" not in refused(judged(champion, champion, rows))


def test_champion_trained_on_few_rows_can_be_replaced_despite_drift(champion: Forest) -> None:
    rows = events(seed=8)
    rows[:, NAMES.index("burst")] += 5

    young = judged(champion, champion, rows, rows_before=len(rows) // 2 - 1)

    assert young.passed
    assert "alerts" in {check.name for check in young.checks}
    assert "drift" in refused(judged(champion, champion, rows, rows_before=len(rows) // 2))


def test_challenger_with_more_alerts_is_refused(champion: Forest) -> None:
    louder = Forest(
        champion.trees,
        type(champion.tail)(champion.tail.anomaly, champion.tail.level * 40, champion.tail.slope * 40),
        champion.golden_rows,
        champion.golden_scores,
    )
    message = refused(judged(louder, champion))["alerts"]
    assert "calls 958 of 2,000 quiet events as rare as an alert, the champion 3: ratio 239.75" in message
    assert refused(judged(champion, louder)) == {}


def test_injected_attacks_on_constant_features_are_skipped() -> None:
    rows = events()
    for name in ("volume_z", "resource_bits", "host_bits", "threat_z", "agent_bits", "location_bits"):
        rows[:, NAMES.index(name)] = 0
    named = {check.name for check in judged(train(rows, trees=50), None, rows).checks}
    assert "injected_malware" not in named
    assert {"injected_takeover", "injected_brute_force", "injected_spray"} <= named


def test_judgement_is_reproducible_json(champion: Forest) -> None:
    first, second = (msgspec.json.encode(judged(champion, champion)) for _ in range(2))
    assert first == second
    assert msgspec.json.decode(first, type=Judgement) == judged(champion, champion)


def test_empty_history_is_refused() -> None:
    nothing = Sample(np.zeros((0, len(NAMES)), np.float32), np.zeros(0, bool))
    forest = train(QUIET[:300], trees=10)
    judgement = judge(
        forest,
        forest,
        nothing,
        rows=nothing.features,
        before=None,
        rows_before=300,
        alert_bits=10.0,
        limits=Gate(),
    )
    assert refused(judgement).keys() == {"rows"}


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"burst": []},
        {"burst": [0.0] * 100},
        {"burst": ["0"] * 101},
        {"gone": [0.0] * 101},
        {"burst": None},
        1,
    ],
)
def test_invalid_distribution_is_ignored(kept: object) -> None:
    assert distribution_in({"distribution": kept}) is None


def test_distribution_is_read_back_as_written() -> None:
    kept = msgspec.json.decode(msgspec.json.encode({"distribution": distribution(QUIET)}))
    assert distribution_in(kept) == distribution(QUIET)
    assert distribution_in({}) is None


def test_unreadable_champion_is_reported_with_every_verdict() -> None:
    for passed in (True, False):
        check = Check("rows", 1.0, 2.0, passed, "one row")
        message = Judgement(passed, [check], "0123456789ab", "it could not be read: damaged").message
        assert message.startswith("passed all 1 checks; " if passed else "one row; ")
        assert message.endswith("not compared with the champion 0123456789ab: it could not be read: damaged")


# drift


def test_drift_is_zero_for_equal_and_small_for_similar_rows() -> None:
    first, second = distribution(events(seed=1)), distribution(events(seed=2))
    assert set(drift(first, first).values()) == {0.0}
    assert max(drift(first, second).values()) < 0.1


def test_drift_detects_changes_of_a_constant_feature() -> None:
    rows = events()
    rows[:, 0] = 0
    moved = rows.copy()
    moved[:1500, 0] = 3
    assert drift(distribution(rows), distribution(moved))[NAMES[0]] > 1
    assert drift(distribution(rows), distribution(rows))[NAMES[0]] == 0


def test_drift_covers_only_common_features() -> None:
    known = distribution(QUIET)
    assert drift({"burst": known["burst"], "gone": [0.0]}, known).keys() == {"burst"}
