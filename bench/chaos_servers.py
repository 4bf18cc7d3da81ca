"""Servers under failures: killed and started at random while people act, then compared with a rebuilt one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from streamguard.polling import poll_until
from streamguard.serving.projection.store import Store
from tests.harness import Site
from tests.serving_site import ServeProcess

NAMES = ("left", "right")


class Servers:
    """Two servers of one site.

    Parameters
    ----------
    site
        Topics.
    random
        Source of the random actions.
    say
        Prints a line.
    """

    def __init__(self, site: Site, random: random.Random, say: Callable[[str], None]) -> None:
        self._site = site
        self._random = random
        self._say = say
        self._started = 0
        self.running: dict[str, ServeProcess] = {}
        self.done: Counter[str] = Counter()

    def start(self, name: str) -> None:
        """Start a server unless it is running; it keeps its data directory."""
        if name not in self.running or not self.running[name].alive:
            self._started += 1
            self.running[name] = ServeProcess(self._site, f"{name}-{self._started}", data=name)
            self.done["server started"] += 1
            self._say(f"start server {name}")

    def act(self) -> None:
        """Kill or start a server, or let a person act on an incident."""
        name = self._random.choice(NAMES)
        server = self.running.get(name)
        if server is None or not server.alive:
            self.start(name)
        elif self._random.random() < 0.4:
            self._say(f"kill server {name}")
            server.kill()
            self.done["server killed"] += 1
        else:
            self._person(server)

    def _person(self, server: ServeProcess) -> None:
        """Acknowledge, close or comment on an incident; while the server reads or Kafka is away, nothing happens."""
        try:
            rows = server.ask("/v1/incidents?sort=time&limit=20").get("incidents", [])
            if not rows:
                return
            body: dict[str, Any] = self._random.choice(
                (
                    {"kind": "acknowledge", "assignee": "ann"},
                    {"kind": "close", "classification": "false_positive", "reason": "chaos"},
                    {"kind": "comment", "text": "seen"},
                    {"kind": "mute", "reason": "chaos"},
                    {"kind": "reopen"},
                )
            )
            answer = server.ask(f"/v1/incidents/{self._random.choice(rows)['id']}/actions", **body)
        except (OSError, AssertionError):  # it does not listen yet, or was killed
            return
        self.done["action refused" if "status" in answer else "action"] += 1

    def close(self) -> None:
        """Kill every server that still runs."""
        for server in self.running.values():
            if server.alive:
                server.kill()

    def compare(self, incidents: set[str]) -> list[str]:
        """Differences between the servers, one that is rebuilt, and the expected incidents, one line each."""
        for name in (*NAMES, "rebuilt"):
            self.start(name)
        names = {self._site.names[role] for role in ("alerts", "decisions")}

        def places(server: ServeProcess) -> Any:
            as_of = server.ask("/v1/incidents?limit=1")["as_of"]
            return [one["positions"] for one in as_of if one["source"] in names]

        servers = [self.running[name].await_serving() for name in (*NAMES, "rebuilt")]
        try:
            poll_until(lambda: places(servers[0]) == places(servers[1]) == places(servers[2]), 60.0, 0.5)
        except TimeoutError:
            return [f"the servers are at different places: {[places(server) for server in servers]}"]
        codes = [server.terminate(30) for server in servers]
        exports = []
        for server in servers:
            store = Store(server.data, self._site.settings.detection.floor_bits)
            exports.append(list(store.export()))
            found = {id for (id,) in store.reader().execute("SELECT id FROM incidents").fetchall()}
            store.close()
        wrong = [f"server {name} ended with {code}" for name, code in zip(NAMES, codes, strict=False) if code]
        wrong += [
            f"the projection of server {name} differs from the rebuilt one: {len(export)} and {len(exports[-1])} lines"
            for name, export in zip(NAMES, exports, strict=False)
            if export != exports[-1]
        ]
        if found != incidents:
            wrong.append(f"the rebuilt server has {len(found)} incidents, the fold has {len(incidents)}")
        return wrong
