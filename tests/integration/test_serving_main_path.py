"""The whole path: events, a worker, a server; what it says of users, events and decisions is what the topics hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from streamguard.alerts.incident import decode
from streamguard.cli.main import main
from streamguard.polling import poll_until
from streamguard.settings.schema import Models
from tests.harness import Site, events
from tests.serving_site import ServeProcess, browser

pytestmark = pytest.mark.integration


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    site = Site(kafka, tmp_path, models=Models(key_file=str(key)))
    yield site
    site.close()


def decide(server: ServeProcess, *words: str, code: int = 0) -> str:
    """What `streamguard decide` prints that asks a server."""
    environ = {"STREAMGUARD_SERVE_KEY": server.key, "COLUMNS": "200"}
    done = CliRunner(env=environ).invoke(main, ["decide", *words, "--server", server.address])
    assert done.exit_code == code, done.output
    return done.stdout


def test_user_events_and_decisions_are_those_of_the_topics(site: Site) -> None:
    made = events(2500, 2)
    site.produce(made)
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    server = ServeProcess(site, "serve")
    try:
        server.await_serving()
        published = [decode(r.value) for r in site.read("alerts") if r.value is not None]
        server.await_incidents(len({one.id for one in published}))

        # A profile is exact at the offset that it states.
        counts: Counter[str] = Counter()
        for _, value in made:
            try:
                counts[json.loads(value)["user"]] += 1
            except json.JSONDecodeError:
                continue
        committed = site.committed()
        poll_until(lambda: server.ask("/v1/users/user-1").get("profiles"), 60.0)
        for user in ("user-1", "user-8"):
            (profile,) = server.ask(f"/v1/users/{user}")["profiles"]
            assert profile["source_offset"] == committed[profile["partition"]]
            assert profile["events"] == counts[user]
        assert server.ask("/v1/users/nobody")["status"] == 404
        names = server.ask("/v1/users?limit=200")["users"]
        assert names == sorted(names) and set(names) <= set(counts)

        # The raw event of an incident is the record at the incident's origin.
        chosen = next(one for one in published if one.entity.kind == "user" and one.reasons)
        (event, *_) = server.ask(f"/v1/incidents/{quote(chosen.id)}/events")["events"]
        assert event["source"] == "kafka"
        assert event["event"] == server.ask(f"/v1/incidents/{quote(chosen.id)}")["incident"]["event"]

        # Refused records are counted by their reasons.
        letters = server.ask("/v1/dead-letters")
        assert letters["records"] == len(site.read("dead_letter"))
        assert {one["reason"] for one in letters["reasons"]} == {"not_json"}

        # What the batch layer has not written is said to be missing.
        assert server.ask("/v1/batch/report")["status"] == 404
        assert "streamguard retrain" in server.ask("/v1/batch/report")["detail"]

        # A decision is previewed, written into the partition of the events, and applied by the worker.
        decided = next(one for one in published if any(r.feature == "action" for r in one.reasons))
        path = f"/v1/incidents/{quote(decided.id)}/detection"
        preview = server.ask(f"{path}?decision=expected&field=action")
        assert (preview["user"], preview["affected"] >= 1) == (decided.entity.value, True)
        assert "none of them closed as a true positive" in preview["message"]
        before = site.ends()
        answer = server.ask(path, decision="expected", field="action", reason="a tool of the team")
        assert answer["offset"] == before[answer["partition"]]
        site.await_caught_up(workers=[worker])
        assert worker.metric('streamguard_decisions_total{decision="expected",outcome="applied"}') == 1
        history = server.ask(f"/v1/incidents/{quote(decided.id)}")["case"]["history"]
        assert answer["id"] in history[0]["text"]

        def in_force() -> bool:
            (profile,) = server.ask(f"/v1/users/{quote(decided.entity.value)}")["profiles"]
            return [one["decision"] for one in profile["decisions"]] == ["expected"]

        poll_until(in_force, 30.0)
        server.ask(f"/v1/detection/{answer['id']}/revoke", reason="a mistake")
        site.await_caught_up(workers=[worker])
        assert worker.metric('streamguard_decisions_total{decision="revoke",outcome="applied"}') == 1

        # The command asks the server for the same, and it is the key of the server that signs.
        by_command = decide(server, "expected", decided.id, "--field", "action", "--until", "7d", "--yes")
        assert "to end it: streamguard decide revoke" in by_command
        site.await_caught_up(workers=[worker])
        assert worker.metric('streamguard_decisions_total{decision="expected",outcome="applied"}') == 2
        decide(server, "revoke", by_command.split()[0], "--yes", "--reason", "a mistake")
        site.await_caught_up(workers=[worker])
        assert worker.metric('streamguard_decisions_total{decision="revoke",outcome="applied"}') == 2
        asked = decide(server, "attack", decided.id, "--field", "action", code=1)
        assert f"of {decided.entity.value}: attack" in asked and "write it?" in asked
        assert worker.metric('streamguard_decisions_total{decision="attack",outcome="applied"}') == 0

        with browser(server) as page:
            page.goto(f"{server.address}/incidents/{quote(decided.id)}")
            page.keyboard.press("!")
            page.locator("details[open] select").select_option(index=0)
            page.locator("details[open] input[name=reason]").fill("seen in the browser")
            page.keyboard.press("Enter")
            page.locator(".history", has_text="seen in the browser").wait_for()
            page.goto(f"{server.address}/users/user-1")
            assert f"{counts['user-1']:,} events" in page.inner_text("main")
            page.goto(f"{server.address}/system")
            assert "not json" in page.inner_text(".letters")
            page.goto(f"{server.address}/models")
            assert "streamguard retrain" in page.inner_text("main")
            page.goto(f"{server.address}/v1/docs")
            page.locator(".opblock").first.wait_for()
    finally:
        if server.alive:
            assert server.terminate(15) == 0
    assert worker.terminate() == 0
    assert site.differences() == []
