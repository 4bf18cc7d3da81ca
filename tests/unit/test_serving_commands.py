"""`streamguard incidents` over files and servers, and `streamguard keys`: what they print, and how they end."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity, Incident, PatternMatch, encode
from streamguard.campaigns.budget import decide
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.sighting import HOUR
from streamguard.cli.main import main
from streamguard.errors import DataError, ExitCode
from streamguard.serving.api import keys
from streamguard.serving.commands import from_server, incident_table, progress, terminal
from streamguard.serving.commands.connection import RefusedError
from streamguard.serving.commands.from_server import Server, parameters
from streamguard.serving.commands.incident_words import words
from streamguard.serving.commands.watching import MAX_KNOWN, Watch
from streamguard.serving.query.answers import IncidentAnswer, IncidentRow
from streamguard.serving.query.filters import IncidentFilter
from tests.serving_stores import filled, placed, queries
from tests.unit.test_campaigns import NOON, incident, lone, spray, users_of

HOSTILE = "\x1b[31m\u202e\x9b2J\r\n\u200bcalc" + "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 60
KEY = "sg_" + "k" * 32


def hostile() -> Incident:
    """An incident of which every text is an attacker's."""
    return msgspec.structs.replace(
        lone("mallory", NOON, bits=25.0),
        entity=Entity("user", HOSTILE),
        technique=HOSTILE[:20],
        patterns=(PatternMatch(HOSTILE[:100], HOSTILE[:20], HOSTILE),),
        reasons=(Reason(HOSTILE[:100], HOSTILE, HOSTILE, 12.0, 1.0),),
        event={"user": HOSTILE, HOSTILE: [HOSTILE]},
        repaired=(HOSTILE,),
    )


def found() -> list[Incident]:
    """A spray that enters an account, and incidents of single users."""
    return [
        *spray(NOON, users_of(6), entered="user-000"),
        incident("ann", NOON + 30 * HOUR, {"resource": 12.0, "hour": 9.0}, "exfiltration"),
        lone("bob", NOON + 60 * HOUR, bits=9.5),
    ]


def raised(incidents: Sequence[Incident]) -> int:
    """Campaigns and lone incidents that are raised."""
    return sum(one.raised for one in decide(campaigns(incidents)).values())


def written(path: Path, incidents: Sequence[Incident], *others: bytes) -> str:
    """A file as `streamguard replay --json` writes it, with other lines at its end."""
    path.write_bytes(b"".join(line + b"\n" for line in [*map(encode, incidents), *others]))
    return str(path)


def run(*arguments: str, width: int = 80, given: bytes | None = None, **environ: str) -> Result:
    """Run a command of `streamguard`."""
    return CliRunner(env={"COLUMNS": str(width), **environ}).invoke(main, list(arguments), input=given)


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(tmp_path / "incidents.jsonl", found())


def answer(tmp_path: Path, incident: Incident) -> IncidentAnswer:
    store = filled(tmp_path, placed([incident]))
    try:
        return queries(store).incident(incident.id)
    finally:
        store.close()


def test_list_shows_raised_rows_and_all_shows_every_incident(file: str) -> None:
    some = rows(run("incidents", "list", "--file", file, "--json"))
    everything = rows(run("incidents", "list", "--file", file, "--json", "--all"))
    assert len(some) == raised(found()) == 2
    assert all(row["raised"] for row in some)
    assert {row["id"] for row in everything} == {one.id for one in found()}
    (led,) = [row for row in some if row["campaign"]]
    assert (led["campaign_incidents"], led["entered"]) == (7, 1)
    bits = [row["evidence_bits"] for row in everything]
    assert bits == sorted(bits, reverse=True)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--user", "ann"], lambda one: one.entity.value == "ann"),
        (["--user", "ann", "--user", "bob"], lambda one: one.entity.value in ("ann", "bob")),
        (["--min", "high"], lambda one: one.severity in ("high", "critical")),
        (["--severity", "medium"], lambda one: one.severity == "medium"),
        (["--pattern", "exfiltration"], lambda one: any(p.name == "exfiltration" for p in one.patterns)),
        (["--technique", "T1110.003"], lambda one: any(p.technique == "T1110.003" for p in one.patterns)),
        (["--text", "exfil"], lambda one: any(p.name == "exfiltration" for p in one.patterns)),
        (["--status", "closed"], lambda one: False),
        (["--since", "2025-01-07T12:00Z", "--until", "2025-01-08"], None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_filters_select_what_plain_python_selects(
    options: list[str], wanted: Callable[[Incident], bool] | None, file: str
) -> None:
    if wanted is None:
        since, until = found()[-2].last_seen, found()[-1].last_seen
        options = ["--since", since, "--until", until]
        wanted = lambda one: since <= one.last_seen < until  # noqa: E731
    listed = rows(run("incidents", "list", "--file", file, "--all", "--json", *options))
    assert {row["id"] for row in listed} == {one.id for one in found() if wanted(one)}
    if "closed" not in options:
        assert 0 < len(listed) < len(found())


def test_order_and_number_of_rows(file: str) -> None:
    latest = rows(run("incidents", "list", "--file", file, "--all", "--json", "--sort", "time"))
    times = [row["last_seen"] for row in latest]
    assert times == sorted(times, reverse=True)
    assert len(rows(run("incidents", "list", "--file", file, "--all", "--json", "--top", "3"))) == 3
    table = run("incidents", "list", "--file", file, "--all", "--top", "3").stdout
    assert f"3 of {len(found())} incidents" in table.splitlines()[-1]


def test_more_rows_than_a_page_has(tmp_path: Path) -> None:
    many = [lone(f"user-{k}", NOON + k, bits=4.0 + k / 100) for k in range(450)]
    file = written(tmp_path / "many.jsonl", many)
    assert len(rows(run("incidents", "list", "--file", file, "--all", "--json"))) == 450
    assert len(rows(run("incidents", "list", "--file", file, "--all", "--json", "--top", "201"))) == 201
    table = run("incidents", "list", "--file", file, "--all", "--top", "0").stdout.splitlines()
    assert sum(line.startswith(("low", "medium")) for line in table) == 450


@pytest.mark.parametrize("width", [60, 80, 200])
def test_table_fits_the_terminal(width: int, tmp_path: Path) -> None:
    long = msgspec.structs.replace(lone("x" * 300, NOON, bits=30.0), id="9" * 150)
    file = written(tmp_path / "incidents.jsonl", [*found(), hostile(), long])
    table = run("incidents", "list", "--file", file, "--all", width=width)
    assert table.exit_code == 0, table.output
    lines = table.stdout.splitlines()
    assert max(map(terminal.columns, lines)) <= width
    for one in found():
        assert any(one.id in line and f"{one.evidence_bits:.1f}" in line for line in lines), one.id
    shown = "\n".join(lines)
    assert "user ann" in shown and "exfiltration" in shown and "1 account entered" in shown
    assert lines[-1].startswith(f"{len(found()) + 2} of {len(found()) + 2} incidents; from ")


def test_texts_of_an_attacker_are_harmless(tmp_path: Path) -> None:
    file = written(tmp_path / "incidents.jsonl", [hostile()])
    listed = run("incidents", "list", "--file", file)
    shown = run("incidents", "show", hostile().id, "--file", file)
    for result in (listed, shown):
        assert result.exit_code == 0, result.output
        assert "calc" in result.stdout
        assert all(line.isprintable() for line in result.stdout.split("\n")), result.stdout
    for line in rows(run("incidents", "list", "--file", file, "--json")):
        assert line["entity"]["value"] == HOSTILE  # programs have the text itself


@given(st.text(), st.integers(1, 60))
def test_fitted_text_fits_and_keeps_what_fits(text: str, width: int) -> None:
    cut = terminal.fitted(text, width)
    assert terminal.columns(cut) <= width and cut.isprintable()
    if terminal.columns(text) <= width and text.isprintable():
        assert cut == text


def test_incident_in_words_has_what_json_has(tmp_path: Path) -> None:
    file = written(tmp_path / "incidents.jsonl", found())
    (led,) = [row for row in rows(run("incidents", "list", "--file", file, "--json")) if row["campaign"]]
    shown = run("incidents", "show", led["id"], "--file", file).stdout
    given = json.loads(run("incidents", "show", led["id"], "--file", file, "--json").stdout)
    assert given["incident"]["id"] == led["id"]
    assert f"{given['incident']['evidence_bits']:.1f} bits" in shown
    assert "7 incidents of one attack" in shown and "entered: user-000" in shown
    for user in users_of(6):
        assert user in shown
    for reason in given["incident"]["reasons"]:
        assert f"{reason['bits']:5.1f} bits  {reason['feature'].replace('_', ' ')}" in shown
    assert len(given["updates"]) == 1
    event = shown[shown.index("\n{\n") : shown.rindex("}") + 1]
    assert json.loads(event) == given["incident"]["event"]


def test_course_names_every_publication(tmp_path: Path) -> None:
    first = lone("ann", NOON, bits=20.0)
    risen = msgspec.structs.replace(first, count=4, evidence_bits=26.5)
    (tmp_path / "store").mkdir()
    store = filled(tmp_path / "store", placed([first, risen]))
    text = words(queries(store).incident(first.id), 80)
    store.close()
    course = text[text.index("Course") : text.index("Event")].splitlines()[1:3]
    assert "1 alert " in course[0] and "20.0 bits" in course[0]
    assert "4 alerts " in course[1] and "26.5 bits" in course[1]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_incident_in_words_fits_the_terminal_except_its_event(width: int, tmp_path: Path) -> None:
    for number, one in enumerate((hostile(), found()[0])):
        text = words(answer(tmp_path / str(number), one), width)
        above = re.sub(r"\x1b\[\d+m", "", text[: text.index("\n{")])
        assert max(map(terminal.columns, above.splitlines())) <= width


def test_standard_input_is_read(tmp_path: Path) -> None:
    text = b"".join(encode(one) + b"\n" for one in found())
    listed = run("incidents", "list", "--file", "-", "--json", "--all", given=text)
    assert len(rows(listed)) == len(found())


def test_lines_that_are_no_incidents_are_named_and_counted(tmp_path: Path) -> None:
    wrong = [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"id": 7}', b"", b"x" * (5 << 20), b"{}", b"{}"]
    file = written(tmp_path / "incidents.jsonl", found(), *wrong)
    listed = run("incidents", "list", "--file", file, "--json", "--all")
    assert len(rows(listed)) == len(found())
    assert f"refused line {len(found()) + 1} of {file}: it is not valid" in listed.stderr
    assert "it is larger than" in listed.stderr
    assert listed.stderr.count("refused line ") == 6  # five, and the first one of another reason
    assert "8 lines refused" in listed.stderr


def test_line_without_an_end_after_a_long_one_is_read(tmp_path: Path) -> None:
    file = tmp_path / "incidents.jsonl"
    file.write_bytes(b"x" * (13 << 20) + b"\n" + encode(found()[0]))
    listed = run("incidents", "list", "--file", str(file), "--json", "--all")
    assert [row["id"] for row in rows(listed)] == [found()[0].id]
    assert "1 line refused" in listed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["list", "--file", "none.jsonl"], ExitCode.DATA_ERROR, "cannot read none.jsonl"),
        (["list", "--file", "wrong.jsonl"], ExitCode.DATA_ERROR, "streamguard replay --json"),
        (["show", "3-7-1", "--file", "empty.jsonl"], ExitCode.DATA_ERROR, "there is no incident '3-7-1'"),
        (["list", "--file", "empty.jsonl", "--min", "urgent"], ExitCode.USAGE, "--min"),
        (["list", "--min", "low", "--severity", "low"], ExitCode.USAGE, "give one of them"),
        (["list", *["--user", "a"] * 21], ExitCode.USAGE, "--user is given 21 times"),
        (["list", "--text", "x" * 300], ExitCode.USAGE, "a filter is not valid"),
        (["list", "--since", "soon"], ExitCode.USAGE, "is not a time"),
        (["list", "--file", "f", "--server", "http://h"], ExitCode.USAGE, "--server and --file"),
        (["list", "--file", "f", "--bootstrap-servers", "h:1"], ExitCode.USAGE, "different sources"),
        (["list", "--key-file", "f"], ExitCode.USAGE, "give --server, too"),
        (["watch", "--file", "empty.jsonl"], ExitCode.USAGE, "No such option"),
        (["list", "--server", "http://127.0.0.1:1"], ExitCode.CONFIGURATION, "STREAMGUARD_SERVE_KEY"),
        (["list", "--server", "http://h", "--key-file", "none"], ExitCode.DATA_ERROR, "cannot read none"),
        (["list", "--server", "ftp://h", "--key-file", "key"], ExitCode.DATA_ERROR, "not the address"),
        (["list", "--server", "http://a:b@h", "--key-file", "key"], ExitCode.DATA_ERROR, "a password"),
        (["list", "--server", "http://h", "--key-file", "empty.jsonl"], ExitCode.DATA_ERROR, "access key"),
        (["watch", "--server", "http://127.0.0.1:1", "--key-file", "key"], ExitCode.UNAVAILABLE, "refused"),
        (["list", "--bootstrap-servers", "127.0.0.1:1"], ExitCode.UNAVAILABLE, "127.0.0.1:1"),
    ],
    ids=lambda value: "-".join(value)[:50] if isinstance(value, list) else "",
)
def test_what_is_wrong_ends_the_command_with_a_code_and_a_reason(
    arguments: list[str], code: ExitCode, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    Path("wrong.jsonl").write_text("[]\n{}\n")
    Path("key").write_text(f"{KEY}\n")
    result = run("incidents", *arguments)
    assert result.exit_code == code, result.output
    assert reason in result.stderr
    assert "Traceback" not in result.output


def test_empty_file_has_no_incidents(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    listed = run("incidents", "list", "--file", str(tmp_path / "empty.jsonl"))
    assert listed.exit_code == 0
    assert listed.stdout.startswith("0 of 0 rows; from ")


def test_temporary_store_is_removed(file: str, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "streamguard.cli", "incidents", "list", "--file", file]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    )
    assert list((tmp_path / "tmp").iterdir()) == []


ABSENT = ("litestar", "litestar_offline_docs", "uvicorn", "jinja2", "duckdb")


@pytest.mark.parametrize(
    "arguments",
    [
        ["incidents", "list", "--file", "FILE"],
        ["users", "list", "--file", "FILE"],
        ["users", "show", "ann", "--file", "FILE"],
        ["keys", "list", "--file", "k"],
    ],
)
def test_commands_need_no_package_of_the_extra_serve(arguments: list[str], file: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        f"for name in {ABSENT}: sys.modules[name] = None\n"
        "from streamguard.cli.main import main\n"
        f"main({[file if one == 'FILE' else one for one in arguments]!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_kafka_and_server_sources_need_no_package_of_the_extra_serve() -> None:
    program = (
        "import sys\n"
        f"for name in {ABSENT}: sys.modules[name] = None\n"
        "import streamguard.serving.commands.from_server, streamguard.serving.commands.from_topics\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Watching


def row(id: str, bits: float, entered: int = 0, campaign: str | None = None) -> IncidentRow:
    return IncidentRow(
        id, Entity("user", "ann"), "high", 80.9, bits, "2025-01-06T08:00:00.000Z", "2025-01-06T09:00:00.000Z", 1,
        None, "none", (), (), "new", "", "", None, False, True, campaign, 1, entered,
    )  # fmt: skip


def test_watch_names_what_is_new_or_has_risen() -> None:
    watch = Watch()

    def compare(*rows: IncidentRow, grouped: bool = True) -> list[tuple[str, str]]:
        return [(sign, one.id) for sign, one in watch.compare(rows, grouped)]

    assert compare(row("a", 20.0), row("b", 21.0)) == [("new", "a"), ("new", "b")]
    assert compare(row("a", 20.0), row("b", 21.0)) == []
    assert compare(row("a", 20.04), row("b", 22.0)) == [("risen", "b")]
    assert compare(row("a", 20.0), row("b", 21.0)) == []
    assert compare(row("a", 20.0, entered=1), row("b", 22.0)) == [("risen", "a")]
    assert compare(row("c", 25.0, campaign="b"), row("d", 30.0, campaign="d")) == [
        ("risen", "c"),
        ("new", "d"),
    ]
    assert compare(row("c", 25.0, campaign="b"), grouped=False) == [("new", "c")]


def test_watch_remembers_a_bounded_number_of_rows() -> None:
    watch = Watch()
    assert len(list(watch.compare((row(str(k), 20.0) for k in range(MAX_KNOWN)), False))) == MAX_KNOWN
    assert list(watch.compare([row("0", 20.0), row("new", 20.0)], False)) == [("new", row("new", 20.0))]
    assert [one.id for _, one in watch.compare([row("0", 20.0), row("1", 20.0)], False)] == ["1"]


def test_line_of_a_change_fits_and_is_harmless(tmp_path: Path) -> None:
    store = filled(tmp_path, placed([hostile()]))
    (listed,) = queries(store).page(IncidentFilter()).incidents
    store.close()
    line = re.sub(r"\x1b\[\d+m", "", incident_table.change_line(listed, "new", 100))
    assert terminal.columns(line) <= 100 and line.isprintable()
    assert hostile().id in line


# A server


class Answers(ThreadingHTTPServer):
    """A server of HTTP that gives prepared answers, and notes what it was asked."""

    def __init__(self) -> None:
        self.prepared: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[tuple[str, str]] = []
        self.sent: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_POST(self) -> None:
        self.server.sent.append(
            (self.headers["Idempotency-Key"], self.rfile.read(int(self.headers["Content-Length"])))
        )
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        status, headers, body = self.server.prepared.pop(0)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def answers() -> Iterator[Answers]:
    server = Answers()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def problem(status: int, detail: str, kind: str = "about:blank") -> tuple[int, dict[str, str], bytes]:
    return status, {}, json.dumps({"status": status, "detail": detail, "type": kind}).encode()


@pytest.mark.parametrize(
    ("prepared", "code", "reason"),
    [
        (problem(401, "keys expire"), ExitCode.UNAVAILABLE, "refuses the access key: keys expire"),
        (problem(403, "the role"), ExitCode.UNAVAILABLE, "does not allow this: the role"),
        (problem(403, "a search", "/problems/masked"), ExitCode.DATA_ERROR, "refuses the question: a search"),
        (problem(404, "no incident", "/problems/not-found"), ExitCode.DATA_ERROR, "no incident"),
        (problem(404, "Not Found"), ExitCode.UNAVAILABLE, "check that it is the address"),
        (
            problem(409, "bea has done close", "/problems/conflict"),
            ExitCode.DATA_ERROR,
            "Error: bea has done",
        ),
        (problem(412, "it is 3", "/problems/precondition"), ExitCode.DATA_ERROR, "Error: it is 3"),
        (problem(501, "no key"), ExitCode.CONFIGURATION, "is not configured for this: no key"),
        (problem(400, "too long"), ExitCode.DATA_ERROR, "refuses the question: too long"),
        (problem(503, "being read"), ExitCode.TEMPORARY, "being read; try again later"),
        (problem(429, "too many"), ExitCode.TEMPORARY, "too many; try again later"),
        ((429, {"Retry-After": "3600"}, b""), ExitCode.TEMPORARY, "try again later"),
        (problem(500, "an unexpected error"), ExitCode.UNAVAILABLE, "500 (an unexpected error)"),
        ((502, {}, b"<html>\x1b[31m"), ExitCode.UNAVAILABLE, "502 (Bad Gateway)"),
        ((302, {"Location": "http://other/"}, b""), ExitCode.UNAVAILABLE, "redirects to http://other/"),
        ((200, {}, b"<html>"), ExitCode.DATA_ERROR, "does not know"),
        ((200, {}, b'{"incident": 7}'), ExitCode.DATA_ERROR, "does not know"),
        ((200, {}, b"[" * 100_000), ExitCode.DATA_ERROR, "does not know"),
        ((200, {"Content-Length": "99"}, b"{}"), ExitCode.UNAVAILABLE, "does not answer"),
        (problem(400, HOSTILE), ExitCode.DATA_ERROR, "refuses the question"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else None,
)
def test_errors_of_a_server_say_what_to_do(
    prepared: tuple[int, dict[str, str], bytes], code: ExitCode, reason: str, answers: Answers
) -> None:
    answers.prepared.append(prepared)
    result = run("incidents", "show", "3/7?1", "--server", answers.address, STREAMGUARD_SERVE_KEY=KEY)
    assert result.exit_code == code, result.output
    assert reason in result.stderr
    assert KEY not in result.output
    assert all(line.isprintable() for line in result.output.split("\n"))
    assert answers.asked == [("/v1/incidents/3%2F7%3F1", f"Bearer {KEY}")]


def test_redirect_is_not_followed(answers: Answers) -> None:
    """The key would go to an address that the person has not named."""
    answers.prepared += [(302, {"Location": f"{answers.address}/other"}, b""), (200, {}, b"{}")]
    assert (
        run("incidents", "show", "a", "--server", answers.address, STREAMGUARD_SERVE_KEY=KEY).exit_code != 0
    )
    assert len(answers.asked) == 1


def test_command_waits_as_long_as_the_server_asks(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(from_server.time, "sleep", waited.append)
    body = msgspec.json.encode(answer(tmp_path / "store", found()[0]))
    answers.prepared += [(429, {"Retry-After": "7"}, b"")] * 2 + [(200, {}, body)]
    (tmp_path / "key").write_text(KEY + "\n")
    shown = run(
        "incidents",
        "show",
        found()[0].id,
        "--server",
        answers.address,
        "--key-file",
        str(tmp_path / "key"),
        "--json",
    )
    assert json.loads(shown.stdout)["incident"]["id"] == found()[0].id
    assert waited == [7.0, 7.0]


def test_action_whose_answer_is_lost_is_repeated_as_the_same_action(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_server.time, "sleep", lambda _: None)
    body = msgspec.json.encode(answer(tmp_path / "store", found()[0]))
    late = problem(503, "ask again", "/problems/not-up-to-bound")
    answers.prepared += [late, (200, {"Content-Length": "9999"}, b"{"), (200, {}, body)]
    server = ("--server", answers.address)
    done = run("incidents", "ack", found()[0].id, *server, "--json", STREAMGUARD_SERVE_KEY=KEY)
    assert done.exit_code == 0, done.output
    assert len(answers.sent) == 3 and len(set(answers.sent)) == 1
    assert answers.sent[0][0] == json.loads(done.stdout)["action"]
    answers.prepared += [late] * from_server.ATTEMPTS
    lost = run("incidents", "ack", found()[0].id, *server, STREAMGUARD_SERVE_KEY=KEY)
    assert lost.exit_code == ExitCode.TEMPORARY
    assert f"may have been written: `streamguard incidents show {found()[0].id}`" in lost.stderr
    answers.prepared.append(problem(403, "the role"))
    refused = run("incidents", "ack", found()[0].id, *server, STREAMGUARD_SERVE_KEY=KEY)
    assert refused.exit_code == ExitCode.UNAVAILABLE and answers.prepared == []


def test_long_wait_is_announced_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, bool]] = []
    announced = threading.Event()

    def echo(text: str, err: bool) -> None:
        said.append((text, err))
        announced.set()

    monkeypatch.setattr(progress.click, "echo", echo)
    with progress.slow("a \x1b[31mserver", 0.0):
        assert announced.wait(30)
    with progress.slow("another", 3600.0):
        pass
    assert said == [("waiting: a \N{REPLACEMENT CHARACTER}[31mserver", True)]


def test_interrupted_stream_is_a_change_and_a_refused_key_ends_it(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes between two streams is in neither of them."""
    again = threading.Semaphore(0)
    monkeypatch.setattr(from_server.time, "sleep", lambda _: again.acquire(timeout=20))
    answers.prepared += [(200, {}, b": still here\n\nevent: changed\n\n"), (200, {}, b""), (401, {}, b"")]
    changes = Server(answers.address, KEY).changes()
    next(changes)  # the stream is open
    next(changes)  # its event
    assert len(answers.asked) == 1
    again.release()
    next(changes)  # the second stream, which has no event
    assert len(answers.asked) == 2
    again.release()
    with pytest.raises(RefusedError):
        next(changes)


def test_key_is_no_setting(file: str) -> None:
    """A variable of the environment that names an unknown setting ends a command; that of the key does not."""
    assert run("incidents", "list", "--file", file, STREAMGUARD_SERVE_KEY=KEY).exit_code == 0
    assert (
        run("incidents", "list", "--file", file, STREAMGUARD_SERVE_KEYS=KEY).exit_code
        == ExitCode.CONFIGURATION
    )


def test_key_without_encryption_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    Server("http://guard.example.com", KEY)
    assert "without encryption" in capsys.readouterr().err
    Server("https://guard.example.com", KEY)
    Server("http://127.0.0.1:8080", KEY)
    Server("http://[::1]:8080", KEY)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "k\N{LATIN SMALL LETTER E WITH ACUTE}", "k" * 201])
def test_texts_that_are_no_key_are_refused(key: str) -> None:
    with pytest.raises(DataError, match="access key"):
        Server("https://guard.example.com", key)


def test_every_field_of_a_filter_is_sent() -> None:
    wanted = IncidentFilter(
        since=86_400_000, until=172_800_000, entity=("ann", "b&b"), kind=("user",), severity=("high",),
        pattern=("brute_force",), technique=("T1110",), status=("new",), assignee=("eve",),
        classification=("duplicate",), campaign="3-7-1", raised=False, muted=False, grouped=True, text="a b",
        word="192.0.2.7", event="security-events:2:53355",
    )  # fmt: skip
    sent = parameters(wanted)
    # The server finds pseudonyms among the entities, and only its page asks for the rows that it shows by their ids.
    assert {name for name, _ in sent} == set(IncidentFilter.__struct_fields__) - {"pseudonym", "id"}
    assert ("since", "1970-01-02T00:00:00.000Z") in sent and ("raised", "false") in sent
    assert [value for name, value in sent if name == "entity"] == ["ann", "b&b"]
    assert parameters(IncidentFilter()) == []


# Keys


@pytest.fixture
def held(tmp_path: Path) -> Path:
    return tmp_path / "below" / "keys.json"


def test_key_is_printed_once_and_recognised(held: Path) -> None:
    made = run("keys", "add", "ann@example.com", "--role", "analyst", "--days", "2", "--file", str(held))
    assert made.exit_code == 0, made.output
    (key,) = made.stdout.splitlines()
    assert key not in made.stderr and key not in held.read_text()
    caller = keys.Keyring(held).principal(key)
    assert caller is not None and (caller.name, caller.role) == ("ann@example.com", "analyst")
    (one,) = keys.read(held)
    assert one.expires == pytest.approx(time.time() + 2 * 86_400, abs=600)
    assert stat.S_IMODE(held.stat().st_mode) == 0o600
    listed = run("keys", "list", "--file", str(held))
    assert "ann@example.com  analyst" in listed.stdout
    for text in (listed.output, run("keys", "list", "--file", str(held), "--json").output):
        assert key not in text and one.sha256 not in text
    (row,) = json.loads(run("keys", "list", "--file", str(held), "--json").stdout)
    assert row.keys() == {"name", "role", "expires", "expired"} and not row["expired"]


def test_role_is_the_least_unless_another_one_is_given(held: Path) -> None:
    run("keys", "add", "ann", "--file", str(held))
    assert [one.role for one in keys.read(held)] == ["viewer"]


def test_revoked_key_is_refused(held: Path) -> None:
    key = run("keys", "add", "ann", "--file", str(held)).stdout.strip()
    other = run("keys", "add", "bob", "--file", str(held)).stdout.strip()
    keyring = keys.Keyring(held)
    assert keyring.principal(key) is not None
    assert run("keys", "revoke", "ann", "--file", str(held)).exit_code == 0
    assert keyring.principal(key) is None
    assert keyring.principal(other) is not None
    again = run("keys", "revoke", "ann", "--file", str(held))
    assert again.exit_code == ExitCode.DATA_ERROR and "'ann' has no key" in again.stderr


def test_name_has_one_valid_key(held: Path) -> None:
    _, expired = keys.new_key("ann", "viewer", -1.0)
    keys.write(held, [expired])
    assert "expired" in run("keys", "list", "--file", str(held)).stdout
    assert run("keys", "add", "ann", "--file", str(held)).exit_code == 0
    again = run("keys", "add", "ann", "--file", str(held))
    assert again.exit_code == ExitCode.DATA_ERROR and "streamguard keys revoke ann" in again.stderr
    assert len(keys.read(held)) == 1


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "\x1b[31m", "ann\n"])
def test_names_that_no_decision_can_carry_are_refused(name: str, held: Path) -> None:
    result = run("keys", "add", "--file", str(held), "--", name)
    assert result.exit_code == ExitCode.DATA_ERROR, result.output
    assert result.stdout == "" and not held.exists()


def test_damaged_file_of_keys_is_kept(held: Path) -> None:
    held.parent.mkdir()
    held.write_text("{")
    for arguments in (["add", "ann"], ["list"], ["revoke", "ann"]):
        result = run("keys", *arguments, "--file", str(held))
        assert result.exit_code == ExitCode.CONFIGURATION and str(held) in result.stderr
    assert held.read_text() == "{"


def test_file_of_the_settings_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = run("keys", "list")
    assert missing.exit_code == ExitCode.CONFIGURATION and "serve.keys_file" in missing.stderr
    assert run("keys", "list", STREAMGUARD_SERVE_KEYS_FILE="k.json").stdout == "no keys in k.json\n"
    Path("file").touch()
    unwritable = run("keys", "add", "ann", "--file", "file/keys.json")
    assert unwritable.exit_code == ExitCode.CANNOT_WRITE and unwritable.stdout == ""


def test_one_command_changes_the_file_at_a_time(held: Path) -> None:
    from streamguard.files import lock

    lock_held = lock.acquire(held.with_name(".keys.json.lock"))
    result = run("keys", "add", "ann", "--file", str(held))
    os.close(lock_held)
    assert result.exit_code == ExitCode.TEMPORARY and "another command changes" in result.stderr
