"""`streamguard replay` and `streamguard evaluate` as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import logins
from tests.incidents import published

pytestmark = pytest.mark.integration


def streamguard(*arguments: object, given: bytes = b"") -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "streamguard.cli", *map(str, arguments)],
        input=given,
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return logins.rows()


@pytest.fixture(scope="module")
def table(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logins.write_csv(tmp_path_factory.mktemp("history") / "logins.csv", rows)


@pytest.fixture(scope="module")
def lines(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logins.write_jsonl(tmp_path_factory.mktemp("history") / "logins.jsonl", rows)


def test_replay_json_is_an_incident_a_line_worst_first(table: Path) -> None:
    code, out, err = streamguard("replay", table, "--json")
    assert code == 0
    incidents = [published(line.encode()) for line in out.splitlines()]
    assert {
        "id", "entity", "first_seen", "last_seen", "count", "risk", "severity", "technique", "reasons",
    } <= set(incidents[0])  # fmt: skip
    assert set(incidents[0]["entity"]) == {"kind", "value"}
    assert set(incidents[0]["reasons"][0]) == {"feature", "actual", "typical", "bits", "share"}
    assert [i["evidence_bits"] for i in incidents] == sorted(
        (i["evidence_bits"] for i in incidents), reverse=True
    )
    assert "is_attack" not in out
    assert f"1,160 events, {len(incidents)} incidents, no row refused" in err


def test_a_file_its_stream_and_its_other_format_give_the_same_incidents(table: Path, lines: Path) -> None:
    def found(*arguments: object, given: bytes = b"") -> list[dict[str, Any]]:
        code, out, _ = streamguard("replay", *arguments, "--json", given=given)
        assert code == 0
        return [{**json.loads(line), "event": None} for line in out.splitlines()]

    expected = found(lines)
    assert expected
    assert found("-", given=lines.read_bytes()) == expected
    assert found(table) == expected
    assert found("-", "--format", "csv", given=table.read_bytes()) == expected
    assert found(lines, "--partitions", 1) != expected


def test_the_table_names_who_and_why_and_how_much_is_left_out(table: Path) -> None:
    code, out, _ = streamguard("replay", table, "--top", 1)
    assert code == 0
    assert out.startswith(" RISK  SEVERITY  EVENTS  FIRST SEEN")
    assert "critical" in out
    assert "usual:" in out
    assert "bits" in out
    assert "more: --top 0 shows all" in out


def test_a_terminal_is_not_commanded_by_an_event(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    renamed = [dict(row, source_ip=row["source_ip"] + "\x1b[2J") for row in rows]
    _, out, _ = streamguard("replay", logins.write_csv(tmp_path / "a.csv", renamed), "--top", 0)
    assert logins.ATTACKER in out
    assert "\x1b" not in out


def test_output_goes_to_a_file(table: Path, tmp_path: Path) -> None:
    code, out, _ = streamguard("replay", table, "--output", tmp_path / "incidents.jsonl")
    assert (code, out) == (0, "")
    written = (tmp_path / "incidents.jsonl").read_text()
    assert written == streamguard("replay", table, "--json")[1]
    code, _, err = streamguard("replay", table, "--output", tmp_path / "missing" / "incidents.jsonl")
    assert code == 2
    assert "cannot write" in err


def test_fail_on_ends_with_1_from_that_severity_on(
    table: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    assert streamguard("replay", table, "--fail-on", "critical")[0] == 1
    assert streamguard("replay", table, "--fail-on", "low")[0] == 1
    quiet = logins.write_csv(tmp_path / "quiet.csv", rows[:100])
    code, out, _ = streamguard("replay", quiet, "--fail-on", "low")
    assert (code, out) == (0, "no incidents\n")


def test_refused_rows_are_counted_and_the_first_named(lines: Path, tmp_path: Path) -> None:
    def event(timestamp: str, user: str) -> bytes:
        return f'{{"timestamp": {timestamp}, "user": {user}, "event_type": "t"}}'.encode()

    not_json = [b"{", b"\xff\xfe", event("NaN", '"a"'), event("1e400", '"a"')]
    wrong = [b"[]", b"3", b"null", b'{"user": "a"}', event("1700000000", "7"), event("1700000000", '""')]
    outside = [event("0", '"a"'), event("7258118400", '"a"')]
    large = [b'"' + b"x" * 2_000_000 + b'"', b"[" * 5000]
    hostile = [b"", *not_json, *wrong, *outside, *large, event("1700000000", '"a\\u0000"')]
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"\n".join(hostile) + b"\n" + lines.read_bytes())
    code, out, err = streamguard("replay", path, "--json")
    assert code == 0
    assert out
    assert "refused row 1 (line 2): not_json" in err
    assert err.count("refused row") == 5
    assert "1,161 events" in err
    assert "14 of 1,175 rows refused" in err
    assert "timestamp_out_of_range 2" in err
    assert "missing_user 1" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone.jsonl"], "cannot read gone.jsonl: No such file or directory"),
        (["gone.txt"], "must end in"),
        (["-", "--map", "user"], "FIELD=COLUMN"),
        (["-", "--map", "user=account"], "--map is for CSV and Parquet"),
        (["-", "--format", "csv"], "is empty"),
        (["-", "--model", "a", "--registry", "b"], "give only one of them"),
        (["-", "--registry", "nowhere"], "the registry has no current version"),
        (["-", "--model", "nowhere"], "nowhere"),
        (["-", "--fail-on", "terrible"], "terrible"),
        (["-", "--config", "gone.toml"], "cannot read the settings file"),
    ],
)
def test_what_cannot_be_used_ends_with_2_and_a_sentence(arguments: list[str], says: str) -> None:
    code, out, err = streamguard("replay", *arguments)
    assert (code, out) == (2, "")
    assert says in err


def test_a_file_without_any_event_is_an_error_and_an_empty_one_is_not() -> None:
    code, _, err = streamguard("replay", "-", given=b"2024-05-01 12:00:00 sshd[7]: Failed password\n")
    assert code == 2
    assert "no row is a valid event: 1 row refused" in err
    assert streamguard("replay", "-", given=b"")[:2] == (0, "no incidents\n")


def test_a_registrys_current_forest_supports_the_verdict(table: Path, tmp_path: Path) -> None:
    from streamguard.fold.features import NAMES
    from streamguard.history.files import read
    from streamguard.history.replay import Replay
    from streamguard.models.registry import Registry
    from streamguard.models.train import train

    replay = Replay()
    (batch,) = read(str(table))
    forest = train(replay.feed(batch).features[:600], trees=20)
    registry = Registry(tmp_path / "registry", feature_names=NAMES)
    registry.promote(registry.publish(forest))
    for option in (
        ("--registry", tmp_path / "registry"),
        ("--model", tmp_path / "registry/versions" / forest.version),
    ):
        code, out, err = streamguard("replay", table, "--json", *option)
        assert code == 0, err
        assert json.loads(out.splitlines()[0])["model"]["version"] == forest.version
        (tmp_path / "key").write_bytes(bytes(32))
        (tmp_path / "settings.toml").write_text(f'[models]\nkey_file = "{tmp_path / "key"}"\n')
        code, out, err = streamguard("replay", table, *option, "--config", tmp_path / "settings.toml")
        assert (code, out) == (2, "")
        assert "not signed, but a key is set" in err


def test_settings_decide_what_is_alerted(table: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[detection]\nalert_risk = 10000.0\n")
    code, out, _ = streamguard("replay", table, "--config", tmp_path / "settings.toml")
    assert (code, out) == (0, "no incidents\n")


def test_evaluate_json_has_every_measure(table: Path) -> None:
    code, out, err = streamguard("evaluate", table, "--label", "is_attack", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert {"scores", "events", "incidents", "incidents_per_benign_day", "campaigns", "cpu_seconds"} <= set(
        result
    )
    assert set(result["campaigns"]) == {"total", "caught", "median_delay_seconds"}
    for score in ("verdict", "statistical", "forest"):
        assert set(result["scores"][score]) == {
            "roc_auc", "average_precision", "precision_at_100", "recall_at_fpr_0.01", "recall_at_fpr_0.001",
        }  # fmt: skip


def test_evaluate_takes_labels_from_their_own_file(
    lines: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    labels = logins.write_labels(tmp_path / "labels.jsonl", rows)
    code, out, err = streamguard("evaluate", lines, "--labels", labels)
    assert code == 0, err
    assert "verdict" in out
    assert "2 of 2 caught" in out
    assert "no row refused" in out
    code, _, err = streamguard("evaluate", lines)
    assert code == 2
    assert "no event has a label 'is_attack'" in err


def test_evaluate_without_campaigns_and_with_a_map(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = logins.write_csv(tmp_path / "a.csv", rows)
    text = (
        path.read_text()
        .replace("timestamp,user,", "when,account,")
        .replace("is_attack,attack_id", "bad,wave")
    )
    path.write_text(text)
    common = (
        "evaluate",
        path,
        "--label",
        "bad",
        "--map",
        "timestamp=when",
        "--map",
        "user=account",
        "--json",
    )
    code, out, err = streamguard(*common)
    assert code == 0, err
    assert json.loads(out)["campaigns"] == {"total": 0, "caught": 0, "median_delay_seconds": None}
    assert json.loads(streamguard(*common, "--campaign", "wave")[1])["campaigns"]["caught"] == 2
    code, _, err = streamguard(*common, "--campaign", "gone")
    assert code == 2
    assert "no column 'gone'" in err


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "replay", "evaluate"])
def test_a_full_disk_under_standard_output_is_said_in_one_sentence(
    table: Path, command: str, unbuffered: str
) -> None:
    arguments = [command] if command == "--help" else [command, str(table)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "streamguard.cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.decode() == "Error: cannot write the output: No space left on device\n"
