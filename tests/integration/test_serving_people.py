"""`streamguard incidents` and `users` on a real Kafka: server and topics give the same answers, also after acts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamguard.errors import ExitCode
from streamguard.polling import poll_until
from tests.harness import Site, WorkerProcess, events
from tests.serving_site import ServeProcess

pytestmark = pytest.mark.integration


class People:
    """A site with a worker and a server, and people who run commands against the server or the topics."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.produce(events(2500, 2))
        self.worker: WorkerProcess = site.start().await_ready()
        site.await_caught_up(workers=[self.worker])
        retrained = self.run("retrain", "--engine", "local", server=False, key="")
        assert retrained.returncode in (ExitCode.OK, ExitCode.NOT_PROMOTED), retrained.stderr
        self.server = ServeProcess(site, "serve").await_serving()

    def command(self, *arguments: str, server: bool) -> list[str]:
        """The command line; without a server the topics are asked."""
        made = [str(Path(sys.executable).with_name("streamguard")), *arguments]
        made += ["--config", str(self.site.directory / "streamguard.toml")]
        return [*made, "--server", self.server.address] if server else made

    def environ(self, key: str | None = None) -> dict[str, str]:
        """The environment of a command, with the key of the server unless another one is given."""
        own = self.server.key if key is None else key
        return {**os.environ, "STREAMGUARD_SERVE_KEY": own, "LOGNAME": "bea", "COLUMNS": "80"}

    def run(self, *arguments: str, server: bool, key: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        made = self.command(*arguments, server=server)
        return subprocess.run(
            made, capture_output=True, text=True, timeout=180, env=self.environ(key), stdin=subprocess.DEVNULL
        )

    def answers(self, *arguments: str, server: bool) -> list[Any]:
        """The JSON lines of a command that succeeds, without the ages of the answers."""
        done = self.run(*arguments, "--json", server=server)
        assert done.returncode == 0, done.stderr
        return [ageless(json.loads(line)) for line in done.stdout.splitlines()]

    def both(self, *arguments: str) -> list[Any]:
        """The answer that the server and the topics give."""
        asked, read = (self.answers(*arguments, server=server) for server in (True, False))
        assert asked == read, arguments
        assert asked, arguments
        return asked

    def confirm(self, *arguments: str, answer: str, before: Any = None) -> tuple[int, str]:
        """Run a command on a terminal of its own, and answer its question; returns its code and what it printed."""
        own, terminal = pty.openpty()
        process = subprocess.Popen(
            self.command(*arguments, server=True), stdin=terminal, stdout=terminal, stderr=terminal,
            env=self.environ(),
        )  # fmt: skip
        os.close(terminal)
        printed = b""
        try:
            while b"[y/N]" not in printed:
                printed += os.read(own, 4096)
            if before is not None:
                before()
            os.write(own, answer.encode() + b"\n")
            while True:
                try:
                    printed += os.read(own, 4096)
                except OSError:  # the other side is closed
                    break
            return process.wait(60), printed.decode()
        finally:
            os.close(own)
            if process.poll() is None:
                process.kill()

    def settled(self, id: str, server: bool = True) -> dict[str, Any]:
        """The case of an incident."""
        (shown,) = self.answers("incidents", "show", id, server=server)
        found: dict[str, Any] = shown["case"]
        return found

    def close(self) -> None:
        if self.server.alive:
            assert self.server.terminate(15) == 0
        self.site.close()


def ageless(value: Any) -> Any:
    """An answer without how old it is."""
    if isinstance(value, dict):
        return {name: ageless(one) for name, one in value.items() if name != "staleness_ms"}
    return [ageless(one) for one in value] if isinstance(value, list) else value


@pytest.fixture
def people(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    monkeypatch.setenv("STREAMGUARD_BATCH_OUTPUT", str(tmp_path / "runs"))
    site = Site(kafka, tmp_path)
    try:
        found = People(site)
    except BaseException:
        site.close()
        raise
    yield found
    found.close()


def test_server_and_topics_agree_before_and_after_people_act(people: People) -> None:
    rows = [one for one in people.both("incidents", "list", "--all") if one["entity"]["kind"] == "user"]
    poll_until(lambda: people.server.ask("/v1/users/user-1").get("profiles"), 60.0)

    # Users
    ranked = people.both("users", "list")
    assert [one["score"] for one in ranked] == sorted((one["score"] for one in ranked), reverse=True)
    assert people.both("users", "list", "--min", "medium", "--status", "new", "--kind", "user")
    (user,) = people.both("users", "show", "user-1")
    (profile,) = user["profiles"]
    committed = people.site.committed()
    assert profile["source_offset"] == committed[profile["partition"]]
    (entry,), (compared,) = user["batch"]["entries"], user["comparisons"]
    assert entry["summary"]["total_events"] == profile["events"] and compared["verdict"] == "agree"
    text = people.run("users", "show", "user-1", server=False)
    for part in ("Unusual now", "Usual", "Hours of the week", "Mon", "Rates: now | usual", "Incidents"):
        assert part in text.stdout, part
    assert f"{profile['events']:,} events" in text.stdout
    (beside,) = (line.split() for line in text.stdout.splitlines() if line.startswith("  events  "))
    assert beside == ["events", f"{profile['events']:,}", f"{profile['events']:,}"]
    named = rows[0]["entity"]["value"]
    timeline = people.both("users", "timeline", named)
    assert {one["kind"] for one in timeline} == {"published"}
    for server in (True, False):
        missing = people.run("users", "show", "nobody-else", server=server)
        assert missing.returncode == ExitCode.DATA_ERROR
        assert "nothing is known of a user 'nobody-else'" in missing.stderr
        assert "`streamguard users list`" in missing.stderr

    # Events
    chosen = rows[0]["id"]
    (shown,) = people.both("incidents", "show", chosen)
    read = people.both("incidents", "events", chosen)
    assert len(read) == len(shown["updates"])
    assert (read[0]["source"], read[0]["event"]) == ("kafka", shown["incident"]["event"])
    printed = people.run("incidents", "events", chosen, server=False).stdout
    assert f"{read[0]['topic']} {read[0]['partition']}:{read[0]['offset']}  from kafka" in printed

    # Acts, one on the server and one on the topic
    key = people.server.ask("/v1/me")["name"]
    other = rows[1]["id"]
    comment = ("--comment", "mine")
    (by_server,) = people.answers("incidents", "ack", chosen, "--assign", "me", *comment, server=True)
    (by_topic,) = people.answers("incidents", "ack", other, "--assign", "me", server=False)
    assert (by_server["incident"]["status"], by_server["incident"]["assignee"]) == ("acknowledged", key)
    assert (by_topic["incident"]["status"], by_topic["incident"]["assignee"]) == ("acknowledged", "bea")
    assert [one["text"] for one in people.settled(chosen)["comments"]] == ["mine"]
    poll_until(lambda: people.settled(other)["assignee"] == "bea", 60.0)
    for id in (chosen, other):
        people.both("incidents", "show", id)
    listed = people.both("incidents", "list", "--all", "--status", "acknowledged")
    assert {one["id"] for one in listed} == {chosen, other}

    # A mute that is shown before; a script says --yes
    silent = people.run("incidents", "mute", chosen, "--for", "7d", "--reason", "test", server=True)
    assert silent.returncode == ExitCode.USAGE and "--yes" in silent.stderr
    muted = people.run("incidents", "mute", chosen, "--for", "7d", "--reason", "test", "--yes", server=False)
    assert muted.returncode == 0, muted.stderr
    assert "in 30 days" in muted.stderr and "muted" in muted.stdout
    poll_until(lambda: people.settled(chosen)["muted"], 60.0)
    assert people.settled(chosen, server=False)["muted"]
    undone = people.run("incidents", "undo", chosen, server=True)
    assert undone.returncode == 0 and "undoing mute of bea" in undone.stderr, undone.stderr
    assert not people.settled(chosen)["muted"]

    # Somebody else acts while a person reads the question
    def faster() -> None:
        closing = ("--as", "false_positive", "--reason", "r")
        assert people.run("incidents", "close", other, *closing, server=False).returncode == 0
        poll_until(lambda: people.settled(other)["status"] == "closed", 60.0)

    code, text = people.confirm(
        "incidents", "mute", other, "--for", "7d", "--reason", "x", answer="y", before=faster
    )
    assert code == ExitCode.DATA_ERROR, text
    assert "bea has done close" in text.replace("\r\n", " ")
    code, text = people.confirm("incidents", "mute", other, "--for", "7d", "--reason", "x", answer="n")
    assert code == 1 and "Aborted" in text
    final = people.settled(other)
    assert [(one["kind"], one["rejected"]) for one in final["history"]] == [
        ("acknowledge", ""),
        ("close", ""),
        ("mute", "conflict"),
    ]
    people.both("incidents", "show", other)
    people.both("users", "timeline", named)
    assert people.worker.terminate() == 0
