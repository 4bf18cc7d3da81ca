"""Servers that hold disjoint partitions answer for every user as one that holds all, and say so when one is away."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from streamguard.history.partitioner import partition_of
from streamguard.polling import poll_until
from streamguard.serving.api.keys import Principal
from streamguard.serving.peers.profiles import PROFILES_PATH
from streamguard.serving.peers.signing import HEADER, PeerKey
from streamguard.testing.broker import free_port
from tests.harness import Site, events
from tests.serving_site import ServeProcess

pytestmark = pytest.mark.integration

SECRET = b"p" * 32
TWICE = "user-3"
"""A user whose events come from senders with two partitioners."""
SPRAYING = "203.0.113.9"
"""An address that fails in every partition."""


class Servers(NamedTuple):
    """Servers of the same topics."""

    full: ServeProcess
    low: ServeProcess
    high: ServeProcess


@pytest.fixture
def servers(kafka: str, tmp_path: Path) -> Iterator[Servers]:
    site = Site(kafka, tmp_path, partitions=4)
    made = []
    for number, (_, value) in enumerate(events(2500, 4)):
        try:
            user = json.loads(value)["user"]
        except json.JSONDecodeError:
            user = ""
        home = partition_of(user.encode(), 4)
        made.append(((home + 2) % 4 if user == TWICE and number % 2 else home, value))
    for number in range(48):  # one address fails in every partition, for users and without one
        event = {
            "event_id": f"spray-{number}",
            "timestamp": 1_700_002_500_000 + number * 1000,
            "event_type": "auth_attempt",
            "source_ip": SPRAYING,
            "user": (user := f"user-{100 + number}" if number >= 8 else None),
            "status": "failed",
        }
        place = number % 4 if user is None else partition_of(user.encode(), 4)
        made.append((place, json.dumps(event).encode()))
    site.produce(made)
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    key = tmp_path / "peer.key"
    key.write_bytes(SECRET)
    ports = [free_port(), free_port()]
    often = {"STREAMGUARD_SERVE_REQUESTS_PER_MINUTE": "1000000"}
    shared = often | {
        "STREAMGUARD_SERVE_PEERS": ",".join(f"http://127.0.0.1:{port}" for port in ports),
        "STREAMGUARD_SERVE_PEER_KEY_FILE": str(key),
    }
    started = [ServeProcess(site, "full", "", **often)]
    for name, port, held in (("low", ports[0], "0-1"), ("high", ports[1], "2-3")):
        started.append(ServeProcess(site, name, "", "--port", str(port), "--partitions", held, **shared))
    try:
        for server in started:
            server.await_serving()
        for server in started:
            poll_until(partial(covered, server), 60.0)
        yield Servers(*started)
    finally:
        for server in started:
            if server.alive:
                server.kill()
        site.close()


def covered(server: ServeProcess) -> bool:
    """Whether some server answers for every partition."""
    found = server.ask("/v1/partitions")
    return bool(found["partitions"] == 4 and not found["missing"])


def names(server: ServeProcess) -> list[str]:
    """Names of all users, in small pages."""
    found: list[str] = []
    after = ""
    while True:
        page = server.ask(f"/v1/users?limit=150&after={quote(after)}")
        found += page["users"]
        if page["next"] is None:
            return found
        after = page["next"]


def answer(server: ServeProcess, user: str) -> dict[str, Any]:
    """What a server says of a user, without how old it is."""
    found: dict[str, Any] = server.ask(f"/v1/users/{quote(user)}")
    for one in found["as_of"]:
        del one["staleness_ms"]
    return found


def about(server: ServeProcess, path: str) -> dict[str, Any]:
    """What a server says of addresses or the crowd, without how old it is."""
    found: dict[str, Any] = server.ask(path)
    for one in found["as_of"]:
        del one["staleness_ms"]
    return found


def status(server: ServeProcess, path: str, header: str = "", host: str = "") -> tuple[int, dict[str, Any]]:
    """The answer to a request without a key, with the header of a peer."""
    request = urllib.request.Request(server.address + path, headers={HEADER: header} if header else {})
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status, json.loads(found.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_partial_servers_answer_as_a_full_one_until_a_holder_is_away(servers: Servers) -> None:
    full, low, high = servers
    listed = names(full)
    assert len(listed) > 100
    assert names(low) == names(high) == listed
    held = [low.ask("/v1/partitions"), high.ask("/v1/partitions")]
    assert [one["here"] for one in held] == ["0-1", "2-3"]
    assert [[peer["partitions"] for peer in one["peers"]] for one in held] == [["2-3"], ["0-1"]]
    for user in listed:
        expected = answer(full, user)
        assert expected["profiles"], user
        assert answer(low, user) == answer(high, user) == expected, user
    assert len(answer(low, TWICE)["profiles"]) == 2
    assert low.ask("/v1/users/nobody")["status"] == high.ask("/v1/users/nobody")["status"] == 404
    assert low.ask("/v1/users/" + quote("€" * 256))["status"] == 404, "the longest question is asked, too"
    assert not low.ask("/v1/partitions")["missing"]
    crowd = about(full, "/v1/crowd")
    assert [one["partition"] for one in crowd["partitions"]] == [0, 1, 2, 3]
    spraying = about(full, f"/v1/sources/{SPRAYING}")
    for part in ("failing", "profiles"):
        assert {one["partition"] for one in spraying[part]} == {0, 1, 2, 3}, part
    assert len(about(full, "/v1/sources")["failing"]) == 50, "the longest list is merged"
    for path in ("/v1/crowd", "/v1/sources", f"/v1/sources/{SPRAYING}"):
        expected = about(full, path)
        assert expected.get("live_missing", "") == ""
        assert about(low, path) == about(high, path) == expected, path
    assert low.ask("/v1/sources/192.0.2.1")["status"] == 404
    assert low.metric('streamguard_serve_partitions{where="peer"}') == 2

    refused_when_forged(servers)

    high.kill()
    here = [user for user in listed if partition_of(user.encode(), 4) < 2 and user != TWICE]
    away = [user for user in listed if partition_of(user.encode(), 4) >= 2]
    assert here and away
    for user in away[:20]:
        problem = answer_or_problem(low, user)
        assert (problem["status"], problem["type"]) == (503, "/problems/partition-unavailable"), problem
        assert "partitions 2-3" in problem["detail"] and "serve.partitions" in problem["detail"]
    for user in here[:20]:  # the user's own partition is here; that another one was not asked is stated
        found = low.ask(f"/v1/users/{quote(user)}")
        assert len(found["profiles"]) == 1 and "partitions 2-3" in found["profiles_missing"]
    assert low.ask("/v1/users")["type"] == "/problems/partition-unavailable"
    assert low.ask("/v1/users/nobody")["type"] == "/problems/partition-unavailable"
    assert low.ask("/v1/partitions")["missing"] == "2-3"
    assert low.metric('streamguard_serve_partitions{where="missing"}') == 2
    ready, body = low.get("/readyz")
    assert (ready, json.loads(body)["partitions_missing"]) == (200, "2-3")
    assert low.ask("/v1/incidents?limit=1")["incidents"]
    for path in ("/v1/crowd", "/v1/sources", "/v1/sources/192.0.2.1"):
        found = low.ask(path)
        assert found["live_missing"].startswith("partitions 2-3 cannot be read now"), path
        assert "does not answer" in found["live_missing"], path
    assert low.ask("/v1/crowd")["partitions"] == crowd["partitions"][:2]
    code, page = shown(low, "/system")
    assert code == 200 and "No server answers for the profiles of partitions 2-3 now" in page
    assert high.address in page and "does not answer" in page
    code, page = shown(low, f"/users/{quote(away[0])}")
    assert code == 503 and "the profiles of partitions 2-3 cannot be read now" in page
    code, page = shown(low, f"/users/{quote(here[0])}")
    assert code == 200 and "Another profile may be missing" in page


def shown(server: ServeProcess, path: str) -> tuple[int, str]:
    """A page as a browser gets it."""
    headers = {"Authorization": f"Bearer {server.key}", "Accept": "text/html"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server.address + path, headers=headers), timeout=20
        ) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answer_or_problem(server: ServeProcess, user: str) -> dict[str, Any]:
    found: dict[str, Any] = server.ask(f"/v1/users/{quote(user)}")
    return found


def refused_when_forged(servers: Servers) -> None:
    """A question of a peer is answered only with the key, for this request, now, and for a known role."""
    target = f"{PROFILES_PATH}?{urlencode({'user': TWICE, 'partitions': '0-1'})}"
    other = target.replace(TWICE, "user-4")
    host = servers.low.address.partition("//")[2]
    ann, now = Principal("ann", "investigator"), time.time()
    key = PeerKey(SECRET)
    code, found = status(servers.low, target, key.header(Principal("bob", "viewer"), host, target, now))
    assert (code, found["type"]) == (403, "/problems/masked"), "the role decides here, too"
    good = key.header(ann, host, target, now)
    code, found = status(servers.low, target, good)
    assert code == 200 and len(found["profiles"]) == 1
    body, _, signature = good.partition(".")
    root = key.header(type("Asker", (), {"name": "eve", "role": "root"})(), host, target, now)
    for wrong in (
        "",
        "x",
        f"{body}.{signature[::-1]}",
        PeerKey(b"q" * 32).header(ann, host, target, now),
        key.header(ann, host, other, now),
        key.header(ann, "127.0.0.1:1", target, now),
        key.header(ann, host, target, now - 61),
        root,
    ):
        assert status(servers.low, target, wrong)[0] == 401, wrong
    assert (
        status(servers.full, target, key.header(ann, servers.full.address.partition("//")[2], target, now))[0]
        == 401
    )
    # A question that was forwarded is not forwarded again: this server does not hold the partitions.
    not_here = target.replace("0-1", "2-3")
    assert status(servers.low, not_here, key.header(ann, host, not_here, now))[0] == 503
    # Addresses and the crowd are about people, and are asked under the same rules.
    for path in ("/v1/peer/crowd", "/v1/peer/sources"):
        for asker, held, expected in (
            (ann, "0-1", 200),
            (ann, "2-3", 503),
            (Principal("bob", "viewer"), "0-1", 403),
        ):
            asked = f"{path}?partitions={held}"
            code, found = status(servers.low, asked, key.header(asker, host, asked, now))
            assert code == expected, (asked, found)
    # A key of a person does not open these routes, and the header opens no others.
    assert servers.low.ask(target)["status"] == 401
    assert status(servers.low, "/v1/users", key.header(ann, host, "/v1/users", now))[0] == 401
