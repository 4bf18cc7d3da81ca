"""Committed rules on a real Prometheus and Alertmanager: a refused model, a killed worker, a frozen worker.

Rules, routes and inhibitions are the committed ones; only time runs faster. Every `for:` and every wait of the
Alertmanager is divided by `FASTER`, and scrapes come every 1.5 s instead of every 15.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from streamguard.fold.features import NAMES
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Models
from streamguard.testing.broker import free_port
from tests.harness import Site, WorkerProcess, eventually
from tests.prometheus import binary

pytestmark = pytest.mark.integration
GRAFANA = Path(__file__).parents[2] / "grafana"
FASTER = 60
OF_THE_MACHINE = {"StreamGuardDiskFilling"}
"""Its disk may be full without this being wrong."""
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def faster(duration: str) -> str:
    """A duration as Prometheus writes it, divided by `FASTER`."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", duration).groups()  # type: ignore[union-attr]
    return f"{int(number) * _UNITS[unit] // FASTER}ms"


def ask(port: int, path: str) -> Any:
    """The JSON at a path of a server on this machine; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


@contextmanager
def running(log: Path, *command: str) -> Iterator[None]:
    """A process for as long as the context lasts."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


class Receiver:
    """Takes what the Alertmanager sends: (receiver, status, alert, instance)."""

    def __init__(self) -> None:
        heard = self.heard = list[tuple[str, str, str, str]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    labels = alert["labels"]
                    instance = labels.get("instance", "")
                    heard.append((self.path[1:], alert["status"], labels["alertname"], instance))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Watch:
    """Prometheus and Alertmanager with copies of the committed files."""

    def __init__(self, directory: Path, workers: list[str], receiver: Receiver) -> None:
        self.prometheus, self.alertmanager = free_port(), free_port()
        self._directory = directory
        (directory / "rules").mkdir()
        for path in (GRAFANA / "prometheus" / "rules").glob("*.yml"):
            text = re.sub(r"(?<= for: )\w+", lambda found: faster(found[0]), path.read_text())
            (directory / "rules" / path.name).write_text(text)
        config = yaml.safe_load((GRAFANA / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {
            "scrape_interval": "1500ms",
            "scrape_timeout": "1500ms",
            "evaluation_interval": "500ms",
        }
        job = next(job for job in config["scrape_configs"] if job["job_name"] == "streamguard-worker")
        job["static_configs"] = [{"targets": workers}]
        config["scrape_configs"] = [job]
        manager = f"127.0.0.1:{self.alertmanager}"
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [manager]}]}]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        routing = yaml.safe_load((GRAFANA / "alertmanager" / "alertmanager.yml").read_text())
        for route in [routing["route"], *routing["route"]["routes"]]:
            route |= {name: faster(route[name]) for name in route if name.startswith(("group_w", "group_i"))}
        for one in routing["receivers"]:
            one["webhook_configs"][0]["url"] = f"{receiver.url}/{one['name']}"
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(routing))

    @contextmanager
    def running(self) -> Iterator[None]:
        here = self._directory
        with ExitStack() as stack:
            stack.enter_context(
                running(
                    here / "alertmanager.log",
                    binary("prometheus-alertmanager"),
                    f"--config.file={here / 'alertmanager.yml'}",
                    f"--storage.path={here / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{self.alertmanager}",
                    "--cluster.listen-address=",
                )
            )
            stack.enter_context(
                running(
                    here / "prometheus.log",
                    binary(),
                    f"--config.file={here / 'prometheus.yml'}",
                    f"--storage.tsdb.path={here / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{self.prometheus}",
                )
            )
            yield

    def up(self) -> int:
        answer = ask(self.prometheus, "/api/v1/query?query=sum(up)") or {"data": {"result": []}}
        return sum(int(sample["value"][1]) for sample in answer["data"]["result"])

    def firing(self) -> dict[tuple[str, str], str]:
        """(alert, instance) -> description of what fires."""
        answer = ask(self.prometheus, "/api/v1/alerts") or {"data": {"alerts": []}}
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", "")): alert["annotations"][
                "description"
            ]
            for alert in answer["data"]["alerts"]
            if alert["state"] == "firing" and alert["labels"]["alertname"] not in OF_THE_MACHINE
        }

    def troubles(self) -> list[str]:
        """Errors of rules that were evaluated; every one has to have been."""
        answer = ask(self.prometheus, "/api/v1/rules")
        rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
        return [f"{r['name']}: {r['health']} {r.get('lastError', '')}" for r in rules if r["health"] != "ok"]

    def suppressed(self) -> set[tuple[str, str]]:
        """(alert, instance) of what the Alertmanager holds back for another alert."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in ask(self.alertmanager, "/api/v2/alerts") or []
            if alert["status"]["inhibitedBy"]
        }


def address(worker: WorkerProcess) -> str:
    return f"127.0.0.1:{next(line['metrics_port'] for line in worker.lines() if 'metrics_port' in line)}"


def clean(count: int) -> list[tuple[int, bytes]]:
    """(partition, event) pairs of which nothing has to be said."""
    event = {"event_type": "auth_attempt", "source_ip": "192.0.2.1", "status": "success"}
    return [
        (i % 2, json.dumps({**event, "user": f"user-{i % 7}", "timestamp": 1_700_000_000_000 + i}).encode())
        for i in range(count)
    ]


def test_a_refused_model_a_killed_worker_and_a_frozen_one(kafka: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", feature_names=NAMES)
    rows = np.random.default_rng(5).normal(1.0, 2.0, (600, len(NAMES))).astype(np.float32)
    good, bad = (registry.publish(train(rows, seed=seed, trees=30)) for seed in range(2))
    os.truncate(tmp_path / "registry" / "versions" / bad / "forest.safetensors", 1000)
    registry.promote(good)

    def name(version: str) -> None:
        """In one step, as `promote` does after the checks that it would fail at."""
        (tmp_path / "pointer").write_text(version)
        (tmp_path / "pointer").replace(tmp_path / "registry" / "current")

    site = Site(
        kafka, tmp_path / "site", models=Models(registry=str(tmp_path / "registry"), poll_seconds=0.2)
    )
    with ExitStack() as stack:
        stack.callback(site.close)
        site.produce(clean(400))
        a, b = site.start("a"), site.start("b")
        eventually("both work", lambda: a.get("/readyz")[0] == b.get("/readyz")[0] == 200)
        at_a, at_b = address(a), address(b)
        receiver = stack.enter_context(Receiver())
        (tmp_path / "watch").mkdir()
        watch = Watch(tmp_path / "watch", [at_a, at_b], receiver)
        stack.enter_context(watch.running())
        eventually("both are scraped, nothing fires", lambda: watch.up() == 2 and not watch.firing())
        eventually("all rules are evaluated", lambda: not watch.troubles())

        name(bad)
        refused = {("StreamGuardModelRefused", at_a), ("StreamGuardModelRefused", at_b)}
        eventually("both refuse the damaged model", lambda: refused <= watch.firing().keys())
        assert watch.firing().keys() == refused
        told = watch.firing()["StreamGuardModelRefused", at_a]
        assert f"names {bad};" in told and f"scores with {good}." in told
        for at in (at_a, at_b):
            sent = ("on-call", "firing", "StreamGuardModelRefused", at)
            eventually("somebody is called", lambda sent=sent: sent in receiver.heard)
        name(good)
        eventually("nothing fires any more", lambda: not watch.firing())

        b.kill()
        down = ("StreamGuardWorkerDown", at_b)
        eventually("the killed worker is missed", lambda: down in watch.firing())
        assert "partitions over: 1." in watch.firing()[down]
        eventually("the team is told", lambda: ("team", "firing", *down) in receiver.heard)
        assert ("StreamGuardWorkerHangs", at_b) not in watch.firing()

        eventually("a has both partitions", lambda: a.metric('streamguard_partitions{state="ready"}') == 2)
        eventually("all partitions are seen", lambda: watch.firing().keys() == {down})
        a.signal(signal.SIGSTOP)
        expected = {
            ("StreamGuardWorkerHangs", at_a), ("StreamGuardWorkerDown", at_a), ("StreamGuardNoWorkers", "")
        }  # fmt: skip
        eventually("the frozen worker is missed", lambda: expected <= watch.firing().keys())
        eventually(
            "its partitions are too", lambda: ("StreamGuardPartitionWithoutWorker", "") in watch.firing()
        )
        eventually(
            "somebody is called", lambda: ("on-call", "firing", "StreamGuardNoWorkers", "") in receiver.heard
        )
        follows = {("StreamGuardWorkerHangs", at_a), ("StreamGuardWorkerDown", at_a), down}
        eventually("what follows from it is held back", lambda: follows <= watch.suppressed())

        a.signal(signal.SIGCONT)
        eventually("only the killed one is missed", lambda: watch.firing().keys() == {down})
        assert a.alive, a.tail()
