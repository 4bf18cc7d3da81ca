"""Every query of every panel has values on a real Prometheus: workers, a retrain and a server during attacks."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grafana.generate import DIRECTORY
from streamguard.settings.schema import Models
from streamguard.testing.broker import free_port
from tests.harness import Site, WorkerProcess, eventually
from tests.prometheus import Prometheus, binary

pytestmark = pytest.mark.integration

EMPTY = {"overview / Prometheus alerts": "no alert fires"}
"""dashboard / panel -> why it is empty in a healthy system."""

READY = 'sum(streamguard_partitions{state="ready"})'
ASKED = 'sum(rate(streamguard_serve_requests_total{route="api", status="2xx"}[8s])) > 0'


@dataclass
class Scene:
    """The running processes, and the time range in which they ran."""

    prometheus: Prometheus
    workers: list[WorkerProcess]
    retrain_port: int
    began: float
    serve_port: int = 0
    ended: float = 0.0


@pytest.fixture(scope="module")
def scene(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Ten days of habits, attacks in live traffic, unreadable records, two models, and a second worker that joins."""
    directory = tmp_path_factory.mktemp("dashboards")
    models = Models(registry=str(directory / "models"), poll_seconds=0.5, shadow=True)
    site = Site(kafka, directory / "site", models=models, chunk_events=500, checkpoint_events=5000)
    processes: list[subprocess.Popen[bytes]] = []
    config = str(directory / "site" / "streamguard.toml")

    def streamguard(*arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("streamguard")), arguments[0], "--config", config]
        with (directory / f"{arguments[0]}-{len(processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *arguments[1:]], stdout=log, stderr=log, env={**os.environ, **environ}
            )
        processes.append(process)
        return process

    def start(name: str) -> WorkerProcess:
        worker = site.start(name)
        port = eventually(f"{name} serves", lambda: worker.port)
        prometheus.scrape("streamguard-worker", port)
        return worker

    with Prometheus(directory / "prometheus") as prometheus:
        try:
            scene = Scene(prometheus, [], free_port(), time.time())
            scene.workers.append(start("a"))
            habits = streamguard("simulate", "--days", "10", "--users", "40", "--events-per-day", "50")
            assert habits.wait(60) == 0
            eventually(
                "habits are folded", lambda: (prometheus.value("sum(streamguard_events_total)") or 0) > 15_000
            )
            attacks = [
                f"--attack={name}" for name in ("brute_force", "ransomware", "dns_tunnel", "password_spray")
            ]
            streamguard(
                "simulate", "--rate", "250", "--duration", "200s", "--users", "40", "--window", "0.02", "0.1",
                *attacks,
            )  # fmt: skip
            site.produce((i % 2, value) for i, value in enumerate([b"[", b"", b'{"user": "a"}'] * 20))
            streamguard(
                "retrain", "--engine", "local", "--output", str(directory / "runs"), "--every", "3s",
                STREAMGUARD_BATCH_METRICS_PORT=str(scene.retrain_port), STREAMGUARD_BATCH_JITTER_SECONDS="0",
            )  # fmt: skip
            prometheus.scrape("streamguard-retrain", scene.retrain_port)
            eventually("a model is in use", lambda: prometheus.value("sum(streamguard_model_info)"))
            campaigns_port = free_port()
            streamguard("campaigns", STREAMGUARD_CAMPAIGNS_METRICS_PORT=str(campaigns_port))
            prometheus.scrape("streamguard-campaigns", campaigns_port)
            scene.serve_port = free_port()
            page = streamguard(
                "serve", "--port", "0", "--metrics-port", str(scene.serve_port), "--data-dir", str(directory / "serve"),
            )  # fmt: skip
            prometheus.scrape("streamguard-serve", scene.serve_port)
            scene.workers.append(start("b"))
            eventually(
                "the rebalance is complete",
                lambda: prometheus.value(f"{READY} and count(streamguard_ready == 1) == 2"),
            )
            eventually(
                "drift is measured", lambda: prometheus.value("max(streamguard_retrain_drift_psi) >= 0")
            )
            eventually(
                "a challenger is scored in shadow mode",
                lambda: prometheus.value("sum(streamguard_shadow_events_total) > 0"),
            )
            eventually(
                "attacks are found",
                lambda: prometheus.value("sum(streamguard_published_incidents_total) > 3"),
            )
            eventually(
                "campaigns are published",
                lambda: prometheus.value("sum(streamguard_campaigns_published_total) > 0"),
            )
            log = directory / f"serve-{processes.index(page)}.log"
            eventually("the API is asked", lambda: asked(log) and prometheus.value(ASKED))
            settled = prometheus.value("sum(streamguard_events_total)") or 0.0
            eventually(
                "two more scrapes have new events",
                lambda: (prometheus.value("sum(streamguard_events_total)") or 0) > settled + 500,
            )
            scene.ended = time.time()
            yield scene
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
            site.close()


def asked(log: Path) -> bool:
    """Ask the API of a server once, with the key in its log."""
    found = re.search(r"^open (\S+)/sign-in\?key=(\S+)$", log.read_text(), re.MULTILINE)
    if found is None:
        return False
    request = urllib.request.Request(
        f"{found[1]}/v1/statistics", headers={"Authorization": f"Bearer {found[2]}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bool(answer.status == 200)


def dashboards() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("*.json"))}


def substituted(expression: str, scene: Scene) -> str:
    """A query with its variables replaced, as Grafana sends it."""
    range_seconds = f"{math.ceil(scene.ended - scene.began)}s"
    for name, value in (("__rate_interval", "8s"), ("__range", range_seconds)):
        expression = expression.replace(f"${name}", value)
    return re.sub(r"\$(job|instance|partition|severity)\b", ".+", expression)


def numbers(scene: Scene, expression: str) -> list[float]:
    """The finite values of a query over the whole time range of the scene."""
    parameters = {
        "query": substituted(expression, scene),
        "start": scene.began,
        "end": scene.ended,
        "step": 1,
    }
    assert "$" not in parameters["query"], parameters["query"]
    result = scene.prometheus.ask("query_range", parameters)["result"]
    found = [float(value) for series in result for _, value in series["values"]]
    return [value for value in found if math.isfinite(value)]


def test_every_query_of_every_panel_has_values(scene: Scene) -> None:
    empty = [
        f"{name} / {panel['title']}: {target['expr']}"
        for name, dashboard in dashboards().items()
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        if not numbers(scene, target["expr"]) and f"{name} / {panel['title']}" not in EMPTY
    ]
    assert empty == []


def test_every_variable_and_every_annotation_has_values(scene: Scene) -> None:
    for name, dashboard in dashboards().items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                match = re.fullmatch(
                    r"label_values\((.+), (\w+)\)", substituted(variable["definition"], scene)
                )
                assert match, variable
                assert scene.prometheus.ask(f"label/{match[2]}/values", {"match[]": match[1]}), (
                    name,
                    variable,
                )
        for annotation in dashboard["annotations"]["list"]:
            assert numbers(scene, annotation["expr"]), (name, annotation["name"])


def test_scrape_has_fewer_than_1500_samples(scene: Scene) -> None:
    largest = scene.prometheus.value(
        'max(max_over_time(scrape_samples_scraped{job="streamguard-worker"}[2m]))'
    )
    assert largest is not None and largest < 1500


def test_metrics_pass_promtool_check(scene: Scene) -> None:
    for port in (scene.workers[0].port, scene.retrain_port, scene.serve_port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            text = response.read()
        checked = subprocess.run(
            [binary("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
        )
        ours = [line for line in checked.stderr.decode().splitlines() if line.startswith("streamguard")]
        assert ours == []
