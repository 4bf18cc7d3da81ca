"""`streamguard replay` and `streamguard evaluate` as processes, as a user starts them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import logins
from tests.incidents import published

pytestmark = pytest.mark.integration


def streamguard(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command; return its exit code, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "streamguard.cli", *map(str, arguments)],
        input=stdin,
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


def test_replay_prints_a_row_for_each_campaign(tmp_path: Path) -> None:
    """Their incidents are those that a replay prints one by one."""
    table, labels = tmp_path / "spray.jsonl", tmp_path / "labels.jsonl"
    simulated = (
        "--users",
        60,
        "--days",
        8,
        "--seed",
        3,
        "--attack",
        "password_spray",
        "--start",
        "2025-01-06T00:00:00Z",
    )
    assert streamguard("simulate", *simulated, "--output", table, "--labels", labels)[0] == 0
    code, out, err = streamguard("replay", table, "--by", "campaign", "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    _, out, _ = streamguard("replay", table, "--json")
    incidents = {json.loads(line)["id"]: json.loads(line) for line in out.splitlines()}
    assert sorted(id for row in found for id in row["incidents"]) == sorted(incidents)
    assert len(found) < len(incidents)
    raised = sum(row["decision"]["raised"] for row in found)
    assert f"{len(incidents)} incidents in {len(found)} rows, {raised} raised" in err
    for row in found:
        assert row["evidence_bits"] == max(incidents[id]["evidence_bits"] for id in row["incidents"])
        assert set(row["decision"]) == {"raised", "level", "why"}
    assert found[0]["decision"]["raised"]
    assert found[0]["technique"] in ("T1110.003", "T1110.004")
    assert found[0]["size"] > 10
    _, text, _ = streamguard("replay", table, "--top", "1")
    assert text.startswith(" SCORE  RAISED")
    assert "tried: " in text and f"... and {len(found) - 1} more" in text
    assert "above the floor (18.0 bits)" in text and "usual: " in text
    assert max(map(len, text.splitlines())) <= 100
    settings = tmp_path / "settings.toml"
    settings.write_text("[detection]\nfloor_bits = 100.0\nincidents_per_day = 0.5\n")
    _, _, err = streamguard("replay", table, "--config", settings)
    busy = sum(row["score"] >= 100.0 for row in found)
    assert f"{busy} raised" in err
    assert ("warning: more rows were raised than 0.5 a day" in err) == (busy > 0)


def test_replay_json_prints_one_incident_per_line_worst_first(table: Path) -> None:
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
    assert f"1,160 events, {len(incidents)} incidents in " in err
    assert err.splitlines()[0].endswith("raised, no row refused")


def test_file_stdin_jsonl_and_csv_give_the_same_incidents(table: Path, lines: Path) -> None:
    def found(*arguments: object, stdin: bytes = b"") -> list[dict[str, Any]]:
        code, out, _ = streamguard("replay", *arguments, "--json", stdin=stdin)
        assert code == 0
        return [{**json.loads(line), "event": None} for line in out.splitlines()]

    expected = found(lines)
    assert expected
    assert found("-", stdin=lines.read_bytes()) == expected
    assert found(table) == expected
    assert found("-", "--format", "csv", stdin=table.read_bytes()) == expected
    assert found(lines, "--partitions", 4) != expected


def test_table_of_incidents_shows_severity_reasons_and_the_number_of_hidden_ones(table: Path) -> None:
    code, out, _ = streamguard("replay", table, "--by", "incident", "--top", 1)
    assert code == 0
    assert out.startswith("  BITS   RISK  SEVERITY  EVENTS  FIRST SEEN")
    assert "critical" in out
    assert "usual:" in out
    assert "bits" in out
    assert "more: --top 0 and --json show all" in out


def test_table_contains_no_control_characters_of_events(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    renamed = [dict(row, source_ip=row["source_ip"] + "\x1b[2J") for row in rows]
    _, out, _ = streamguard("replay", logins.write_csv(tmp_path / "a.csv", renamed), "--top", 0)
    assert logins.ATTACKER in out
    assert "\x1b" not in out


def test_output_option_writes_a_file(table: Path, tmp_path: Path) -> None:
    code, out, _ = streamguard("replay", table, "--output", tmp_path / "incidents.jsonl")
    assert (code, out) == (0, "")
    written = (tmp_path / "incidents.jsonl").read_text()
    assert written == streamguard("replay", table, "--json")[1]
    code, _, err = streamguard("replay", table, "--output", tmp_path / "missing" / "incidents.jsonl")
    assert code == 73
    assert "cannot write" in err


def test_fail_on_exits_with_1_from_the_given_severity(
    table: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    assert streamguard("replay", table, "--fail-on", "critical")[0] == 1
    assert streamguard("replay", table, "--fail-on", "low")[0] == 1
    quiet = logins.write_csv(tmp_path / "quiet.csv", rows[:100])
    code, out, _ = streamguard("replay", quiet, "--fail-on", "low")
    assert (code, out) == (0, "no incidents\n")


def test_refused_rows_are_counted_and_the_first_ones_printed(lines: Path, tmp_path: Path) -> None:
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
    assert err.count("refused row") == 5 + 3  # the first five, and the first one of each other reason
    for reason in ("not_json", "bad_timestamp", "missing_field", "missing_user", "timestamp_out_of_range"):
        assert re.search(rf"refused row .*: {reason}: ", err), reason
    assert "1,162 events" in err
    assert "13 of 1,175 rows refused" in err
    assert "timestamp_out_of_range 2" in err
    assert "missing_user 1" in err
    assert "refused as timestamp_out_of_range: user a 2\n" in err
    assert "1 event repaired (user: converted 1)" in err
    assert "understood: status " in err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["gone.jsonl"], 65, "cannot read gone.jsonl: No such file or directory"),
        (["gone.txt"], 65, "must end in"),
        (["-", "--map", "user"], 2, "FIELD=COLUMN"),
        (["-", "--map", "user=account"], 65, "--map is for CSV and Parquet"),
        (["-", "--format", "csv"], 65, "is empty"),
        (["-", "--model", "a", "--registry", "b"], 2, "give only one of them"),
        (["-", "--registry", "nowhere"], 78, "the registry has no current version"),
        (["-", "--model", "nowhere"], 78, "nowhere"),
        (["-", "--fail-on", "terrible"], 2, "terrible"),
        (["-", "--config", "gone.toml"], 78, "cannot read the settings file"),
    ],
)
def test_unusable_input_ends_with_an_exit_code_and_a_message(
    arguments: list[str], exit_code: int, message: str
) -> None:
    code, out, err = streamguard("replay", *arguments)
    assert (code, out) == (exit_code, "")
    assert message in err


def test_file_without_a_valid_event_is_an_error_but_an_empty_file_is_not() -> None:
    code, _, err = streamguard("replay", "-", stdin=b"2024-05-01 12:00:00 sshd[7]: Failed password\n")
    assert code == 65
    assert "no row is a valid event: 1 row refused" in err
    assert streamguard("replay", "-", stdin=b"")[:2] == (0, "no incidents\n")


def test_replay_scores_with_the_forest_of_a_registry_or_directory(table: Path, tmp_path: Path) -> None:
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
        assert (code, out) == (78, "")
        assert re.search("is not signed|not signed, but a key is set", err)


def test_alert_threshold_is_read_from_the_settings_file(table: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[detection]\nalert_risk = 99.9\n")
    code, out, _ = streamguard("replay", table, "--config", tmp_path / "settings.toml")
    assert (code, out) == (0, "no incidents\n")


def test_refused_rows_are_listed_by_user_and_source_without_control_characters(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """In `replay` and `evaluate` alike, and in the JSON of `evaluate`."""
    bad = [
        dict(rows[0], timestamp="yesterday", user=user, source_ip=source, is_attack=0)
        for user, source in (("eve\x1b[2J", "10.9.9.9"), ("eve\x1b[2J", "10.9.9.8"), ("", "10.9.9.9"))
    ]
    table = logins.write_csv(tmp_path / "a.csv", [*rows, *bad])
    line = "refused as bad_timestamp: user eve�[2J 2; source 10.9.9.9 2, 10.9.9.8 1"
    assert line in streamguard("replay", table)[2].splitlines()
    assert line in streamguard("evaluate", table)[1].splitlines()
    assert json.loads(streamguard("evaluate", table, "--json")[1])["refusals"] == {
        "bad_timestamp": {"number": 3, "users": {"eve�[2J": 2}, "sources": {"10.9.9.9": 2, "10.9.9.8": 1}}
    }


def test_evaluate_json_has_every_metric(table: Path) -> None:
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


def test_evaluate_reads_labels_from_a_separate_file(
    lines: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    labels = logins.write_labels(tmp_path / "labels.jsonl", rows)
    code, out, err = streamguard("evaluate", lines, "--labels", labels)
    assert code == 0, err
    assert "verdict" in out
    assert "2 of 2 caught" in out
    assert "no row refused" in out
    code, _, err = streamguard("evaluate", lines)
    assert code == 65
    assert "no event has a label 'is_attack'" in err


def test_evaluate_with_column_mapping_and_without_campaigns(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
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
    assert code == 65
    assert "no column 'gone'" in err


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "replay", "evaluate"])
def test_standard_output_on_a_full_disk_is_a_one_line_error(
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
    assert done.returncode == 73
    assert done.stderr.decode() == (
        "Error: cannot write the output: No space left on device; free disk space, or choose another place\n"
    )


def test_evaluate_sweeps_over_floors_and_draws_the_curve(table: Path, tmp_path: Path) -> None:
    page = tmp_path / "sweep.html"
    code, out, _ = streamguard("evaluate", table, "--sweep", "--output", page)
    assert code == 0
    assert "2 of 2 campaigns raised" in out
    assert re.search(r"^\S+ +c1 +yes", out, re.MULTILINE)
    assert re.search(r"^ 18.0 .* 2 of 2  <- detection.floor_bits$", out, re.MULTILINE)
    assert "<svg" in page.read_text()
    code, out, _ = streamguard("evaluate", table, "--sweep", "--json")
    ranked = json.loads(out)["ranked"]
    assert ranked["measures"]["caught"] == ranked["measures"]["total"] == 2
    assert len(ranked["points"]) > 10
    caught = [point["caught"] for point in ranked["points"]]
    assert caught == sorted(caught, reverse=True)
    code, _, err = streamguard("evaluate", table, "--output", page)
    assert (code, "add --sweep" in err) == (2, True)
    code, _, err = streamguard("evaluate", table, "--sweep", "--output", tmp_path / "missing" / "a.html")
    assert (code, "cannot write" in err) == (73, True)
