"""`streamguard incidents ack|assign|comment|snooze|mute|close|undo|events` against a server: effect, text, refusals."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from click.testing import CliRunner, Result

from streamguard.cli.main import main
from streamguard.errors import ExitCode
from streamguard.events.event_time import epoch_ms
from streamguard.polling import poll_until
from streamguard.serving.commands import incident_mute
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.mutes import MuteQueries
from tests.serving_stores import add, at
from tests.unit.test_campaigns import NOON, incident
from tests.unit.test_serving_actions import Site

DAY = 86_400_000


class Listening(Site):
    """A server over a store in memory that listens on a port, and people who run commands against it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        config = uvicorn.Config(self.app, port=0, log_config=None, access_log=False, lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        poll_until(lambda: self.server.started, 30.0)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"

    def run(self, *arguments: str, by: str = "alice", given: str | None = None) -> Result:
        """Run a command in the name of a person."""
        environ = {"STREAMGUARD_SERVE_KEY": self.keys[by], "COLUMNS": "100"}
        return CliRunner(env=environ).invoke(
            main, ["incidents", *arguments, "--server", self.address], input=given
        )

    def done(self, *arguments: str, by: str = "alice") -> list[dict[str, Any]]:
        """What a command that succeeds prints as JSON lines."""
        result = self.run(*arguments, "--json", by=by)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def case(self, id: str) -> Any:
        return self.service.incidents.incident(id).case

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.store.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Listening]:
    site = Listening(tmp_path)
    yield site
    site.stop()


def test_incidents_are_acknowledged_assigned_and_commented_on(site: Listening) -> None:
    for row in site.done("ack", site.ann, site.bob, "--assign", "me", "--comment", "asked the team"):
        assert (row["incident"]["status"], row["incident"]["assignee"]) == ("acknowledged", "alice")
    for id in (site.ann, site.bob):
        case = site.case(id)
        assert [(one.kind, one.by) for one in case.history] == [
            ("acknowledge", "alice"),
            ("comment", "alice"),
        ]
        assert [one.text for one in case.comments] == ["asked the team"]
    text = site.run("ack", site.ann, "--assign", "bea", by="carl")
    assert text.stdout == f"{site.ann}  user ann: acknowledged, assigned to bea\n"
    assert site.case(site.ann).assignee == "bea"


def test_incident_is_assigned_and_its_assignee_removed(site: Listening) -> None:
    (done,) = site.done("assign", site.ann, "me")
    assert (done["incident"]["assignee"], done["incident"]["status"]) == ("alice", "new")
    assert site.run("assign", site.ann, "bea", by="carl").stdout == f"{site.ann}  user ann: assigned to bea\n"
    removed = site.run("assign", site.ann, "--remove")
    assert (removed.stdout, site.case(site.ann).assignee) == (
        f"{site.ann}  user ann: without an assignee; new\n",
        "",
    )
    for wrong in ([], ["ben", "--remove"], [" "]):
        result = site.run("assign", site.ann, *wrong)
        assert result.exit_code == ExitCode.USAGE and "--remove" in result.stderr


def test_comment_is_added_below_an_incident(site: Listening) -> None:
    assert site.run("comment", site.ann, "ticket 812").stdout == f"{site.ann}  user ann: comment added; new\n"
    assert [(one.by, one.text) for one in site.case(site.ann).comments] == [("alice", "ticket 812")]
    for wrong in (" ", "x" * 2001):
        result = site.run("comment", site.ann, wrong)
        assert result.exit_code == ExitCode.USAGE and "TEXT" in result.stderr
    assert site.run("comment", site.ann, "t", by="vera").exit_code == ExitCode.UNAVAILABLE
    assert len(site.case(site.ann).comments) == 1


def test_incidents_are_snoozed_for_a_time(site: Listening) -> None:
    before = time.time()
    site.done("snooze", site.ann, site.bob, "--for", "12h", "--reason", "the owner is asked")
    for id in (site.ann, site.bob):
        end = epoch_ms(site.case(id).snoozed_until)
        assert end is not None and before * 1000 - 1 <= end - 12 * 3_600_000 <= time.time() * 1000 + 1
    text = site.run("snooze", site.ann, "--until", "2099-12-31")
    assert text.stdout == f"{site.ann}  user ann: snoozed until 2099-12-31 00:00 UTC; new\n"
    for wrong in ([], ["--for", "1h", "--until", "2099-12-31"], ["--until", "2020-01-01"], ["--for", "soon"]):
        result = site.run("snooze", site.ann, *wrong)
        assert result.exit_code == ExitCode.USAGE and "--" in result.stderr, result.output
    assert site.case(site.ann).snoozed_until == "2099-12-31T00:00:00.000Z"


def test_id_of_an_action_is_printed_for_undo(site: Listening) -> None:
    (first,) = site.done("ack", site.ann, "--assign", "me")
    site.done("close", site.ann, "--as", "false_positive", "--reason", "a drill")
    assert (site.case(site.ann).classification, site.case(site.ann).reason) == ("false_positive", "a drill")
    last = site.run("undo", site.ann, by="carl")
    assert last.exit_code == 0 and "undoing close of alice" in last.stderr
    assert site.case(site.ann).status == "acknowledged"
    site.done("undo", site.ann, "--action", first["action"], "--reason", "not mine")
    assert (site.case(site.ann).status, site.case(site.ann).assignee) == ("new", "")
    nothing = site.run("undo", site.ann)
    assert nothing.exit_code == ExitCode.DATA_ERROR and "does not have any action" in nothing.stderr
    unknown = site.run("undo", site.ann, "--action", first["action"])
    assert unknown.exit_code == ExitCode.DATA_ERROR and first["action"] in unknown.stderr


def test_duplicate_names_the_other_incident(site: Listening) -> None:
    site.done("close", site.ann, "--as", "duplicate", "--duplicate-of", site.bob, "--reason", "same")
    assert site.case(site.ann).duplicate_of == site.bob
    for options in (["--as", "duplicate"], ["--as", "undetermined", "--duplicate-of", site.bob]):
        assert site.run("close", site.bob, *options, "--reason", "r").exit_code == ExitCode.USAGE


def test_refused_incident_does_not_keep_others_from_being_done(site: Listening) -> None:
    result = site.run("ack", site.ann, "9-9-9", site.bob)
    assert result.exit_code == ExitCode.DATA_ERROR
    assert "refused: 9-9-9: there is no incident '9-9-9'" in result.stderr
    assert "1 incident of 3 not changed" in result.stderr
    assert [site.case(id).status for id in (site.ann, site.bob)] == ["acknowledged"] * 2
    alone = site.run("ack", "9-9-9")
    assert alone.exit_code == ExitCode.DATA_ERROR
    assert alone.stderr.count("`streamguard incidents list --all` lists the ids") == 1


def test_role_that_may_not_act_is_answered_with_the_text_of_the_server(site: Listening) -> None:
    result = site.run("ack", site.ann, by="vera")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert (
        "does not allow this: the role viewer may not do this; these may: analyst, investigator, admin"
        in result.stderr
    )
    assert site.topic.written == []
    assert site.run("show", site.ann, by="vera").exit_code == 0


def like(number: int, **fields: Any) -> Any:
    """An incident of ann that differs from the first one in these fields, some days before it."""
    resource = fields.pop("resource", 21.0)
    pattern = fields.pop("pattern", "exfiltration")
    return incident("ann", NOON - number * DAY, {"resource": resource}, pattern, count=3, **fields)


def test_preview_counts_what_the_mute_hides(site: Listening) -> None:
    others = [like(1), like(2), like(3, resource=30.0), like(4, pattern="brute_force"), like(40)]
    add(site.store, [at(100 + k, one) for k, one in enumerate(others)])
    site.done("close", others[1].id, "--as", "true_positive", "--reason", "confirmed")
    preview = site.service.mutes.preview(site.ann)
    assert (preview.total, preview.hidden, preview.open, preview.confirmed) == (5, 3, 2, 1)
    assert set(preview.incidents) == {site.ann, others[0].id, others[1].id}
    muted = site.run("mute", site.ann, "--for", "7d", "--reason", "a job", "--yes")
    assert muted.exit_code == 0, muted.output
    assert "hides 3 of 5 incidents in 30 days, 2 of them open, 1 of them closed as a true positive" in (
        muted.stderr.replace("\n ", "")
    )
    rows = site.service.incidents.page(IncidentFilter(entity=("ann",))).incidents
    hidden = {one.id for one in rows if one.muted}
    assert hidden - {others[4].id} == set(preview.incidents)  # the preview does not look further than 30 days
    (scope,) = (one.scope for one in site.case(site.ann).own_mutes)
    assert scope.until > site.service.incidents.incident(site.ann).row.last_seen


def test_mute_asks_on_a_terminal_and_needs_yes_elsewhere(
    site: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = ["mute", site.ann, "--until", "2099-01-01", "--reason", "r"]
    silent = site.run(*mute)
    assert silent.exit_code == ExitCode.USAGE and "give --yes" in silent.stderr
    monkeypatch.setattr(incident_mute, "_interactive", lambda: True)
    assert site.run(*mute, given="n\n").exit_code == 1
    assert site.topic.written == []
    assert site.run(*mute, given="y\n").exit_code == 0
    assert site.case(site.ann).own_mutes[0].scope.until == "2099-01-01T00:00:00.000Z"
    shown = " ".join(site.run("show", site.ann).stdout.split())
    assert "alice mute until 2099-01-01 00:00 UTC: r" in shown and ", muted" in shown


def test_action_after_somebody_was_faster_names_who_and_what(
    site: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the preview and the answer to its question, another person closes the incident."""
    preview = MuteQueries.preview

    def slow(queries: MuteQueries, id: str, until: str = "", seen: int | None = None) -> Any:
        shown = preview(queries, id, until, seen)
        site.act(site.ann, by="carl", kind="close", reason="done")
        return shown

    monkeypatch.setattr(MuteQueries, "preview", slow)
    result = site.run("mute", site.ann, "--for", "7d", "--reason", "r", "--yes")
    assert result.exit_code == ExitCode.DATA_ERROR
    assert "carl has done close at " in result.stderr and "look at the incident again" in result.stderr
    assert site.case(site.ann).status == "closed" and not site.case(site.ann).own_mutes


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["mute", "ID", "--reason", "r", "--yes"], "either --until or --for"),
        (["mute", "ID", "--reason", "r", "--yes", "--for", "7d", "--until", "2099-01-01"], "either"),
        (["mute", "ID", "--reason", "r", "--yes", "--for", "soon"], "is not a duration"),
        (["mute", "ID", "--reason", "r", "--yes", "--until", "2000-01-01"], "give a later end"),
        (["mute", "ID", "--for", "7d", "--yes"], "--reason"),
        (["close", "ID", "--reason", "r"], "--as"),
        (["close", "ID", "--as", "harmless", "--reason", "r"], "harmless"),
        (["close", "ID", "--as", "undetermined", "--reason", "r" * 2001], "2,001 characters"),
        (["ack", "ID", "--comment", "r" * 2001], "2,001 characters"),
        (["ack", "ID", "--assign", "r" * 257], "257 characters"),
        (["ack"], "ID"),
        (["ack", *(str(k) for k in range(1001))], "1,001 incidents"),
        (["ack", "ID", "--file", "incidents.jsonl"], "a file can only be read"),
        (["mute", "ID", "--for", "7d", "--reason", "r", "--file", "-"], "a file can only be read"),
    ],
    ids=lambda value: "-".join(value)[:50] if isinstance(value, list) else "",
)
def test_wrong_command_lines_write_nothing(arguments: list[str], reason: str, site: Listening) -> None:
    result = site.run(*(site.ann if one == "ID" else one for one in arguments))
    assert result.exit_code == ExitCode.USAGE, result.output
    assert reason in result.stderr
    assert site.topic.written == []


def test_incident_that_cannot_be_muted_is_explained(site: Listening) -> None:
    """An incident whose updates have no reasons cannot be muted; the text of the server says so."""
    bare = msgspec.structs.replace(incident("eve", NOON, {"resource": 20.0}), reasons=())
    add(site.store, [at(200, bare)])
    result = site.run("mute", bare.id, "--for", "7d", "--reason", "r", "--yes")
    assert result.exit_code == ExitCode.DATA_ERROR and "has a reason that could be muted" in result.stderr


def test_ranking_of_the_api_counts_the_incidents_that_its_filters_select(site: Listening) -> None:
    site.done("close", site.bob, "--as", "undetermined", "--reason", "r")
    client = site.client()
    whole = client.get("/v1/ranking").json()["users"]
    assert {"ann", "bob"} <= {one["entity"]["value"] for one in whole}
    closed = client.get("/v1/ranking?status=closed").json()["users"]
    assert [(one["entity"]["value"], one["incidents"], one["open"]) for one in closed] == [("bob", 1, 0)]
    named = client.get("/v1/ranking?entity=ann&entity=bob&severity=critical").json()["users"]
    assert {one["entity"]["value"] for one in named} == {"ann", "bob"}
    assert client.get("/v1/ranking?since=2100-01-01").json()["users"] == []
    assert client.get("/v1/ranking?since=soon").status_code == 400
    assert client.get("/v1/me").json() == {"name": "alice", "role": "investigator"}
    wrong = client.get(f"/v1/incidents/{site.ann}/mute?until=soon")
    assert wrong.status_code == 409 and "is not a time" in wrong.json()["detail"]


# Decisions that change detection


def decide(site: Listening, *arguments: str, by: str = "alice") -> Result:
    environ = {"STREAMGUARD_SERVE_KEY": site.keys[by], "COLUMNS": "200"}
    return CliRunner(env=environ).invoke(main, ["decide", *arguments, "--server", site.address])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "give its id"),
        (["--user", "ann", "--field", "resource", "--value", "x"], "give its id"),
        (["ID", "--partition", "1"], "without --user and --partition"),
        (["ID", "--reason", "x" * 1001], "the decision is not valid"),
        (["ID", "--bootstrap-servers", "127.0.0.1:1"], "give one of them"),
    ],
)
def test_decision_that_a_server_cannot_take_is_refused(
    site: Listening, options: list[str], reason: str
) -> None:
    for verb in ("expected", "attack"):
        words = [site.ann if word == "ID" else word for word in options]
        result = decide(site, verb, *words, "--yes")
        assert result.exit_code == ExitCode.USAGE and reason in result.stderr, result.output


def test_key_file_of_no_server_is_refused() -> None:
    result = CliRunner().invoke(main, ["decide", "revoke", "0-1", "--key-file", "key", "--yes"])
    assert result.exit_code == ExitCode.USAGE and "give --server, too" in result.stderr


def test_role_that_may_not_act_does_not_decide(site: Listening) -> None:
    for words in (["expected", site.ann], ["attack", site.ann], ["revoke", "0-9f2c1a77d0b14e5f80c3a6d2"]):
        result = decide(site, *words, "--yes", by="vera")
        assert result.exit_code == ExitCode.UNAVAILABLE, result.output
        assert "the role viewer may not do this" in result.stderr


# Filters with names that do not exist


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pattern", "brute_forse"], "there is no pattern 'brute_forse'. Did you mean 'brute_force'?"),
        (["--pattern", "Exfiltration"], "Did you mean 'exfiltration'?"),
        (["--pattern", "zzz"], "There are audit_tampering, brute_force, "),
        (["--technique", "T1110.01"], "there is no technique 'T1110.01'. Did you mean 'T1110.001'"),
        (["--technique", "t1110"], "Did you mean 'T1110'"),
        (["--severity", "hgh"], "'high'"),
    ],
)
def test_unknown_pattern_technique_or_severity_is_refused(
    site: Listening, options: list[str], said: str
) -> None:
    for verb in ("list", "watch"):
        result = site.run(verb, *options)
        assert result.exit_code == ExitCode.USAGE, result.output
        assert said in result.stderr


def test_empty_list_names_the_users_without_an_incident_and_similar_names(site: Listening) -> None:
    said = "no incident of 'anne'; known names that are similar: ann\n"
    for options in ([], ["--all"], ["--json"]):
        result = site.run("list", "--user", "anne", *options)
        assert (result.exit_code, result.stderr) == (0, said)
    assert site.run("list", "--user", "zzz").stderr == "no incident of 'zzz'\n"
    assert "known" not in site.run("list", "--user", "\x1b[31m" + "x" * 250).stderr
    # Names of which there are incidents, hidden by another filter or not, are not named.
    for options in (["--user", "ann", "--status", "closed"], ["--user", "ann", "--all"]):
        assert site.run("list", *options).stderr == ""


def test_role_that_sees_pseudonyms_gets_no_names(site: Listening) -> None:
    for options in ([], ["--json"]):
        result = site.run("list", "--user", "anne", *options, by="vera")
        assert (result.exit_code, result.stderr) == (0, "no incident of 'anne'\n")
