"""The committed alert rules on a real Prometheus and Alertmanager: a refused model, a killed and a frozen worker.

Rules, routes and inhibitions are the committed ones, but with shorter times: every `for:` and every wait of the
Alertmanager is divided by `SPEEDUP`, and the scrape interval is 1.5 s instead of 15 s.
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
SPEEDUP = 60
IGNORED_ALERTS = {"StreamGuardDiskFilling"}
"""Alerts about this machine, such as a full disk, which say nothing about StreamGuard."""
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def shortened(duration: str) -> str:
    """A duration in the syntax of Prometheus, divided by `SPEEDUP`."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", duration).groups()  # type: ignore[union-attr]
    return f"{int(number) * _UNITS[unit] // SPEEDUP}ms"


def get_json(port: int, path: str) -> Any:
    """JSON from a path of a server on this machine; None while the server does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return json.load(response)
    except OSError:
        return None


@contextmanager
def running(log: Path, *command: str) -> Iterator[None]:
    """Run a process until the context ends."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


class Receiver:
    """An HTTP server that stores the notifications of the Alertmanager: (receiver, status, alert, instance)."""

    def __init__(self) -> None:
        received = self.received = list[tuple[str, str, str, str]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    labels = alert["labels"]
                    instance = labels.get("instance", "")
                    received.append((self.path[1:], alert["status"], labels["alertname"], instance))
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


class Monitoring:
    """Prometheus and Alertmanager with adapted copies of the committed files."""

    def __init__(self, directory: Path, workers: list[str], receiver: Receiver) -> None:
        self.prometheus, self.alertmanager = free_port(), free_port()
        self._directory = directory
        (directory / "rules").mkdir()
        for path in (GRAFANA / "prometheus" / "rules").glob("*.yml"):
            text = re.sub(r"(?<= for: )\w+", lambda found: shortened(found[0]), path.read_text())
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
            route |= {
                name: shortened(route[name]) for name in route if name.startswith(("group_w", "group_i"))
            }
        for target in routing["receivers"]:
            target["webhook_configs"][0]["url"] = f"{receiver.url}/{target['name']}"
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(routing))

    @contextmanager
    def running(self) -> Iterator[None]:
        directory = self._directory
        with ExitStack() as stack:
            stack.enter_context(
                running(
                    directory / "alertmanager.log",
                    binary("prometheus-alertmanager"),
                    f"--config.file={directory / 'alertmanager.yml'}",
                    f"--storage.path={directory / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{self.alertmanager}",
                    "--cluster.listen-address=",
                )
            )
            stack.enter_context(
                running(
                    directory / "prometheus.log",
                    binary(),
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{self.prometheus}",
                )
            )
            yield

    def up(self) -> int:
        answer = get_json(self.prometheus, "/api/v1/query?query=sum(up)") or {"data": {"result": []}}
        return sum(int(sample["value"][1]) for sample in answer["data"]["result"])

    def firing(self) -> dict[tuple[str, str], str]:
        """(alert, instance) -> description of each firing alert."""
        answer = get_json(self.prometheus, "/api/v1/alerts") or {"data": {"alerts": []}}
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", "")): alert["annotations"][
                "description"
            ]
            for alert in answer["data"]["alerts"]
            if alert["state"] == "firing" and alert["labels"]["alertname"] not in IGNORED_ALERTS
        }

    def rule_errors(self) -> list[str]:
        """Rules that failed or were not evaluated yet, with their errors."""
        answer = get_json(self.prometheus, "/api/v1/rules")
        rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
        return [f"{r['name']}: {r['health']} {r.get('lastError', '')}" for r in rules if r["health"] != "ok"]

    def suppressed(self) -> set[tuple[str, str]]:
        """(alert, instance) of each alert that the Alertmanager inhibits because of another alert."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in get_json(self.alertmanager, "/api/v2/alerts") or []
            if alert["status"]["inhibitedBy"]
        }


def address(worker: WorkerProcess) -> str:
    return f"127.0.0.1:{next(line['metrics_port'] for line in worker.lines() if 'metrics_port' in line)}"


def benign_events(count: int) -> list[tuple[int, bytes]]:
    """(partition, event) pairs without an alert or a dead letter."""
    event = {"event_type": "auth_attempt", "source_ip": "192.0.2.1", "status": "success"}
    return [
        (i % 2, json.dumps({**event, "user": f"user-{i % 7}", "timestamp": 1_700_000_000_000 + i}).encode())
        for i in range(count)
    ]


def test_alerts_fire_for_a_refused_model_a_killed_worker_and_a_frozen_worker(
    kafka: str, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry", feature_names=NAMES)
    rows = np.random.default_rng(5).normal(1.0, 2.0, (600, len(NAMES))).astype(np.float32)
    good, bad = (registry.publish(train(rows, seed=seed, trees=30)) for seed in range(2))
    os.truncate(tmp_path / "registry" / "versions" / bad / "forest.safetensors", 1000)
    registry.promote(good)

    def point_to(version: str) -> None:
        """Replace the pointer in one step, as `promote` does, but without its checks."""
        (tmp_path / "pointer").write_text(version)
        (tmp_path / "pointer").replace(tmp_path / "registry" / "current")

    site = Site(
        kafka, tmp_path / "site", models=Models(registry=str(tmp_path / "registry"), poll_seconds=0.2)
    )
    with ExitStack() as stack:
        stack.callback(site.close)
        site.produce(benign_events(400))
        a, b = site.start("a"), site.start("b")
        eventually("both workers are ready", lambda: a.get("/readyz")[0] == b.get("/readyz")[0] == 200)
        at_a, at_b = address(a), address(b)
        receiver = stack.enter_context(Receiver())
        (tmp_path / "monitoring").mkdir()
        monitoring = Monitoring(tmp_path / "monitoring", [at_a, at_b], receiver)
        stack.enter_context(monitoring.running())
        eventually(
            "both workers are scraped and no alert fires",
            lambda: monitoring.up() == 2 and not monitoring.firing(),
        )
        eventually("all rules are evaluated", lambda: not monitoring.rule_errors())

        point_to(bad)
        refused = {("StreamGuardModelRefused", at_a), ("StreamGuardModelRefused", at_b)}
        eventually("both workers refuse the damaged model", lambda: refused <= monitoring.firing().keys())
        assert monitoring.firing().keys() == refused
        description = monitoring.firing()["StreamGuardModelRefused", at_a]
        assert f"names {bad}, which {at_a} refused" in description
        assert f"scores with {good}." in description
        for at in (at_a, at_b):
            sent = ("on-call", "firing", "StreamGuardModelRefused", at)
            eventually("on-call is notified", lambda sent=sent: sent in receiver.received)
        point_to(good)
        eventually("no alert fires any more", lambda: not monitoring.firing())

        b.kill()
        down = ("StreamGuardWorkerDown", at_b)
        eventually("the alert for the killed worker fires", lambda: down in monitoring.firing())
        assert "can take over its partitions: 1." in monitoring.firing()[down]
        eventually("the team is notified", lambda: ("team", "firing", *down) in receiver.received)
        assert ("StreamGuardWorkerHangs", at_b) not in monitoring.firing()

        eventually("a has both partitions", lambda: a.metric('streamguard_partitions{state="ready"}') == 2)
        eventually("only the alert for the killed worker fires", lambda: monitoring.firing().keys() == {down})
        a.signal(signal.SIGSTOP)
        expected = {
            ("StreamGuardWorkerHangs", at_a), ("StreamGuardWorkerDown", at_a), ("StreamGuardNoWorkers", "")
        }  # fmt: skip
        eventually("the alerts for the frozen worker fire", lambda: expected <= monitoring.firing().keys())
        eventually(
            "the alert for its partitions fires",
            lambda: ("StreamGuardPartitionWithoutWorker", "") in monitoring.firing(),
        )
        eventually(
            "on-call is notified",
            lambda: ("on-call", "firing", "StreamGuardNoWorkers", "") in receiver.received,
        )
        consequences = {("StreamGuardWorkerHangs", at_a), ("StreamGuardWorkerDown", at_a), down}
        eventually(
            "the alerts that follow from it are inhibited", lambda: consequences <= monitoring.suppressed()
        )

        a.signal(signal.SIGCONT)
        eventually("only the alert for the killed worker fires", lambda: monitoring.firing().keys() == {down})
        assert a.alive, a.tail()
