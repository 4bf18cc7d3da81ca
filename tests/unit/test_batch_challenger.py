"""The challenger's artifact depends on its history alone; promotion comes last and never overrides a person."""

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
from streamguard.batch.runs import Runs
from streamguard.errors import CannotWriteError
from streamguard.fold.features import NAMES
from streamguard.history.evaluate import Judged, judge
from streamguard.history.event_measures import ranking
from streamguard.history.files import read
from streamguard.history.labels import ColumnLabels
from streamguard.history.replay import Replay
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry
from streamguard.runs.directory import REPORT
from streamguard.settings.schema import Batch, Detection, Gate, Settings, Training
from streamguard.settings.schema import Models as Place
from tests import logins

LENIENT = Gate(min_overlap=0.0, max_drift=1000.0, max_alert_ratio=1000.0, min_injected_auc=0.0)
"""Limits that refuse no forest trained on these few logins."""

SETTINGS = Settings(training=Training(trees=60), gate=LENIENT)
STRICT = Settings(training=SETTINGS.training, gate=Gate(min_rows=10**6))


def folded(path: Path, rows: list[dict[str, Any]]) -> Judged:
    labels = ColumnLabels("is_attack", "attack_id")
    file = logins.write_csv(path / "logins.csv", rows)
    return judge(read(str(file), extra=labels.columns), labels, Replay(4))


def sample(judged: Judged, until: int | None = None) -> EventTable:
    """The first events in the form in which a retrain keeps them."""
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


def test_artifact_does_not_depend_on_champion_or_verdict(
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
        else:  # published earlier by hand without metrics; a published version never changes
            decided(ours, rows, registry, settings)
            assert json.loads(files(registry, ours.forest.version)["metrics.json"]) == {}
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 5
    assert len({msgspec.json.encode(judgement) for judgement in judgements}) == 3


def test_refused_version_can_pass_in_a_later_run(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    refused, current, message = decided(ours, rows, registry, STRICT)
    assert not refused.model.passed and not current
    assert f"streamguard models promote {ours.forest.version} --registry {registry.directory}" in message
    judgement = registry.judgement(ours.forest.version)
    assert judgement is not None and not judgement.passed
    assert judgement.champion == theirs.forest.version

    passed, current, _ = decided(ours, rows, registry)
    assert passed.model.passed and current
    judgement = registry.judgement(ours.forest.version)
    assert judgement is not None and judgement.passed


def test_users_are_distinguished_by_name_and_partition_and_long_names_cost_no_memory(
    rows: EventTable,
) -> None:
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


def test_gate_setting_allows_few_rows(rows: EventTable) -> None:
    two = EventTable(**{f.name: getattr(rows, f.name)[:2] for f in fields(EventTable)})
    settings = msgspec.structs.replace(SETTINGS, gate=Gate(min_rows=2))
    assert len(trained(two, settings).rows) == 2
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"min_rows": 1}, Gate)


# Carrying out a decision


def test_rolled_back_version_is_promoted_only_by_a_person(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    for made in (theirs, ours):
        assert decided(made, rows, registry)[1]
    registry.rollback()

    decision, current, message = decided(ours, rows, registry)
    assert decision.model.passed and not current
    assert registry.current() == theirs.forest.version
    assert "but it was rolled back" in message

    registry.promote(ours.forest.version)
    assert decided(ours, rows, registry)[1:] == (
        True,
        f"model {ours.forest.version} is already current: the same events give the same forest",
    )


def test_decision_is_not_carried_out_if_the_pointer_moved(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decision = challenger.decide(ours, rows, registry, SETTINGS)
    assert decision is not None and decision.model.passed
    registry.promote(registry.publish(theirs.forest))
    current, message = decision.carry_out(registry)
    assert not current
    assert registry.current() == theirs.forest.version
    assert f"meanwhile {theirs.forest.version} has become current" in message


def test_next_run_promotes_after_a_run_that_ended_before_its_promotion(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    challenger.decide(ours, rows, registry, SETTINGS)
    assert registry.current() == theirs.forest.version
    decision, current, message = decided(ours, rows, registry)
    assert current and registry.current() == ours.forest.version != decision.model.previous
    assert "and is current now" in message


# Damaged registries


def test_unreadable_champion_is_reported(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    champion = theirs.forest.version
    os.truncate(registry.directory / "versions" / champion / "forest.safetensors", 100)
    decision, current, message = decided(ours, rows, registry)
    assert current
    for text in (message, decision.model.message):
        assert f"not compared with the champion {champion}: it could not be read: " in text
        assert "forest.safetensors" in text
    assert not {"drift", "overlap", "alerts"} & {check.name for check in decision.model.checks}
    judgement = registry.judgement(ours.forest.version)
    assert judgement is not None and "forest.safetensors" in judgement.uncompared


def test_unsigned_champion_is_reported_if_a_key_is_set(
    rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    decided(theirs, rows, registry)
    signing = Registry(registry.directory, feature_names=NAMES, key=b"0123456789abcdef")
    decision, current, message = decided(ours, rows, signing)
    assert any("not signed, but a key is set" in check.message for check in decision.model.checks) or (
        "not signed, but a key is set" in message
    )
    assert not current
    assert "current is not signed" in message
    signing.promote(ours.forest.version)
    assert signing.current() == ours.forest.version


@pytest.mark.parametrize(
    "kept", [{"burst": []}, {"burst": [0.0] * 100}, {"nothing": [0.0] * 101}, [], 3, None]
)
def test_champion_with_invalid_distribution_does_not_stop_a_retrain(
    kept: object, rows: EventTable, ours: Challenger, theirs: Challenger, registry: Registry
) -> None:
    registry.promote(registry.publish(theirs.forest, origin=theirs.origin, metrics={"distribution": kept}))
    decision, current, _ = decided(ours, rows, registry)
    assert current
    assert "drift" not in {check.name for check in decision.model.checks}


def test_failed_publication_is_raised_when_the_decision_is_carried_out(
    rows: EventTable, ours: Challenger, registry: Registry
) -> None:
    version = registry.publish(ours.forest)
    os.truncate(registry.directory / "versions" / version / "forest.safetensors", 100)
    decision = challenger.decide(ours, rows, registry, SETTINGS)
    assert decision is not None
    assert decision.model.message.startswith("not published: ")
    with pytest.raises(ArtifactError, match=f"remove .*{version} and publish it again"):
        decision.carry_out(registry)


def test_full_disk_does_not_fail_the_run_before_its_decision_is_carried_out(
    rows: EventTable, ours: Challenger, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streamguard.models.registry.sync", full)
    decision = challenger.decide(ours, rows, registry, SETTINGS)
    assert decision is not None
    assert decision.model.message.startswith("not published: cannot write ")
    with pytest.raises(CannotWriteError, match="free disk space, or choose another registry"):
        decision.carry_out(registry)


def test_retrain_checks_the_registry_first_and_keeps_its_run_if_publishing_fails(
    tmp_path: Path,
) -> None:
    events = logins.write_jsonl(tmp_path / "events.jsonl", logins.rows())
    output = tmp_path / "runs"
    settings = Settings(batch=Batch(engine="local", output=str(output)), training=Training(trees=60))
    request = Request(input=str(events))
    lines: list[str] = []
    (tmp_path / "file").write_text("")
    broken = msgspec.structs.replace(settings, models=Place(registry=str(tmp_path / "file" / "below")))
    with pytest.raises(CannotWriteError, match="file/below"):
        retrain(broken, request, lines.append)
    assert not lines and Runs(output).latest() is None

    outcome = retrain(settings, request, lines.append)
    assert outcome.current and outcome.version is not None
    os.truncate(output / "registry" / "versions" / outcome.version / "forest.safetensors", 100)
    with pytest.raises(ArtifactError, match=f"remove .*{outcome.version}"):
        retrain(settings, request, lines.append)
    latest = Runs(output).latest()
    assert latest is not None and str(latest) != outcome.directory
    assert json.loads((latest / REPORT).read_bytes())["model"]["message"].startswith("not published: ")


def test_unreadable_report_of_the_last_run_is_printed(
    ours: Challenger, registry: Registry, tmp_path: Path
) -> None:
    lines: list[str] = []
    (tmp_path / REPORT).write_text('{"format": 1}')

    assert challenger.drift_since(None, ours, registry, lines.append) is None
    assert not lines
    assert challenger.drift_since(tmp_path, ours, registry, lines.append) is None
    assert len(lines) == 1 and "(format 1, this version reads 2)" in lines[0]


# Detection


def test_forest_of_a_month_ranks_attacks_first(month: Judged) -> None:
    """The forest is trained without labels on the events before the attacks."""
    first = int(np.flatnonzero(month.attack)[0])
    made = trained(sample(month, first), Settings())
    found = ranking(made.forest.rarity(month.scored.features[first:]), month.attack[first:])
    assert found["average_precision"] is not None and found["average_precision"] >= 0.9


@pytest.mark.parametrize("guesses", [40, 80, 400])
def test_forest_trained_mostly_on_attacks_is_not_inverted_or_is_refused(guesses: int, tmp_path: Path) -> None:
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
    auc = ranking(made.forest.rarity(judged.scored.features[first:]), judged.attack[first:])["roc_auc"]
    assert auc is not None
    if decision.model.passed:
        assert auc >= 0.9
    else:
        assert "(limit" in decision.model.message or "(minimum" in decision.model.message
