"""`streamguard users` and `incidents events`, and that texts of attackers come out of every table harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity, Incident, encode
from streamguard.campaigns.sighting import HOUR
from streamguard.cli.main import main
from streamguard.errors import ExitCode
from streamguard.runs.report import PeerGroup, Trait
from streamguard.serving.commands import (
    incident_events,
    incident_mute,
    incident_table,
    incident_words,
    user_table,
    user_words,
)
from streamguard.serving.commands.incidents import command as incidents_command
from streamguard.serving.commands.terminal import columns
from streamguard.serving.commands.users import command as users_command
from streamguard.serving.commands.week import week
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.query.answers import IncidentRow, RankedUser, RankedUsers
from streamguard.serving.query.events import IncidentEvent
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.mutes import MutePreview
from streamguard.serving.query.totals import Totals
from streamguard.serving.query.users import TimelineEntry, UserAnswer
from streamguard.serving.replica.profile import DecisionInForce, UserProfile, Usual, ValueShare
from streamguard.serving.results.comparison import Comparison
from streamguard.serving.results.run_answers import BatchUserAnswer
from streamguard.serving.results.users import BatchUser, BatchUserDetail
from tests.serving_stores import filled, placed, queries
from tests.unit.test_campaigns import NOON, incident, lone, spray, users_of
from tests.unit.test_serving_replica_profile import after, encoded, known, work

HOSTILE = (
    "\x1b[31m\u202e\x9b2J\r\n\u200b\u2066=cmd|calc\x07\x1b]0;title\x07"
    + "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 60
)
WIDTHS = (40, 60, 80, 200)


def found() -> list[Incident]:
    """A spray that enters an account, and incidents of single users; ann has two."""
    return [
        *spray(NOON, users_of(6), entered="user-000"),
        incident("ann", NOON + 30 * HOUR, {"resource": 9.0}, "exfiltration"),
        lone("ann", NOON + 40 * HOUR, bits=30.0),
        lone("bob", NOON + 60 * HOUR, bits=9.5),
    ]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "incidents.jsonl"
    placed_ones = [one.incident for one in placed(found())]
    path.write_bytes(b"".join(encode(one) + b"\n" for one in placed_ones))
    return str(path)


def run(*arguments: str, width: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(main, list(arguments))


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def plain(text: str) -> list[str]:
    """Lines of a text without the colours that the commands themselves print."""
    return re.sub(r"\x1b\[\d*m", "", text).split("\n")


def check(lines: Sequence[str], width: int) -> None:
    """Nothing in the lines acts on a terminal, and each fits."""
    for line in lines:
        assert line.isprintable(), repr(line)
        assert columns(line) <= width, (columns(line), line)


# Users


def test_users_are_ranked_as_the_api_ranks_them(file: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = filled(tmp_path / "store", placed(found()))
    totals = Totals(store, lambda: ())
    names = [one.entity.value for one in totals.ranked("user", 200).users]
    expected, sources = (
        json.loads(msgspec.json.encode(totals.ranked(kind, 200).users)) for kind in ("user", "source")
    )
    store.close()
    assert rows(run("users", "list", "--file", file, "--json")) == expected
    assert rows(run("users", "list", "--file", file, "--kind", "source", "--json")) == sources
    assert len(names) > 2
    high = ("users", "list", "--file", file, "--min", "high")
    last = run(*high, "--top", "1").stdout.splitlines()[-1]
    assert last.startswith(f"1 of {len(rows(run(*high, '--json')))} users,")
    none = run("users", "list", "--file", file, "--kind", "crowd", "--since", "2099-01-01").stdout
    assert none.startswith("0 of 0 crowds, ")
    table = run("users", "list", "--file", file, "--top", "2").stdout.splitlines()
    assert len(table) == 4 and names[0] in table[1]
    assert table[-1].startswith(f"2 of {len(names):,} users, the riskiest first; from ")


@pytest.mark.parametrize(
    "options",
    [
        ["--user", "ann", "--user", "bob"],
        ["--min", "high"],
        ["--since", "2025-01-08", "--until", "2030-01-01"],
        ["--status", "closed"],
    ],
    ids="-".join,
)
def test_filters_select_the_incidents_that_count(options: list[str], file: str) -> None:
    listed = rows(run("incidents", "list", "--file", file, "--all", "--json", *options))
    expected: dict[str, list[float]] = {}
    for one in listed:
        if one["entity"]["kind"] == "user":
            expected.setdefault(one["entity"]["value"], []).append(one["risk"])
    ranked = rows(run("users", "list", "--file", file, "--json", *options))
    assert {one["entity"]["value"]: one["incidents"] for one in ranked} == {
        name: len(risks) for name, risks in expected.items()
    }
    for one in ranked:
        ordered = sorted(expected[one["entity"]["value"]], reverse=True)
        score = sum(risk / k**1.5 for k, risk in enumerate(ordered, 1))
        assert one["score"] == pytest.approx(score, abs=0.06)


def test_user_of_a_file_has_incidents_and_says_what_is_missing(file: str) -> None:
    (shown,) = rows(run("users", "show", "ann", "--file", file, "--json"))
    assert len(shown["incidents"]) == 2 and shown["profiles"] == []
    text = run("users", "show", "ann", "--file", file).stdout
    assert "a file of incidents does not have it" in text.replace("\n", " ")
    assert all(one["id"] in text for one in shown["incidents"])
    missing = run("users", "show", "nobody", "--file", file)
    assert missing.exit_code == ExitCode.DATA_ERROR
    assert "no incident of a user 'nobody'" in missing.stderr and "`streamguard users list`" in missing.stderr


def test_timeline_is_filtered_and_bounded(file: str) -> None:
    entries = rows(run("users", "timeline", "ann", "--file", file, "--json"))
    assert [one["at"] for one in entries] == sorted((one["at"] for one in entries), reverse=True)
    assert len(entries) == 2
    later = entries[0]["at"]
    assert rows(run("users", "timeline", "ann", "--file", file, "--json", "--since", later)) == entries[:1]
    assert rows(run("users", "timeline", "ann", "--file", file, "--json", "--until", later)) == entries[1:]
    critical = rows(run("users", "timeline", "ann", "--file", file, "--json", "--min", "critical"))
    assert critical == [one for one in entries if one["severity"] == "critical"]
    assert len(critical) == 1
    table = run("users", "timeline", "ann", "--file", file, "--top", "1").stdout.splitlines()
    assert len(table) == 3 and table[-1].startswith("1 of 2 entries; from ")
    assert run("users", "timeline", "nobody", "--file", file).stdout.startswith("0 of 0 entries")


def profile() -> UserProfile:
    """What is usual for a person after nine days of work."""
    return known(after(list(encoded(work(seed=1)))))


def batch_user(name: str, **fields: Any) -> BatchUser:
    values: dict[str, Any] = {
        "user": name, "partition": 0, "total_events": 410, "unique_ips": 3, "unique_locations": 2,
        "avg_threat_score": 0.1, "max_threat_score": 0.4, "failed_auth_rate": 0.025, "unusual_hour_rate": 0.1,
        "first_seen": "2025-01-06T08:00:00.000Z", "last_seen": "2025-01-14T17:00:00.000Z", "peer_group": 2,
        "peer_distance": 1.5, "peer_bits": 0.5, "small_group": False, "evidence_bits": 4.2, "risk": 12.0,
        "is_anomaly": True,
    }  # fmt: skip
    return BatchUser(**{**values, **fields})


def answer(one: UserProfile, listed: Sequence[IncidentRow] = (), text: str = "") -> UserAnswer:
    """All that can be known about a user; `text` is in each free text."""
    batch = BatchUserAnswer(
        as_of=AsOf("20250115T000000Z-aaaaaa", (), 3_600_000),
        entries=(BatchUserDetail(batch_user(one.user), ()),),
        groups=(PeerGroup(2, 41, 1, False, 1.0, [Trait("night_share", 0.4, 2.5)]),),
        why=(f"more failures than its peers {text}",),
    )
    compared = Comparison("age", "live", 12, 10, f"the speed layer is 12 offsets ahead {text}")
    return UserAnswer(
        one.user, (one,), "", batch, "", (compared,), tuple(listed), (AsOf("security-alerts", (), 420),)
    )


def test_user_in_words_has_what_is_usual_and_both_layers_beside_each_other() -> None:
    one = profile()
    text = user_words.words(answer(one), 100)
    for usual in one.usual:
        for value in usual.values:
            assert f"{value.value} {value.share:.0%}" in text
    assert f"{one.events:,} events on {one.active_days} days" in text
    lines = text.splitlines()
    (events,) = (line.split() for line in lines if line.strip().startswith("events  "))
    assert events[1:] == [f"{one.events:,}", "410"]
    for part in (
        "2.5% of logins", "group 2, 0.5 bits", "4.2 bits, at risk", "peer group 2: 41 users, 1 at risk",
        "night share +2.5", "why: more failures", "age: the speed layer is 12 offsets ahead",
        "security-alerts: 0.4 s old",
        "run 20250115T000000Z-aaaaaa, partition 0", one.hours.words,
    ):  # fmt: skip
        assert part in " ".join(text.split()), part
    picture = [line for line in lines if line.startswith(("  Mon", "  Sun"))]
    assert len(picture[0]) == len(picture[1]) == 31


def test_what_is_missing_is_said() -> None:
    one = profile()
    nothing = UserAnswer(
        "ann", (), "the replica is still being read", None, "no run: run `streamguard retrain`", (), (), ()
    )
    text = " ".join(user_words.words(nothing, 80).split())
    assert "The profile is not known now: the replica is still being read." in text
    assert "batch: no run: run `streamguard retrain`" in text and "Incidents none" in text
    twice = msgspec.structs.replace(answer(one), profiles=(one, msgspec.structs.replace(one, partition=1)))
    assert "2 partitions have events of this user" in user_words.words(twice, 100)


def test_picture_of_the_week_shows_every_hour_that_has_events() -> None:
    shares = list(profile().hours.shares)
    shares[2] = 1e-5
    for blocks in (True, False):
        lines = list(week(shares, blocks))[1:]
        signs = "".join(line[7:] for line in lines)
        assert len(lines) == 7 and len(signs) == 168
        empty = "\N{MIDDLE DOT}" if blocks else "."
        assert [sign != empty for sign in signs] == [share > 0 for share in shares]
        fullest = max(range(168), key=shares.__getitem__)
        assert signs[fullest] == ("\N{FULL BLOCK}" if blocks else "@")
    assert all(line.isascii() for line in week(shares, blocks=False))
    assert {sign for line in list(week([0.0] * 168))[1:] for sign in line[7:]} == {"\N{MIDDLE DOT}"}


# Events


def test_events_of_a_file_are_those_of_its_publications(file: str) -> None:
    chosen = placed(found())[-2].incident
    (event,) = rows(run("incidents", "events", chosen.id, "--file", file, "--json"))
    assert (event["source"], event["event"], event["offset"]) == ("file", chosen.event, chosen.origin.offset)
    text = run("incidents", "events", chosen.id, "--file", file).stdout
    assert f"security-events 0:{chosen.origin.offset}  from file" in text
    assert "1 of 1 event" in text.splitlines()[-1]
    missing = run("incidents", "events", "9-9-9", "--file", file)
    assert missing.exit_code == ExitCode.DATA_ERROR
    assert "`streamguard incidents list --all` lists the ids" in missing.stderr


def test_event_that_cannot_be_shown_says_why() -> None:
    some = [
        IncidentEvent("events", 0, 7, "none", None, "partition 0, offset 7: Kafka has deleted it"),
        IncidentEvent("events", 0, 5, "archive", {"user": "ann"}, ""),
        IncidentEvent("events", 0, 4, "kafka", ["x"] * 1000, ""),
    ]
    lines = incident_events.text(some, None, 80)
    assert "Kafka has deleted it" in lines[1]
    assert json.loads("".join(lines[3:6])) == {"user": "ann"}
    assert lines[-2].strip() == "... 802 more lines: --json shows all"
    assert incident_events.text(some, 1, 80)[-1] == "1 of 3 events"


# Texts of attackers


def hostile_profile(one: UserProfile, text: str) -> UserProfile:
    return msgspec.structs.replace(
        one,
        user=text,
        usual=(Usual("source", (ValueShare(text, 1.0, 5.0),), ValueShare(text, 0.1, 1.0), 0.0),),
        unusual_now=(f"Source {text} is under suspicion",),
        decisions=(DecisionInForce("ab", "expected", "command", text, None),),
    )


def hostile_incident(text: str) -> Incident:
    return msgspec.structs.replace(
        lone("mallory", NOON, bits=25.0),
        entity=Entity("user", text),
        reasons=(Reason(text[:100], text, text, 12.0, 1.0),),
        event={"user": text, "x": [text]},
    )


def texts(text: str, one: UserProfile, row: IncidentRow, shown: Any, width: int) -> Iterator[str]:
    """Everything that the commands print about things that are called `text`, without JSON of events."""
    row = msgspec.structs.replace(
        row, entity=Entity("user", text), reasons=(Reason(text, text, text, 12.0, 1.0),), assignee=text
    )
    yield from incident_table.table([row], width)
    yield incident_table.change_line(row, "new", width)
    ranked = RankedUser(Entity("user", text), 80.0, 3, 1, "high", "2025-01-06T08:00:00.000Z")
    yield from user_table.ranking(RankedUsers((ranked,), 1, ()), width, text)
    entry = TimelineEntry("2025-01-06T08:00:00.000Z", text, text, 12.0, "high", text)
    yield from user_table.timeline([entry], None, (), width, text)
    yield from incident_events.text([IncidentEvent(text, 0, 7, text, None, text)], None, width)
    yield from user_words.words(answer(hostile_profile(one, text), [row], text), width).split("\n")
    preview = MutePreview(text, "2025-01-13T08:00:00.000Z", 2, 3, 1, 0, (text,), f"hides {text}", ())
    yield from incident_mute.preview_lines(msgspec.structs.replace(shown, row=row), preview, width)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[UserProfile, IncidentRow, Any]:
    store = filled(tmp_path_factory.mktemp("store"), placed([found()[-1]]))
    asked = queries(store)
    (row,) = asked.page(IncidentFilter()).incidents
    shown = asked.incident(row.id)
    store.close()
    return profile(), row, shown


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "text",
    [HOSTILE, "", " ", "\t" * 300, HOSTILE * 20_000],
    ids=["hostile", "empty", "blank", "tabs", "long"],
)
def test_tables_fit_and_texts_are_harmless(
    text: str, width: int, sample: tuple[UserProfile, IncidentRow, Any]
) -> None:
    check(plain("\n".join(texts(text, *sample, width))), width)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400), width=st.integers(40, 200))
def test_any_text_is_harmless_at_any_width(
    text: str, width: int, sample: tuple[UserProfile, IncidentRow, Any]
) -> None:
    one, row, shown = sample
    check(plain("\n".join(texts(text, one, row, shown, width))), width)


def test_commands_print_hostile_incidents_harmlessly_and_json_has_the_text(tmp_path: Path) -> None:
    hostile = placed([hostile_incident(HOSTILE)])[0].incident
    file = tmp_path / "incidents.jsonl"
    file.write_bytes(encode(hostile) + b"\n")
    for arguments in (
        ["incidents", "list", "--all"],
        ["incidents", "show", hostile.id],
        ["incidents", "events", hostile.id],
        ["users", "list"],
        ["users", "show", HOSTILE],
        ["users", "timeline", HOSTILE],
    ):
        result = run(*arguments, "--file", str(file))
        assert result.exit_code == 0, result.output
        assert all(line.isprintable() for line in result.stdout.split("\n")), arguments
        assert "calc" in result.stdout, arguments
    (listed,) = rows(run("users", "list", "--file", str(file), "--json"))
    assert listed["entity"]["value"] == HOSTILE
    unknown = run("users", "show", HOSTILE + "x", "--file", str(file))
    assert unknown.exit_code == ExitCode.DATA_ERROR
    assert all(line.isprintable() for line in unknown.stderr.split("\n"))


def test_long_texts_of_an_incident_are_bounded(tmp_path: Path) -> None:
    store = filled(tmp_path, placed([hostile_incident("x" * 200_000)]))
    shown = queries(store).incident(hostile_incident("").id)
    store.close()
    above = incident_words.words(shown, 80).partition("\n{")[0]
    assert len(above) < 10_000


# Help


@pytest.mark.parametrize(
    ("group", "name"),
    [
        *(("incidents", name) for name in sorted(incidents_command.commands)),
        *(("users", name) for name in sorted(users_command.commands)),
        ("incidents", ""),
        ("users", ""),
    ],
)
def test_help_has_examples_that_parse(group: str, name: str) -> None:
    text = run(group, *([name] if name else []), "--help", width=200).stdout
    examples = re.findall(r"^ +(streamguard .*)$", text[text.index("Examples:") :], re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        words = example.partition(" | ")[0].split()
        if words[1] in ("incidents", "users"):
            chosen: click.Command = {"incidents": incidents_command, "users": users_command}[words[1]]
            assert isinstance(chosen, click.Group)
            assert words[2] in chosen.commands
            known_options = {option for one in chosen.commands[words[2]].params for option in one.opts}
            assert {word for word in words if word.startswith("--")} <= known_options
