"""Decisions of a replay: how a file of them is read, and before which event each is folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from streamguard.alerts.incident import Incident
from streamguard.cli.main import main
from streamguard.decisions.preview import Preview, preview
from streamguard.decisions.values import canonical, of_event
from streamguard.history.decisions import read as read_decisions
from streamguard.history.files import HistoryError, read
from streamguard.history.replay import Replay
from tests.streams import Partition
from tests.unit.test_decisions import BEFORE, NEW, NOW, expected, login

ROWS = [*BEFORE, login(), login(NOW + 1000)]
EXPECTED = {"decision": "expected", "user": "user3", "field": "source", "value": NEW, "until": "2025-12-31"}


def file_of(directory: Path, *lines: dict[str, Any], name: str = "decisions.jsonl") -> Path:
    path = directory / name
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)) + b"\n")
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(ROWS) + b"\n")
    return path


def replayed(
    events: Path, decisions: Path | None, partitions: int = 1, rows: int = 4096
) -> tuple[Replay, Any]:
    replay = Replay(partitions, decisions=read_decisions(decisions) if decisions else ())
    scores = [replay.feed(batch) for batch in read(str(events), rows=rows)]
    return replay, np.concatenate([one.score for one in scores])


@pytest.mark.parametrize("place", [{"at": NOW}, {"row": 2001}, {"offset": 2000}])
@pytest.mark.parametrize("rows", [7, 4096])
def test_decision_is_folded_before_the_event_that_it_names(
    events: Path, tmp_path: Path, place: dict[str, int], rows: int
) -> None:
    replay, scores = replayed(events, file_of(tmp_path, EXPECTED | place), rows=rows)
    partition = Partition()
    until = expected(1, until=1_767_139_200_000)
    values: list[Any] = [*BEFORE, until, *ROWS[2000:]]
    direct = np.concatenate([folded.score for folded in partition.chunks(values)])
    np.testing.assert_array_equal(scores, direct)
    assert (replay.plan.folded, replay.plan.waiting) == (1, 0)
    _, plain = replayed(events, None)
    np.testing.assert_array_equal(plain[:2000], scores[:2000])
    assert scores[2000] < plain[2000] - 5


def test_decision_belongs_to_the_partition_of_its_user_and_a_revocation_follows_it(
    events: Path, tmp_path: Path
) -> None:
    revoke = {"decision": "revoke", "revokes": "0-" + "1".zfill(24), "at": NOW + 1000}
    replay, scores = replayed(events, file_of(tmp_path, EXPECTED | {"row": 1}, revoke), partitions=3)
    _, plain = replayed(events, None, partitions=3)
    assert replay.plan.folded == 2
    assert scores[2000] < plain[2000] - 5
    assert scores[2001] > scores[2000] + 5


def test_decision_that_is_not_reached_is_reported(events: Path, tmp_path: Path) -> None:
    decisions = file_of(tmp_path, EXPECTED | {"row": 1}, EXPECTED | {"at": NOW + 10**9})
    ran = CliRunner().invoke(main, ["replay", str(events), "--decisions", str(decisions)])
    assert ran.exit_code == 0, ran.output
    assert "1 decision folded, 1 not reached" in ran.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({}, "exactly one of"),
        ({"at": 1, "row": 1}, "exactly one of"),
        ({"row": 0}, "row from 1"),
        ({"at": "soon"}, "is not a time"),
        ({"row": 1, "until": "soon"}, "is not a time"),
        ({"row": 1, "field": "password"}, "Invalid enum value"),
    ],
)
def test_line_that_is_not_a_decision_with_a_place_is_refused(
    tmp_path: Path, line: dict[str, Any], words: str
) -> None:
    with pytest.raises(HistoryError, match=f"line 2: .*{words}"):
        read_decisions(file_of(tmp_path, EXPECTED | {"row": 1}, EXPECTED | line))


def test_file_that_is_no_list_of_decisions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="cannot read"):
        read_decisions(tmp_path / "missing")
    (tmp_path / "text").write_text("?")
    with pytest.raises(HistoryError, match="line 1: the line is not a JSON object"):
        read_decisions(tmp_path / "text")
    unknown = read_decisions(file_of(tmp_path, {"decision": "revoke", "revokes": "0-" + "9" * 24, "row": 1}))
    with pytest.raises(HistoryError, match="which another line revokes"):
        Replay(decisions=unknown)


def incidents(events: Path) -> list[Incident]:
    replay, _ = replayed(events, None)
    return replay.updates()


def test_preview_counts_the_incidents_of_the_user_that_have_the_value_as_a_reason(tmp_path: Path) -> None:
    rows = [
        *BEFORE,
        *(login(NOW + k * 3_600_000 * 5, source=f"203.0.113.{k % 2}", place="US-X") for k in range(6)),
    ]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(rows) + b"\n")
    found = incidents(path)
    mine = {one.id for one in found if one.entity.value == "user3"}
    with_value = {
        one.id
        for one in found
        if one.entity.value == "user3"
        and any(r.feature == "source" and r.actual == "203.0.113.0" for r in one.reasons)
    }
    assert with_value
    assert preview(found, "user3", "source", "203.0.113.0") == Preview(len(with_value), len(mine))
    assert preview(found, "user4", "source", "203.0.113.0").affected == 0
    assert preview([], "user3", "source", "x") == Preview(0, 0)


def test_value_is_written_as_the_fold_knows_it() -> None:
    assert canonical("source", "::FFFF:10.0.0.1") == "10.0.0.1"
    assert canonical("host", "Laptop-3") == "Laptop-3"
    user, texts = of_event(login(source="2001:db8::1"))
    assert (user, texts["source"], texts["location"]) == (
        "user3",
        "2001:db8::1",
        canonical("location", "DE-Berlin"),
    )
    assert of_event(b'{"truncated":true}') == ("", {})
