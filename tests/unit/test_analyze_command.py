"""`streamguard analyze --file`: verdicts, similar incidents, refused lines, and text that must not reach a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from click.testing import CliRunner, Result

from streamguard.agents.analyses.analyst import MAX_UPDATES, History
from streamguard.alerts.incident import Incident, encode
from streamguard.analyst import rules
from streamguard.analyst.analysis import decode
from streamguard.analyst.knowledge import STEPS
from streamguard.campaigns.sighting import HOUR
from streamguard.cli.main import main
from streamguard.limits import MAX_INCIDENT_BYTES
from tests.unit.test_campaigns import NOON, lone, spray


def written(directory: Path, *lines: bytes) -> Path:
    file = directory / "incidents.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return file


def analyze(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["analyze", *map(str, arguments)])


def later(one: Incident) -> Incident:
    return msgspec.structs.replace(one, count=one.count + 1)


def test_latest_update_of_each_incident_is_analysed_and_similar_ones_are_earlier(tmp_path: Path) -> None:
    first, second = lone("ann", NOON), lone("ben", NOON + HOUR)
    file = written(tmp_path, encode(second), encode(later(first)), encode(first))
    result = analyze("--file", file, "--json")
    assert result.exit_code == 0, result.output
    one, other = (decode(line.encode()) for line in result.stdout.splitlines())
    assert (one.incident_id, one.revision, one.similar) == (first.id, first.count + 1, ())
    assert (other.incident_id, other.revision) == (second.id, second.count)
    assert [like.incident_id for like in other.similar] == [first.id]
    asked = analyze("--file", file, "--json", "--incident", second.id)
    assert decode(asked.stdout.encode()).similar == other.similar
    alone = rules.analyse(later(first), (first,))
    assert (one.verdict, one.rule, one.claims) == (alone.verdict, alone.rule, alone.claims)


def test_text_names_verdict_facts_and_steps_of_the_incident_asked_for(tmp_path: Path) -> None:
    entered, other, *_ = spray(NOON, ["ann", "ben"], entered="ann")
    result = analyze("--file", written(tmp_path, encode(entered), encode(other)), "--incident", entered.id)
    assert result.exit_code == 0, result.output
    expected = rules.analyse(entered)
    assert result.stdout.startswith(f"{entered.id}  {expected.verdict}, ")
    assert expected.rule in result.stdout
    assert all(fact.id in result.stdout for fact in expected.facts)
    assert all(STEPS[id].text in result.stdout for id in expected.next_steps)
    assert other.id not in result.stdout


def test_lines_that_are_no_incidents_are_named_and_counted(tmp_path: Path) -> None:
    long = b"[" * (3 * MAX_INCIDENT_BYTES)
    one = lone("ann", NOON)
    result = analyze("--file", written(tmp_path, b"[]", long, encode(one)), "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["incident_id"] for line in result.stdout.splitlines()] == [one.id]
    assert "line 1: the line is passed over, because it is not valid" in result.stderr
    assert "line 2: the line is passed over, because it is larger" in result.stderr
    assert "2 lines passed over" in result.stderr


def test_control_characters_of_an_attacker_do_not_reach_the_terminal(tmp_path: Path) -> None:
    one = lone("ann\x1b]0;owned\x07\u202e", NOON)
    result = analyze("--file", written(tmp_path, encode(one)))
    assert result.exit_code == 0, result.output
    assert "ann" in result.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(result.output)


def test_file_without_the_incident_is_an_error_of_the_data(tmp_path: Path) -> None:
    file = written(tmp_path, encode(lone("ann", NOON)))
    result = analyze("--file", file, "--incident", "1-2-3")
    assert result.exit_code == 65
    assert "no incident '1-2-3'" in result.stderr
    assert analyze("--file", tmp_path / "absent").exit_code == 65
    assert analyze().exit_code == 2


def test_updates_that_are_held_are_bounded_and_the_latest_one_stays() -> None:
    one, history = lone("ann", NOON), History()
    for count in (MAX_UPDATES * 3, *range(1, MAX_UPDATES * 3)):
        history.add(msgspec.structs.replace(one, count=count))
    (analysis,) = history.analyses()
    assert analysis.revision == MAX_UPDATES * 3
