"""`streamguard incidents` on a real Kafka: topics, a server and a file give the same answers, and `watch` follows."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamguard.alerts.incident import Incident, encode
from streamguard.campaigns.sighting import HOUR
from streamguard.errors import ExitCode
from streamguard.polling import poll_until
from tests.campaign_site import POISON
from tests.harness import Process
from tests.integration.test_serving import ServingSite, attack, published
from tests.unit.test_campaigns import NOON, incident, lone

pytestmark = pytest.mark.integration


class Commands(ServingSite):
    """A site on which people run commands."""

    watching: list[subprocess.Popen[str]]
    others: list[Process]

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `streamguard incidents` to its end, with the settings of the site."""
        return subprocess.run(
            self._command(arguments),
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environ},
        )

    def rows(self, *arguments: str, **environ: str) -> list[dict[str, Any]]:
        """Rows that a command prints as JSON lines."""
        done = self.run(*arguments, "--json", **environ)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def watch(self, *arguments: str, **environ: str) -> Callable[[], list[str]]:
        """Start `watch`, wait until it watches, and return what gives the lines that it has printed."""
        number = len(self.watching)
        out, err = self.directory / f"watch-{number}.out", self.directory / f"watch-{number}.err"
        with out.open("w") as lines, err.open("w") as errors:
            process = subprocess.Popen(
                self._command(["watch", *arguments]), stdout=lines, stderr=errors, text=True,
                env={**os.environ, "COLUMNS": "200", **environ},
            )  # fmt: skip
        self.watching.append(process)

        def watches() -> bool:
            assert process.poll() is None, err.read_text()
            return "Ctrl-C ends" in err.read_text()

        poll_until(watches, 60.0)
        return lambda: out.read_text().splitlines()

    def serve_with(self, keys: Path, port: str) -> Process:
        """Start a server with a file of keys on a port, and wait until it serves."""
        arguments = ["serve", "--config", str(self.directory / "streamguard.toml"), "--port", port]
        arguments += ["--metrics-port", "0", "--data-dir", str(self.directory / "data-keys")]
        log = self.directory / f"serve-keys-{len(list(self.directory.iterdir()))}.log"
        server = Process(log, "keys", arguments, {"STREAMGUARD_SERVE_KEYS_FILE": str(keys)})
        self.others.append(server)
        return server.await_ready()

    def _command(self, arguments: Any) -> list[str]:
        config = str(self.directory / "streamguard.toml")
        return [
            str(Path(sys.executable).with_name("streamguard")),
            "incidents",
            *arguments,
            "--config",
            config,
        ]


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Commands]:
    site = Commands(kafka, tmp_path)
    site.servers, site.watching, site.others = [], [], []
    yield site
    for process in site.watching:
        if process.poll() is None:
            process.kill()
            process.wait()
    for server in (*site.servers, *site.others):
        if server.alive:
            server.kill()
    site.close()


def without_age(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer to `show` without what depends on the moment at which it was given."""
    return {name: value for name, value in answer.items() if name not in ("as_of", "token")}


def awaited(lines: Callable[[], list[str]], count: int) -> list[str]:
    """The lines of a watch, once there are so many; exactly so many."""
    try:
        poll_until(lambda: len(lines()) >= count, 60.0)
    except TimeoutError:
        raise AssertionError(f"{count} lines expected: {lines()}") from None
    assert len(lines()) == count, lines()
    return lines()


def test_topics_server_and_file_give_the_same_answers(site: Commands) -> None:
    process, server = site.start(), site.serve().await_serving()
    site.publish([None, b"no incident", *POISON[1:4]])
    placed = published(site, attack())
    site.await_published(process)
    server.await_incidents(len(placed))
    poll_until(lambda: len(server.incidents("&raised=true&grouped=true")) == 2, 60.0)
    file = site.directory / "incidents.jsonl"
    file.write_bytes(b"".join(encode(one) + b"\n" for one in placed))
    asked = {"STREAMGUARD_SERVE_KEY": server.key}
    for options in (
        [],
        ["--all"],
        ["--all", "--sort", "time", "--top", "3"],
        ["--min", "critical"],
        ["--user", "ann"],
    ):
        topics = site.rows("list", *options)
        assert topics, options
        assert topics == site.rows("list", *options, "--server", server.address, **asked), options
        assert topics == site.rows("list", *options, "--file", str(file)), options
    for row in site.rows("list"):
        shown = [
            json.loads(site.run("show", row["id"], "--json", *options, **asked).stdout)
            for options in ([], ["--server", server.address])
        ]
        assert without_age(shown[0]) == without_age(shown[1])
        assert shown[0]["as_of"][0]["positions"] == shown[1]["as_of"][0]["positions"]
        text = site.run("show", row["id"], "--server", server.address, **asked)
        assert f"{row['evidence_bits']:.1f} bits" in text.stdout
    table = site.run("list", "--server", server.address, COLUMNS="80", **asked)
    assert "2 of 2 rows; " in table.stdout.splitlines()[-1] and " old; " in table.stdout.splitlines()[-1]
    direct = site.run("list")
    assert "records are passed over" in direct.stderr and "Traceback" not in direct.stderr


def test_what_people_decided_is_shown(site: Commands) -> None:
    server = site.serve().await_serving()
    (ann,) = published(site, [incident("ann", NOON, {"resource": 30.0})])
    server.await_incidents(1)
    server.ask(
        f"/v1/incidents/{ann.id}/actions", kind="close", classification="false_positive", reason="a drill"
    )
    poll_until(lambda: server.incidents("&status=closed"), 60.0)
    assert site.rows("list") == []
    (row,) = site.rows("list", "--status", "closed")
    assert (row["status"], row["classification"]) == ("closed", "false_positive")
    text = site.run("show", ann.id).stdout
    assert "closed as false positive" in text and "a drill" in text


@pytest.mark.parametrize("source", ["topics", "server"])
def test_watch_prints_what_is_new_or_has_risen(source: str, site: Commands) -> None:
    (ann,) = published(site, [incident("ann", NOON, {"resource": 20.0})])
    options: list[str] = []
    environ: dict[str, str] = {}
    if source == "server":
        server = site.serve().await_serving()
        server.await_incidents(1)
        options, environ = ["--server", server.address], {"STREAMGUARD_SERVE_KEY": server.key}
    lines = site.watch("--min", "critical", *options, **environ)
    bob = incident("bob", NOON + HOUR, {"resource": 25.0})
    published(site, [lone("eve", NOON, bits=9.5), ann, bob])
    (new,) = awaited(lines, 1)
    assert "  new    critical    25.0  " in new and bob.id in new and "user bob" in new
    risen = msgspec.structs.replace(ann, count=4, evidence_bits=26.5)
    published_later(site, risen)
    assert "  risen  critical    26.5  " in awaited(lines, 2)[-1] and ann.id in lines()[-1]
    site.watching[0].send_signal(signal.SIGINT)
    assert site.watching[0].wait(30) == ExitCode.OK


def published_later(site: Commands, incident: Incident) -> None:
    """Publish an update of an incident, about an event of its own."""
    later = msgspec.structs.replace(incident.origin, offset=1000 + incident.count)
    site.publish([msgspec.structs.replace(incident, origin=later)])


def test_watch_outlasts_a_server_and_ends_with_its_key(site: Commands) -> None:
    keys = site.directory / "keys.json"
    added = streamguard("keys", "add", "ann", "--file", str(keys))
    (site.directory / "key").write_text(added)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = site.serve_with(keys, port)
    lines = site.watch("--server", f"http://127.0.0.1:{port}", "--key-file", str(site.directory / "key"))
    server.kill()
    published(site, [incident("bob", NOON, {"resource": 25.0})])
    server = site.serve_with(keys, port)
    (line,) = awaited(lines, 1)
    assert re.search(r"  user-[0-9a-z]{16}: ", line) and "user bob" not in line, "a viewer sees pseudonyms"
    streamguard("keys", "revoke", "ann", "--file", str(keys))
    published_later(site, incident("eve", NOON, {"resource": 25.0}))
    assert site.watching[0].wait(60) == ExitCode.UNAVAILABLE
    assert len(lines()) == 1


def streamguard(*arguments: str) -> str:
    """Run a command, and return its standard output."""
    command = [str(Path(sys.executable).with_name("streamguard")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_temporary_store_is_removed_after_sigterm(site: Commands) -> None:
    published(site, attack())
    temporary = site.directory / "tmp"
    temporary.mkdir()
    site.watch(TMPDIR=str(temporary))
    assert list(temporary.iterdir()) != []
    site.watching[0].send_signal(signal.SIGTERM)
    assert site.watching[0].wait(30) == ExitCode.TERMINATED
    assert list(temporary.iterdir()) == []


def test_missing_topics_are_named(site: Commands) -> None:
    published(site, attack())
    site.delete_topic("campaigns")
    listed = site.run("list", "--all")
    assert listed.returncode == 0 and site.names["campaigns"] in listed.stderr
    assert f"{len(attack())} of {len(attack())} incidents" in listed.stdout
    site.delete_topic("alerts")
    missing = site.run("list")
    assert missing.returncode == ExitCode.CONFIGURATION
    assert f"the topic {site.names['alerts']} does not exist" in missing.stderr
