"""Every command and health check of docker-compose.yml, run as it stands there, without an engine.

Only places are others: directories for volumes and paths in images, free ports, loopback for names of services. The
broker is Apache Kafka with the settings that its service gives the image.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from streamguard.jvm.java import find_java
from streamguard.testing.broker import KAFKA, free_port
from tests.composed import ROOT, compose, environment
from tests.harness import eventually

pytestmark = pytest.mark.integration

PROGRAMS = Path(sys.executable).parent
LOCAL = {"prometheus": "/usr/bin/prometheus", "alertmanager": "/usr/bin/prometheus-alertmanager"}
"""Debian's programs in the place of images' entry points."""


class Stack:
    """The services of the file, as processes on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {
            name: free_port() for name in ("kafka", "host", "controller", "9464", "9465", "9090", "9093")
        }
        self.services = compose(
            {
                "GRAFANA_ADMIN_PASSWORD": "chosen",
                "KAFKA_PORT": str(self.ports["host"]),
                "SIMULATED_RATE": "1000",
            }
        )["services"]
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.ports['kafka']}"

    def here(self, text: str, service: str) -> str:
        """A command's argument or variable, with this machine's places in it."""
        for mount in self.services[service].get("volumes", []):
            source, target, *_ = mount.split(":")
            place = ROOT / source if source.startswith(".") else self.directory / "volumes" / source
            place.mkdir(parents=True, exist_ok=True)  # as an engine mounts it
            text = re.sub(rf"(^|=){re.escape(target)}(?=/|$)", rf"\g<1>{place}", text)
        text = text.replace("/var/lib/streamguard", str(self.directory / "unmounted"))
        text = text.replace("/opt/streamguard/kernels", str(self.directory / "kernels"))
        text = text.replace("/tmp/kernels", str(self.directory / service / "kernels"))
        text = text.replace("/dev/tcp/127.0.0.1/9092", f"/dev/tcp/127.0.0.1/{self.ports['kafka']}")
        text = text.replace("kafka:9092", self.bootstrap_servers).replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"(?<=127\.0\.0\.1:)(\d+)", lambda found: str(self._port(found[1], service)), text)

    def _port(self, port: str, service: str) -> int:
        """One of our own for a port of a service in its own network."""
        return self.ports.setdefault(f"{service} {port}", free_port()) if port in self.ports else int(port)

    def environment(self, service: str) -> dict[str, str]:
        """What the image and the file set, beside what this machine needs."""
        given = self.services[service]
        image = environment(given["build"]["target"]) if "build" in given else {}
        set_ = {
            name: self.here(value, service) for name, value in (image | given.get("environment", {})).items()
        }
        for kept in ("XDG_CACHE_HOME", "SPARK_HOME", "SPARK_JAVA", "PYSPARK_PYTHON"):
            set_.pop(kept, None)  # of the image's own packages; here they are those of the tests
        if service.startswith("worker"):
            set_["STREAMGUARD_WORKER_METRICS_PORT"] = str(self._port("9464", service))
        if "STREAMGUARD_BATCH_METRICS_PORT" in set_:
            set_["STREAMGUARD_BATCH_METRICS_PORT"] = str(self._port("9465", service))
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGUARD_")}
        return clean | set_ | {"PATH": path}

    def command(self, service: str) -> list[str]:
        """What the container runs: our entry point, or Debian's program for the image's."""
        given = [self.here(part, service) for part in self.services[service]["command"]]
        if service in LOCAL:
            listen = {"prometheus": "9090", "alertmanager": "9093"}[service]
            return [LOCAL[service], *given, f"--web.listen-address=127.0.0.1:{self._port(listen, service)}"]
        return [str(ROOT / "deploy" / "image" / "entrypoint.sh"), *given]

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """Start a service's command."""
        (self.directory / service).mkdir(exist_ok=True)
        with self.log(service).open("wb") as log:
            process = subprocess.Popen(
                self.command(service), cwd=self.directory / service, env=self.environment(service),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.started[service] = process
        return process

    def log(self, service: str) -> Path:
        return self.directory / f"{service}.log"

    def healthy(self, service: str) -> bool:
        """Run the service's health check, exactly as the engine would."""
        process = self.started.get(service)
        assert process is None or process.poll() is None, self.log(service).read_text()[-3000:]
        how, *command = self.services[service]["healthcheck"]["test"]
        assert how == "CMD"
        check = [self.here(part, service) for part in command]
        return not subprocess.run(
            check, env=self.environment(service), stdin=subprocess.DEVNULL, capture_output=True, check=False
        ).returncode

    def await_healthy(self, service: str, timeout: float = 60.0) -> None:
        eventually(f"{service} is healthy", lambda: self.healthy(service), timeout)

    def end(self, service: str, how: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> int:
        """Stop a service; its exit code."""
        process = self.started.pop(service)
        process.send_signal(how)
        return process.wait(timeout)

    # Kafka, from the variables that its image takes

    def start_kafka(self) -> None:
        """Format and start, as the image does: KAFKA_LOG_DIRS is log.dirs, and so on."""
        variables = self.services["kafka"]["environment"]
        settings = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): self._kafka(value)
            for name, value in variables.items()
            if name != "KAFKA_HEAP_OPTS"
        }
        (self.directory / "kafka").mkdir()
        properties = self.directory / "kafka" / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        java = find_java()
        run = [str(java), *variables["KAFKA_HEAP_OPTS"].split(), "-XX:+UseSerialGC"]
        run += ["-XX:TieredStopAtLevel=1", "-cp", f"{KAFKA.fetched(java)}/*"]
        form = ["kafka.tools.StorageTool", "format", "--cluster-id", "4L6g3nShT-eMCtK--X86sw"]
        with self.log("kafka").open("wb") as log:
            subprocess.run([*run, *form, "--config", str(properties)], stdout=log, stderr=log, check=True)
            self.started["kafka"] = subprocess.Popen(
                [*run, "kafka.Kafka", str(properties)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _kafka(self, value: str) -> str:
        value = value.replace("/var/lib/kafka/data", str(self.directory / "volumes" / "kafka"))
        for port, name in (("9092", "kafka"), ("29092", "host"), ("9093", "controller")):
            value = re.sub(rf"(?<=://):{port}\b", f"127.0.0.1:{self.ports[name]}", value)
            value = re.sub(rf"(?:kafka|localhost):{port}\b", f"127.0.0.1:{self.ports[name]}", value)
        return value


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka runs, the topics are made, kernels are compiled as an image has them."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    kernels = stack.directory / "kernels"
    environ = os.environ | environment("worker-files") | {"NUMBA_CACHE_DIR": str(kernels)}
    environ.pop("XDG_CACHE_HOME")
    subprocess.run([sys.executable, ROOT / "deploy" / "image" / "kernels.py"], env=environ, check=True)
    try:
        stack.start_kafka()
        stack.await_healthy("kafka")
        assert stack.start("topics").wait(60) == 0, stack.log("topics").read_text()
        stack.started.pop("topics")
        yield stack
    finally:
        for service in list(stack.started):
            stack.started[service].kill()
            stack.started[service].wait()


def test_topics_are_made_with_the_partitions_of_the_file(stack: Stack) -> None:
    assert "all topics are as they should be" in stack.log("topics").read_text()
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{stack.ports['host']}"})  # as from this machine
    assert len(admin.list_topics(timeout=30).topics["security-events"].partitions) == 4


def test_workers_share_the_simulators_events_follow_a_retrain_and_save_at_the_end(stack: Stack) -> None:
    workers = ["worker-1", "worker-2"]
    assert not any(stack.healthy(service) for service in [*workers, "retrain"])
    for worker in workers:
        stack.start(worker)
    for worker in workers:
        stack.await_healthy(worker)
    simulator = stack.start("simulator")
    eventually("events are scored", lambda: _committed(stack) > 10_000, 120)

    stack.start("retrain")
    current = stack.directory / "volumes" / "models" / "current"
    eventually("the first run has made a model", lambda: _alive(stack, "retrain") and current.exists(), 240)
    stack.await_healthy("retrain")
    version = current.read_text().splitlines()[0]
    for worker in workers:
        eventually(f"{worker} has the model", lambda w=worker: version in _versions(stack, w))

    assert simulator.poll() is None
    assert stack.end("simulator", signal.SIGINT) == 0
    assert stack.end("retrain", timeout=120) == 0, stack.log("retrain").read_text()
    for worker in workers:
        before, after = (
            {path.relative_to(place) for path in place.rglob("*.nbc")}
            for place in (stack.directory / "kernels", stack.directory / worker / "kernels")
        )
        assert after == before, "a worker compiled what the image should have had"
        assert stack.end(worker) == 0, stack.log(worker).read_text()


@pytest.mark.parametrize("service", ["alertmanager", "prometheus"])
def test_what_watches_starts_and_is_healthy(stack: Stack, service: str) -> None:
    assert not stack.healthy(service)
    stack.start(service)
    stack.await_healthy(service)
    assert stack.end(service) == 0, stack.log(service).read_text()


def _alive(stack: Stack, service: str) -> bool:
    assert stack.started[service].poll() is None, stack.log(service).read_text()
    return True


def _committed(stack: Stack) -> int:
    """Events that checkpoints stand for, by the group's offsets."""
    for service in ("worker-1", "worker-2", "simulator"):
        _alive(stack, service)
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers, "log_level": 0})
    group = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("streamguard")])["streamguard"]
    return sum(max(place.offset, 0) for place in group.result(30).topic_partitions or [])


def _versions(stack: Stack, worker: str) -> list[str]:
    """Versions of the forests that a worker scores with."""
    url = stack.here("http://127.0.0.1:9464/metrics", worker)
    with urllib.request.urlopen(url, timeout=5) as answer:
        return re.findall(
            r'^streamguard_model_info\{version="(\w+)"\} 1', answer.read().decode(), re.MULTILINE
        )
