"""Replay: a file is scored like a topic, and its incidents are reported in their final state."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamguard.alerts.incident import Entity, Origin
from streamguard.campaigns.campaign import campaigns
from streamguard.cli.evaluate import command as evaluate_command
from streamguard.cli.replay import command as replay_command
from streamguard.fold.features import NAMES
from streamguard.history.evaluate import evaluate
from streamguard.history.files import Batch, read
from streamguard.history.partitioner import partition_of
from streamguard.history.replay import Replay, Scored
from streamguard.models.forest import Forest
from streamguard.settings.schema import Detection
from streamguard.state.partition import PartitionState
from tests import logins


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return logins.rows()


@pytest.fixture(scope="module")
def file(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(logins.write_jsonl(tmp_path_factory.mktemp("history") / "logins.jsonl", rows))


def replayed(file: str, batch_rows: int = 4096, **options: Any) -> tuple[Replay, Scored]:
    replay = Replay(**options)
    parts = [replay.feed(batch) for batch in read(file, rows=batch_rows)]
    together = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Scored)}
    return replay, Scored(**together)


def test_default_number_of_partitions_is_that_of_the_commands() -> None:
    number = len(Replay().partitions)
    assert inspect.signature(evaluate).parameters["partitions"].default == number
    for command in (replay_command, evaluate_command):
        (option,) = (option for option in command.params if option.name == "partitions")
        assert option.default == number


@pytest.mark.parametrize("batch_rows", [1, 7, 500])
def test_batch_size_does_not_change_the_result(file: str, batch_rows: int) -> None:
    whole, expected = replayed(file)
    replay, scored = replayed(file, batch_rows)
    for field in fields(Scored):
        np.testing.assert_array_equal(getattr(scored, field.name), getattr(expected, field.name), field.name)
    assert replay.incidents() == whole.incidents()


def test_each_partition_equals_the_fold_of_its_users_rows(file: str) -> None:
    _, scored = replayed(file, partitions=3)
    lines = Path(file).read_bytes().splitlines()
    of = np.array([partition_of(json.loads(line)["user"].encode(), 3) for line in lines])
    assert set(of) == {0, 1, 2}
    for partition in range(3):
        (own,) = np.nonzero(of == partition)
        state = PartitionState(
            partition, lambda keys: [None] * len(keys), resident=8192, detection=Detection()
        )
        folded = state.fold([lines[i] for i in own], np.arange(len(own)))
        np.testing.assert_array_equal(scored.score[own], folded.score)
        np.testing.assert_array_equal(scored.incident[own] >= 0, folded.kind != 0)
        assert set(scored.partition[own]) == {partition}
        np.testing.assert_array_equal(scored.offset[own], np.arange(len(own)))


def test_attacks_become_incidents_and_ordinary_events_do_not(file: str, rows: list[dict[str, Any]]) -> None:
    replay, scored = replayed(file)
    attack = np.array([row["is_attack"] for row in rows], bool)
    alerted = scored.incident >= 0
    assert alerted[attack].mean() > 0.8
    assert alerted[~attack].mean() < 0.01
    worst = replay.incidents()[0]
    assert worst.entity.value in (logins.ATTACKER, "user1", "user2")
    assert worst.reasons
    assert worst.event["source_ip"] == logins.ATTACKER


def test_incident_includes_its_last_alert_even_if_that_was_not_published(
    file: str, rows: list[dict[str, Any]]
) -> None:
    replay, scored = replayed(file, partitions=2)
    stamps = np.array([row["timestamp"] for row in rows])
    for incident in replay.incidents():
        partition, offset, _ = incident.id.split("-")
        own = scored.incident == int(offset) * 2 + int(partition)
        assert incident.count == own.sum()
        assert incident.last_seen == _moment(stamps[own].max())
        assert incident.first_seen == _moment(stamps[own].min())


def _moment(ms: int) -> str:
    return str(np.datetime64(int(ms), "ms")) + "Z"


def test_updates_are_those_published_and_incidents_name_all_who_take_part(tmp_path: Path) -> None:
    """One address tries twelve users, and gets into the account of one."""
    rows = logins.rows(days=20)
    begin = logins.START + 19 * logins.DAY + 2 * logins.HOUR
    for k in range(12):
        rows.append(logins._row(begin + 3000 * k, f"user{k}", logins.ATTACKER, True, 9))
    rows.append(logins._row(begin + 60_000, "user3", logins.ATTACKER, False, 9))
    rows.sort(key=lambda row: row["timestamp"])
    replay, scored = replayed(str(logins.write_csv(tmp_path / "a.csv", rows)), partitions=1)
    incidents = {one.id: one for one in replay.incidents()}
    assert replay.numbered().keys() == set(scored.incident[scored.incident >= 0].tolist())
    updates = replay.updates()
    assert [one for one in updates if one == incidents[one.id]] == [
        incidents[id] for id in dict.fromkeys(one.id for one in updates)
    ]
    assert len(updates) > len(incidents)
    for number, one in replay.numbered().items():
        users = {rows[i]["user"] for i in np.flatnonzero(scored.incident == number)}
        sources = {rows[i]["source_ip"] for i in np.flatnonzero(scored.incident == number)}
        named = one.involved
        assert users == (set(named.users.names) if named else {one.event["user"]})
        assert sources == (set(named.sources.names) if named else {one.event["source_ip"]})
        if named:
            assert (named.users.count, named.sources.count) == (len(users), len(sources))
    found = campaigns(updates)
    attacked = {
        row["user"] for row in rows if row["source_ip"] == logins.ATTACKER and row["status"] == "success"
    }
    assert [set(row.entered) for row in found if row.entered] == [attacked] == [{"user1", "user2", "user3"}]
    assert found == campaigns(updates[::-1])


def test_incidents_are_sorted_worst_first_and_have_unique_ids(file: str) -> None:
    replay, _ = replayed(file)
    incidents = replay.incidents()
    assert len(incidents) > 1
    keys = [(-i.evidence_bits, -i.count, i.first_seen) for i in incidents]
    assert keys == sorted(keys)
    assert len({i.id for i in incidents}) == len(incidents)


def test_refused_rows_are_counted_and_have_offsets() -> None:
    def batch(*values: bytes) -> Batch:
        from streamguard.events.event import parse

        return Batch(1, range(1, len(values) + 1), list(values), *parse(list(values)), {})

    def event(user: str, stamp: object = 1_700_000_000_000) -> bytes:
        return json.dumps(
            {"timestamp": stamp, "user": user, "event_type": "login", "source_ip": "1.2.3.4"}
        ).encode()

    replay = Replay(1, detection=Detection(alert_risk=0.0))
    replay.feed(batch(b"?", event("a", "never"), event("b")))
    assert replay.events == 1
    assert replay.refused == {"not_json": 1, "bad_timestamp": 1}
    assert replay.incidents()[0].origin.offset == 2

    spread = Replay(4, detection=Detection(alert_risk=0.0))
    spread.feed(batch(event("b", "never"), event("b")))
    assert spread.incidents()[0].origin == Origin(None, partition_of(b"b", 4), 1)


def test_events_without_a_user_use_the_partition_of_their_address(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("timestamp,source_ip,event_type,status\n1700000000,10.0.0.1,login,failure\n")
    replay, _ = replayed(str(path), partitions=4, detection=Detection(alert_risk=0.0))
    (incident,) = replay.incidents()
    assert incident.entity == Entity("source", "10.0.0.1")
    assert incident.origin.partition == partition_of(b"10.0.0.1", 4)


def test_profiles_beyond_the_memory_limit_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.csv"
    path.write_text(
        "timestamp,user,source_ip,event_type\n"
        + "".join(f"{1_700_000_000 + k},u{k % 300},10.0.0.{k % 250},login\n" for k in range(1500))
    )
    _, expected = replayed(str(path), 10, partitions=1)
    monkeypatch.setattr("streamguard.history.replay.RESIDENT", 50)
    _, scored = replayed(str(path), 10, partitions=1)
    np.testing.assert_array_equal(scored.score, expected.score)


def test_forest_adds_evidence_and_changes_no_state(file: str) -> None:
    from streamguard.models.train import train

    without, plain = replayed(file)
    forest: Forest = train(plain.features[:600], trees=20)
    assert forest.features == len(NAMES)
    with_forest, scored = replayed(file, forest=forest)
    np.testing.assert_array_equal(scored.score, plain.score)
    np.testing.assert_array_equal(scored.forest, forest.bits(plain.features))
    assert (scored.evidence >= plain.evidence).all()
    assert [i.id for i in with_forest.incidents()] != []
    assert {i.id for i in with_forest.incidents()} == {i.id for i in without.incidents()}
    assert with_forest.incidents()[0].model.version == forest.version
