"""Evaluation: its measures equal those of scikit-learn, and labels do not influence the scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from streamguard.history.evaluate import EvaluationError, evaluate, judge, trained_forest
from streamguard.history.event_measures import ranking
from streamguard.history.files import Batch, HistoryError, read
from streamguard.history.labels import ColumnLabels, FileLabels
from streamguard.history.partitioner import partition_of
from streamguard.history.replay import Replay
from streamguard.settings.schema import Settings, Training
from tests import logins

MEASURES = {
    "roc_auc", "average_precision", "precision_at_100", "recall_at_fpr_0.01", "recall_at_fpr_0.001",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return logins.rows()


@pytest.fixture(scope="module")
def file(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(logins.write_csv(tmp_path_factory.mktemp("labelled") / "logins.csv", rows))


def evaluated(file: str, **options: Any) -> dict[str, Any]:
    labels = ColumnLabels("is_attack", "attack_id")
    return evaluate(read(file, extra=labels.columns), labels, **options)


# ranking


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_ranking_agrees_with_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    score = np.array([float(value) for value, _ in pairs])
    attack = np.array([hit for _, hit in pairs])
    if attack.all() or not attack.any():
        assert set(ranking(score, attack).values()) == {None}
        return
    found = ranking(score, attack)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(attack, score))
    assert found["average_precision"] == pytest.approx(average_precision_score(attack, score))
    false, recall, _ = roc_curve(attack, score, drop_intermediate=False)
    assert found["recall_at_fpr_0.01"] == pytest.approx(recall[false <= 0.01].max())


def test_recall_stays_within_the_false_positive_rate() -> None:
    score = np.arange(1100.0)
    attack = np.zeros(1100, bool)
    attack[[1099, 1098, 1096, 1080, 3]] = True
    found = ranking(score, attack)
    assert found["recall_at_fpr_0.001"] == 3 / 5
    assert found["recall_at_fpr_0.01"] == 3 / 5
    assert found["precision_at_100"] == 4 / 100


def test_precision_at_100_does_not_depend_on_the_order_of_ties() -> None:
    attack = np.zeros(400, bool)
    attack[:200] = True
    score = np.zeros(400)
    assert (
        ranking(score, attack)["precision_at_100"] == ranking(score, attack[::-1])["precision_at_100"] == 0.5
    )


# whole evaluations


def test_result_has_every_measure_and_finds_the_attacks(file: str, rows: list[dict[str, Any]]) -> None:
    result = evaluated(file)
    assert set(result["scores"]) == {"verdict", "statistical", "forest"}
    for measures in result["scores"].values():
        assert set(measures) == MEASURES
        assert all(0.0 <= value <= 1.0 for value in measures.values())
    assert result["scores"]["statistical"]["roc_auc"] > 0.99
    assert result["scores"]["verdict"]["roc_auc"] > 0.99
    assert result["events"] == len(rows)
    assert result["measured"] == len(rows) - int(np.ceil(0.3 * len(rows)))
    assert result["attacks"] == 200
    assert result["campaigns"]["total"] == result["campaigns"]["caught"] == 2
    assert 0.0 <= result["campaigns"]["median_delay_seconds"] < 60.0
    assert result["incidents"] >= 2
    assert result["incidents_per_benign_day"] < 0.2
    assert result["cpu_seconds"] > 0.0


def test_labels_do_not_influence_the_scores(file: str) -> None:
    def turned(batch: Batch) -> tuple[list[bool], list[str | None]]:
        attack, campaign = ColumnLabels("is_attack", "attack_id")(batch)
        return [not hit for hit in attack], campaign

    truth = evaluated(file)
    lie = evaluate(read(file, extra=["is_attack", "attack_id"]), turned)
    for score in ("statistical", "verdict", "forest"):
        assert lie["scores"][score]["roc_auc"] == pytest.approx(1.0 - truth["scores"][score]["roc_auc"])
    assert lie["incidents"] == truth["incidents"]


def test_events_without_a_label_are_counted(tmp_path: Path) -> None:
    rows = logins.rows()
    for row in rows[::3]:
        row["is_attack"] = ""
    file = str(logins.write_csv(tmp_path / "a.csv", rows))
    labels = ColumnLabels("is_attack", "attack_id")
    evaluate(read(file, extra=["is_attack", "attack_id"]), labels)
    assert labels.unlabelled == len(rows[::3])


def test_only_incidents_without_any_attack_count_as_false(tmp_path: Path) -> None:
    """An incident that began with an attack before the measured part does not count."""
    rows = logins.rows()
    for row in rows:
        row["is_attack"] = 0
    result = evaluated(str(logins.write_csv(tmp_path / "a.csv", rows)))
    days = len({row["timestamp"] // logins.DAY for row in rows[-result["measured"] :]})
    assert result["incidents_per_benign_day"] == pytest.approx(result["incidents"] / days)
    assert result["attacks"] == 0
    assert set(result["scores"]["verdict"].values()) == {None}
    assert result["campaigns"] == {"total": 0, "caught": 0, "median_delay_seconds": None}


def test_campaigns_that_begin_before_the_measured_part_are_not_timed(file: str) -> None:
    assert evaluated(file, train_share=0.8)["campaigns"]["total"] == 1


def test_forest_is_omitted_with_too_few_rows_or_without_scikit_learn(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = evaluated(str(logins.write_csv(tmp_path / "a.csv", logins.rows(days=6))))
    assert small["scores"]["forest"] is None
    assert "(minimum 256)" in small["forest_missing"]
    assert small["scores"]["verdict"]["roc_auc"] is not None
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "pip install" in evaluated(file)["forest_missing"]


def test_nothing_to_measure_is_reported(tmp_path: Path, file: str) -> None:
    empty = logins.write_csv(tmp_path / "empty.csv", [])
    with pytest.raises(EvaluationError, match="no event to measure"):
        evaluated(str(empty))
    with pytest.raises(EvaluationError, match="train share"):
        evaluated(file, train_share=1.0)


def test_forest_does_not_depend_on_the_reading_order_of_partitions(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The order of events between partitions, which no topic keeps, does not influence the forest."""
    user = {row["user"] for row in rows}
    other = sorted(
        rows, key=lambda row: (row["timestamp"] // logins.DAY, partition_of(row["user"].encode(), 4))
    )
    assert other != rows and len(user) > 4
    files = [logins.write_csv(tmp_path / f"{k}.csv", part) for k, part in enumerate((rows, other))]
    found = []
    for file in files:
        judged = judge(
            read(str(file), extra=["is_attack", "attack_id"]),
            ColumnLabels("is_attack", "attack_id"),
            Replay(4),
        )
        first = sum(row["timestamp"] // logins.DAY < logins.START // logins.DAY + 20 for row in rows)
        forest, missing = trained_forest(judged, first, Settings(training=Training(trees=20)))
        assert missing is None and forest is not None
        bits = forest.rarity(judged.scored.features[first:])
        place = np.lexsort((judged.scored.offset[first:], judged.scored.partition[first:]))
        found.append(bits[place])
    assert np.array_equal(*found)


def test_training_mostly_on_attacks_does_not_invert_the_forest(tmp_path: Path) -> None:
    """Over two thirds of the training events are guesses: each day, one user's password is guessed 80 times."""
    rows = logins.rows(days=40)
    for day in range(2, 40):
        begin, user = logins.START + day * logins.DAY + 2 * logins.HOUR, f"user{day % 8}"
        for k in range(80):
            rows.append(logins._row(begin + 2000 * k, user, f"198.51.100.{day}", k < 79, day))
    rows.sort(key=lambda row: row["timestamp"])
    result = evaluated(str(logins.write_csv(tmp_path / "heavy.csv", rows)), train_share=0.6)
    forest = result["scores"]["forest"]
    assert forest is not None, result["forest_missing"]
    assert forest["roc_auc"] >= 0.9


# labels


def test_labels_of_a_file_equal_those_of_columns(
    tmp_path: Path, file: str, rows: list[dict[str, Any]]
) -> None:
    labels = FileLabels(logins.write_labels(tmp_path / "labels.jsonl", rows))
    events = logins.write_jsonl(tmp_path / "events.jsonl", rows)
    result = evaluate(read(str(events), extra=labels.columns), labels)
    expected = evaluated(file)
    labels.check()
    for volatile in ("cpu_seconds",):
        result.pop(volatile), expected.pop(volatile)
    assert result == expected


def batch_of(*labels: Any) -> Batch:
    from streamguard.events.event import parse

    values: list[bytes | None] = [b'{"timestamp": 1700000000, "user": "a", "event_type": "t"}'] * len(labels)
    return Batch(1, range(1, len(labels) + 1), values, *parse(values), {"is_attack": list(labels)})


def test_labels_accept_the_usual_spellings_of_yes_and_no() -> None:
    labels = ColumnLabels("is_attack", None)
    attack, campaigns = labels(batch_of("1", "True", 1, True, "yes", "0", "false", 0, False, None, 1.0))
    assert attack == [True] * 5 + [False] * 5 + [True]
    assert set(campaigns) == {None}
    with pytest.raises(HistoryError, match="row 2: is_attack is 'maybe'"):
        labels(batch_of("1", "maybe"))


def test_invalid_labels_are_reported(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="'status' is an event field"):
        ColumnLabels("status", None)
    labels = ColumnLabels("is_attack", None)
    labels(batch_of(None, ""))
    with pytest.raises(HistoryError, match="no event has a label 'is_attack'"):
        labels.check()
    path = tmp_path / "labels.jsonl"
    with pytest.raises(HistoryError, match="No such file"):
        FileLabels(path)
    path.write_text('{"event_id": "a"}\n{"event": 3}\n')
    with pytest.raises(HistoryError, match="line 2: not a label"):
        FileLabels(path)
    path.write_text('{"event_id": "a"}\n')
    with pytest.raises(HistoryError, match="other events' labels"):
        FileLabels(path).check()
