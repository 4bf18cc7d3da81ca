"""Batch results beside live ones on a real Kafka: totals, archived events, addresses, the crowd, and names in paths."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe

from streamguard.alerts.incident import decode
from streamguard.polling import poll_until
from streamguard.settings.schema import Batch, Models, Serve
from tests.harness import Site, events, settings_toml
from tests.serving_site import ServeProcess, browser

pytestmark = pytest.mark.integration

CANARY = '<img src=x onerror="document.title=1">\u202egnp.exe'
NAMES = (
    "a/b",
    "a/b/timeline",
    "100%",
    "%2F",
    "x?y=1&z",
    "two words",
    "é/\u202e/ü",
    "\ufdd01",
    "#top",
    "/",
    CANARY,
)
WIDTHS = (1280, 390)


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path, models=Models(registry=str(tmp_path / "registry")))
    site.settings = msgspec.structs.replace(
        site.settings,
        batch=Batch(output=str(tmp_path / "runs"), engine="local"),
        serve=Serve(archive_dir=str(tmp_path / "archive")),
    )
    (tmp_path / "streamguard.toml").write_text(settings_toml(site.settings))
    yield site
    site.close()


def run(site: Site, *arguments: str) -> None:
    command = [
        sys.executable,
        "-m",
        "streamguard.cli",
        *arguments,
        "--config",
        str(site.directory / "streamguard.toml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode in (0, 3), done.stderr


def named() -> list[tuple[int, bytes]]:
    """Four events of each name, from an address of its own, of which the last ones have one time."""
    made = []
    for k, name in enumerate(NAMES):
        for n in range(4):
            one = {
                "event_id": f"{name}:{n}",
                "timestamp": 1_700_000_900_000 + min(n, 2) * 1000,
                "event_type": "auth_attempt",
                "source_ip": "192.0.2.77",
                "user": name,
                "status": "success",
            }
            made.append((k % 2, json.dumps(one).encode()))
    return made


def valid(made: list[tuple[int, bytes]]) -> list[dict[str, Any]]:
    """The events among the records, each with its place."""
    ends: Counter[int] = Counter()
    found = []
    for partition, value in made:
        offset = ends[partition]
        ends[partition] += 1
        try:
            found.append(json.loads(value) | {"place": (partition, offset)})
        except json.JSONDecodeError:
            continue
    return found


def test_batch_and_live_answers_are_those_of_the_events(site: Site) -> None:
    made = [*events(1600, 2), *named()]
    site.produce(made)
    worker = site.start().await_ready(240.0)
    site.await_caught_up(workers=[worker])
    run(site, "retrain", "--engine", "local")
    run(site, "archive", "--engine", "local", "--output", str(site.directory / "archive"))
    server = ServeProcess(site, "serve")
    plain = valid(made)
    try:
        server.await_serving()
        published = [decode(r.value) for r in site.read("alerts") if r.value is not None]
        server.await_incidents(len({one.id for one in published}))
        poll_until(lambda: "comparison" in server.ask("/v1/compare"), 60.0)

        # Both layers have counted what plain Python counts.
        compared = server.ask("/v1/compare")["comparison"]
        assert compared["verdict"] == "agree", compared
        totals = {
            "events": len(plain),
            "users": len({(one["place"][0], one["user"]) for one in plain}),
            "incidents": len({one.id for one in published}),
        }
        assert compared["live"] == compared["batch"] == totals
        for one in compared["partitions"]:
            assert one["live"]["offset"] == one["batch"]["offset"] == site.committed()[one["partition"]]

        # A user's archived events are all of them, in order, page by page; paths name the user exactly.
        for name in (*NAMES, "user-1"):
            path = f"/v1/users/{quote(name, safe='')}"
            own = [one for one in plain if one["user"] == name]
            answer = server.ask(path)
            assert (answer["user"], sum(one["events"] for one in answer["profiles"])) == (name, len(own)), (
                name
            )
            assert server.ask(f"{path}/timeline")["user"] == name
            assert (
                server.ask(f"/v1/batch/users/{quote(name, safe='')}")["entries"][0]["summary"]["user"] == name
            )
            expected = sorted((-one["timestamp"], one["place"][0], -one["place"][1]) for one in own)
            shown, after = [], ""
            while True:
                page = server.ask(f"{path}/events?limit=3{after}")
                shown += [
                    (-one["event"]["timestamp_ms"], one["event"]["partition"], -one["event"]["offset"])
                    for one in page["events"]
                ]
                if page["next"] is None:
                    break
                after = f"&cursor={page['next']}"
            assert shown == expected, name
        assert server.ask("/v1/users/user-1/events?since=2024-01-01")["events"] == []
        assert server.ask("/v1/users/nobody%2F")["status"] == 404

        # An incident is found by the id and the place of the event that it was published for.
        chosen = published[0]
        origin = chosen.origin
        for event in (
            chosen.event["event_id"],
            f"{origin.partition}:{origin.offset}",
            f"{origin.topic}:{origin.partition}:{origin.offset}",
        ):
            listed = server.ask(f"/v1/incidents?event={quote(event)}")["incidents"]
            assert chosen.id in {one["id"] for one in listed}, event
        assert server.ask("/v1/incidents?event=no+such+event")["incidents"] == []
        if chosen.entity.kind == "user":
            own = server.ask(f"/v1/users/{quote(chosen.entity.value)}/events?limit=100")["events"]
            (listed,) = [
                one
                for one in own
                if (one["event"]["partition"], one["event"]["offset"]) == (origin.partition, origin.offset)
            ]
            assert chosen.id in listed["incidents"]

        # An address has its users, and the crowd every event.
        source = server.ask("/v1/sources/192.0.2.77")
        assert {one["user"] for one in source["users"]} == set(NAMES)
        assert all(one["events"] == 4 for one in source["users"])
        crowd = server.ask("/v1/crowd")["partitions"]
        assert sum(one["events"] for one in crowd) == len(plain)
        listed = server.ask("/v1/sources")
        assert listed["live_missing"] == "" and isinstance(listed["failing"], list)
        assert server.ask("/v1/sources/198.51.100.1")["status"] == 404

        # A name of two megabytes is refused, and the server goes on.
        connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=20)
        try:
            connection.request(
                "GET", "/v1/users/" + "x" * 2_000_000, headers={"Authorization": f"Bearer {server.key}"}
            )
            assert connection.getresponse().status in range(400, 500)
        except (ConnectionError, http.client.HTTPException):
            pass  # closed before all of it was read
        finally:
            connection.close()
        assert server.ask("/v1/users/" + "x" * 300)["status"] == 400

        for width in WIDTHS:
            with browser(server, viewport={"width": width, "height": 800}, bypass_csp=True) as page:
                paths = (
                    "models",
                    "crowd",
                    "sources/192.0.2.77",
                    *(f"users/{quote(n, safe='')}" for n in ("a/b", CANARY)),
                )
                for path in paths:
                    answer = page.goto(f"{server.address}/{path}")
                    assert answer is not None and answer.status == 200, path
                    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
                    found = Axe().run(page)
                    assert found.violations_count == 0, (path, found.generate_report())
                    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
                    assert page.locator("main img").count() == 0
                page.goto(f"{server.address}/sources/192.0.2.77")
                page.get_by_role("link", name="a/b", exact=True).click()
                page.wait_for_url("**/users/a%2Fb")
                assert page.locator("h1").inner_text() == "a/b"
                page.goto(server.address + "/?view=all")
                page.locator("#filter input[name=event]").fill(chosen.event["event_id"])
                page.locator("#filter input[name=event]").press("Enter")
                page.wait_for_url("**event=**")
                wanted = server.ask(f"/v1/incidents?event={quote(chosen.event['event_id'])}")["incidents"]
                shown = page.locator("#rows tbody tr").evaluate_all("rows => rows.map(row => row.dataset.id)")
                assert shown == [one["id"] for one in wanted] and chosen.id in shown
                page.goto(f"{server.address}/models")
                assert "Both layers have counted the same." in page.inner_text("main")
                cells = page.locator(".compared tbody tr").first.locator("td.number").all_inner_texts()
                assert [int(cell.replace(",", "")) for cell in cells] == list(totals.values())

        # Further events make the speed layer newer: the difference is age.
        more = [(0, event) for _, event in named()[:6]]
        site.produce(more)
        site.await_caught_up(workers=[worker])
        poll_until(lambda: server.ask("/v1/compare")["comparison"]["live"]["events"] == len(plain) + 6, 60.0)
        newer = server.ask("/v1/compare")["comparison"]
        assert newer["verdict"] == "age" and newer["batch"] == totals
    finally:
        if server.alive:
            assert server.terminate(15) == 0, server.tail()
    assert worker.terminate() == 0
