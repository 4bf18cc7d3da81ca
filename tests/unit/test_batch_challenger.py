"""A challenger's artifact is of its history alone; what the gate says is carried out last, and never over a person."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamguard.batch.detection import challenger
from streamguard.batch.detection.challenger import Challenger, Decision
from streamguard.batch.folding.fold_result import EventTable
from streamguard.batch.folding.resume import HistoryMetadata
from streamguard.batch.job import Request, retrain
from streamguard.batch.runs import REPORT, Runs
from streamguard.fold.features import NAMES
from streamguard.history.evaluate import Judged, judge, ranking
from streamguard.history.files import read
from streamguard.history.labels import ColumnLabels
from streamguard.history.replay import Replay
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry
from streamguard.settings.schema import Batch, Detection, Gate, Settings, Training
from streamguard.settings.schema import Models as Place
from tests import logins

LENIENT = Gate(min_overlap=0.0, max_drift=1000.0, max_alert_ratio=1000.0, min_injected_auc=0.0)
"""Refuses no forest of these few logins."""

SETTINGS = Settings(training=Training(trees=60), gate=LENIENT)
STRICT = Settings(training=SETTINGS.training, gate=Gate(min_rows=10**6))


def folded(path: Path, rows: list[dict[str, Any]]) -> Judged:
    labels = ColumnLabels("is_attack", "attack_id")
    file = logins.write_csv(path / "logins.csv", rows)
    return judge(read(str(file), extra=labels.columns), labels, Replay(4))


def sample(judged: Judged, until: int | None = None) -> EventTable:
    """The first events as a retrain would have them kept."""
    scored = judged.scored
    order = np.lexsort((scored.offset[:until], scored.partition[:until]))
    texts = np.array(["x"] * len(order), object)
    return EventTable(
        scored.partition[order].astype(np.int32),
        scored.offset[order],
        judged.timestamp[order],
        np.array([f"user{number}" for number in judged.user[order]], object),
        texts,
        texts,
        scored.features[order],
        scored.score[order],
        scored.tail[order],
        scored.evidence[order],
        scored.patterns[order],
        scored.incident[order] >= 0,
    )


def trained(rows: EventTable, settings: Settings = SETTINGS) -> Challenger:
    starts = {int(p): 0 for p in np.unique(rows.partition)}
    ends = {p: int(rows.offset[rows.partition == p].max()) + 1 for p in starts}
    about = HistoryMetadata({}, "layout", Detection(), len(rows), starts, ends)
    made = challenger.train(rows, challenger.select(rows, settings), about, settings)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return folded(tmp_path_factory.mktemp("month"), logins.rows())


@pytest.fixture(scope="module")
def rows(month: Judged) -> EventTable:
    return sample(month)


@pytest.fixture(scope="module")
def ours(rows: EventTable) -> Challenger:
    return trained(rows)


@pytest.fixture(scope="module")
def theirs(month: Judged) -> Challenger:
    return trained(sample(month, 900))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", feature_names=NAMES)


def decided(
    made: Challenger, rows: EventTable, registry: Registry, settings: Settings = SETTINGS
) -> tuple[Decision, bool, str]:
    decision = challenger.decide(made, rows, registry, settings)
    assert decision is not None
    return (decision, *decision.carry_out(registry))


def files(registry: Registry, version: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (registry.directory / "versions" / version).iterdir()}


# The artifact


def test_the_artifact_is_the_same_whatever_the_champion_and_the_verdict(
    tmp_path: Path, rows: EventTable, ours: Challenger, theirs: Challenger
) -> None:
    found, judgements = [], []
    for number, (champion, settings) in enumerate(
        [(None, SETTINGS), (theirs, SETTINGS), (ours, SETTINGS), (theirs, STRICT)]
    ):
        registry = Registry(tmp_path / str(number), feature_names=NAMES)
        if champion is not None:
            registry.promote(registry.publish(champion.forest, origin=champion.origin))
        if champion is not ours:
            decided(ours, rows, registry, settings)
            found.append(files(registry, ours.forest.version))
            judgements.append(registry.judgement(ours.forest.version))
        else:  # published by hand before, without metrics: a version never changes
            decided(ours, rows, registry, settings)
            assert json.loads(files(registry, ours.forest.version)["metrics.json"]) == {}
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 5
    assert len({msgspec.json.encode(judgement) for judgement in judgements}) == 3


def test_a_verdict_is_not_for_ever(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    refused, current, says = decided(ours, rows, registry, STRICT)
    assert not refused.model.passed and not current
    assert f"streamguard models promote {ours.forest.version} --registry {registry.directory}" in says
    judgement = registry.judgement(ours.forest.version)
    assert judgement is not None and not judgement.passed
    assert judgement.champion == theirs.forest.version

    passed, current, _ = decided(ours, rows, registry)
    assert passed.model.passed and current
    judgement = registry.judgement(ours.forest.version)
    assert judgement is not None and judgement.passed


def test_users_are_told_apart_by_name_and_partition_and_long_names_cost_nothing(rows: EventTable) -> None:
    selection = challenger.select(rows, SETTINGS)
    long = np.array([name + "x" * 20_000 for name in rows.user], object)
    renamed = EventTable(**{f.name: getattr(rows, f.name) for f in fields(EventTable)} | {"user": long})
    tracemalloc.start()
    again = challenger.select(renamed, SETTINGS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(selection.rows, again.rows)
    assert np.array_equal(selection.calibration, again.calibration)
    assert peak < 1000 * len(rows)
    assert selection.mask.sum() == len(selection.rows)


def test_few_rows_are_enough_where_the_gate_says_so(rows: EventTable) -> None:
    two = EventTable(**{f.name: getattr(rows, f.name)[:2] for f in fields(EventTable)})
    settings = msgspec.structs.replace(SETTINGS, gate=Gate(min_rows=2))
    assert len(trained(two, settings).rows) == 2
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"min_rows": 1}, Gate)


# What is carried out


def test_what_was_rolled_back_from_stays_so_until_somebody_promotes_it(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    for made in (theirs, ours):
        assert decided(made, rows, registry)[1]
    registry.rollback()

    decision, current, says = decided(ours, rows, registry)
    assert decision.model.passed and not current
    assert registry.current() == theirs.forest.version
    assert "but it was rolled back" in says

    registry.promote(ours.forest.version)
    assert decided(ours, rows, registry)[1:] == (
        True,
        f"model {ours.forest.version} is already current: the same events give the same forest",
    )


def test_a_pointer_that_moved_meanwhile_is_left_alone(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decision = challenger.decide(ours, rows, registry, SETTINGS)
    assert decision is not None and decision.model.passed
    registry.promote(registry.publish(theirs.forest))
    current, says = decision.carry_out(registry)
    assert not current
    assert registry.current() == theirs.forest.version
    assert f"meanwhile {theirs.forest.version} has become current" in says


def test_a_run_that_ended_before_its_promotion_is_made_good_by_the_next(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    challenger.decide(ours, rows, registry, SETTINGS)
    assert registry.current() == theirs.forest.version
    decision, current, says = decided(ours, rows, registry)
    assert current and registry.current() == ours.forest.version != decision.model.previous
    assert "and is current now" in says


# A registry in trouble


def test_a_champion_that_cannot_be_read_is_named(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    champion = theirs.forest.version
    os.truncate(registry.directory / "versions" / champion / "forest.safetensors", 100)
    decision, current, says = decided(ours, rows, registry)
    assert current
    for text in (says, decision.model.says):
        assert f"not compared with the champion {champion}: it could not be read: " in text
        assert "forest.safetensors" in text
    assert not {"drift", "overlap", "alerts"} & {check.name for check in decision.model.checks}
    judgement = registry.judgement(ours.forest.version)
    assert judgement is not None and "forest.safetensors" in judgement.uncompared


def test_an_unsigned_champion_under_a_new_key_is_named(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    signing = Registry(registry.directory, feature_names=NAMES, key=b"0123456789abcdef")
    assert "not signed, but a key is set" in decided(ours, rows, signing)[2]
    assert signing.load(ours.forest.version).version == signing.current()


@pytest.mark.parametrize(
    "kept", [{"burst": []}, {"burst": [0.0] * 100}, {"nothing": [0.0] * 101}, [], 3, None]
)
def test_a_champion_with_a_broken_distribution_stops_no_retrain(
    kept: object, rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    registry.promote(registry.publish(theirs.forest, origin=theirs.origin, metrics={"distribution": kept}))
    decision, current, _ = decided(ours, rows, registry)
    assert current
    assert "drift" not in {check.name for check in decision.model.checks}


def test_what_cannot_be_published_is_raised_when_it_is_carried_out(
    rows: EventTable, ours: Challenger, registry: Registry
) -> None:
    version = registry.publish(ours.forest)
    os.truncate(registry.directory / "versions" / version / "forest.safetensors", 100)
    decision = challenger.decide(ours, rows, registry, SETTINGS)
    assert decision is not None
    assert decision.model.says.startswith("not published: ")
    with pytest.raises(ArtifactError, match=f"remove .*{version} and publish it again"):
        decision.carry_out(registry)


def test_a_retrain_finds_a_bad_registry_first_and_loses_no_run_to_one_that_goes_bad_later(
    tmp_path: Path,
) -> None:
    events = logins.write_jsonl(tmp_path / "events.jsonl", logins.rows())
    output = tmp_path / "runs"
    settings = Settings(batch=Batch(engine="local", output=str(output)), training=Training(trees=20))
    request = Request(input=str(events))
    said: list[str] = []
    (tmp_path / "file").write_text("")
    broken = msgspec.structs.replace(settings, models=Place(registry=str(tmp_path / "file" / "below")))
    with pytest.raises(ArtifactError, match="file/below"):
        retrain(broken, request, said.append)
    assert not said and Runs(output).latest() is None

    outcome = retrain(settings, request, said.append)
    assert outcome.current and outcome.version is not None
    os.truncate(output / "registry" / "versions" / outcome.version / "forest.safetensors", 100)
    with pytest.raises(ArtifactError, match=f"remove .*{outcome.version}"):
        retrain(settings, request, said.append)
    latest = Runs(output).latest()
    assert latest is not None and str(latest) != outcome.directory
    assert json.loads((latest / REPORT).read_bytes())["model"]["says"].startswith("not published: ")


# Detection


def test_the_forest_of_a_month_puts_attacks_first(month: Judged) -> None:
    """Trained without labels on what came before the attacks."""
    first = int(np.flatnonzero(month.attack)[0])
    made = trained(sample(month, first), Settings())
    found = ranking(made.forest.bits(month.scored.features[first:]), month.attack[first:])
    assert found["average_precision"] is not None and found["average_precision"] >= 0.9


@pytest.mark.parametrize("guesses", [40, 80, 400])
def test_of_a_history_of_mostly_attacks_the_forest_is_not_inverted_or_refused(
    guesses: int, tmp_path: Path
) -> None:
    heavy = logins.rows(days=40)
    for day in range(2, 40):
        begin, user = logins.START + day * logins.DAY + 2 * logins.HOUR, f"user{day % 8}"
        heavy += [
            logins._row(begin + 2000 * k, user, f"198.51.100.{day}", k < guesses - 1, day)
            for k in range(guesses)
        ]
    judged = folded(tmp_path, sorted(heavy, key=lambda row: row["timestamp"]))
    assert judged.attack.mean() > 0.5
    first = int(0.6 * len(judged.attack))
    rows = sample(judged, first)
    default = Settings()
    made = trained(rows, default)
    decision = challenger.decide(made, rows, Registry(tmp_path / "r", feature_names=NAMES), default)
    assert decision is not None
    auc = ranking(made.forest.bits(judged.scored.features[first:]), judged.attack[first:])["roc_auc"]
    assert auc is not None
    if decision.model.passed:
        assert auc >= 0.9
    else:
        assert "(limit" in decision.model.says or "(minimum" in decision.model.says
