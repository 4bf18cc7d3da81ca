"""Every command and health check of docker-compose.yml, run unchanged as a process, without a container engine.

Only paths, ports and host names are replaced: directories for volumes and paths in images, free ports, and loopback
for the names of services. The broker is Apache Kafka with the settings that its service passes to the image.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from streamguard.jvm.java import find_java
from streamguard.serving.api import keys
from streamguard.testing.broker import KAFKA, free_port
from tests.composed import ROOT, compose, environment
from tests.harness import eventually

pytestmark = pytest.mark.integration

PROGRAMS = Path(sys.executable).parent
LOCAL = {"prometheus": "/usr/bin/prometheus", "alertmanager": "/usr/bin/prometheus-alertmanager"}
"""Programs of Debian that replace the entry points of images."""


class Stack:
    """The services of docker-compose.yml, as processes on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {
            name: free_port()
            for name in (
                "kafka",
                "host",
                "controller",
                "9464",
                "9465",
                "9466",
                "9467",
                "9468",
                "8080",
                "9090",
                "9093",
            )
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

    def local(self, text: str, service: str) -> str:
        """An argument or variable of a service, with the paths and ports of this machine."""
        for mount in self.services[service].get("volumes", []):
            source, target, *_ = mount.split(":")
            path = ROOT / source if source.startswith(".") else self.directory / "volumes" / source
            path.mkdir(parents=True, exist_ok=True)  # a container engine creates it, too
            text = re.sub(rf"(^|=){re.escape(target)}(?=/|$)", rf"\g<1>{path}", text)
        text = text.replace("/var/lib/streamguard", str(self.directory / "unmounted"))
        text = text.replace("/opt/streamguard/kernels", str(self.directory / "kernels"))
        text = text.replace("/tmp/kernels", str(self.directory / service / "kernels"))
        text = text.replace("/dev/tcp/127.0.0.1/9092", f"/dev/tcp/127.0.0.1/{self.ports['kafka']}")
        text = text.replace("kafka:9092", self.bootstrap_servers).replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"(?<=127\.0\.0\.1:)(\d+)", lambda found: str(self._port(found[1], service)), text)

    def _port(self, port: str, service: str) -> int:
        """The free port that replaces a port of a service."""
        return self.ports.setdefault(f"{service} {port}", free_port()) if port in self.ports else int(port)

    def environment(self, service: str) -> dict[str, str]:
        """Variables of the image and of docker-compose.yml, and those that the tests need on this machine."""
        given = self.services[service]
        image = environment(given["build"]["target"]) if "build" in given else {}
        set_ = {
            name: self.local(value, service) for name, value in (image | given.get("environment", {})).items()
        }
        for kept in ("XDG_CACHE_HOME", "SPARK_HOME", "SPARK_JAVA", "PYSPARK_PYTHON"):
            set_.pop(kept, None)  # they point to packages of the image; the tests use the installed ones
        if service.startswith("worker"):
            set_["STREAMGUARD_WORKER_METRICS_PORT"] = str(self._port("9464", service))
        if service == "sources":
            set_["STREAMGUARD_SOURCES_METRICS_PORT"] = str(self._port("9467", service))
        if service == "campaigns":
            set_["STREAMGUARD_CAMPAIGNS_METRICS_PORT"] = str(self._port("9466", service))
        if service == "serve":
            set_["STREAMGUARD_SERVE_PORT"] = str(self._port("8080", service))
            set_["STREAMGUARD_SERVE_METRICS_PORT"] = str(self._port("9468", service))
        if "STREAMGUARD_BATCH_METRICS_PORT" in set_:
            set_["STREAMGUARD_BATCH_METRICS_PORT"] = str(self._port("9465", service))
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGUARD_")}
        return clean | set_ | {"PATH": path}

    def command(self, service: str) -> list[str]:
        """Command of the container: the image's entry point, or the program of Debian that replaces it."""
        given = [self.local(part, service) for part in self.services[service]["command"]]
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
        """Run the health check of a service, as a container engine does."""
        process = self.started.get(service)
        assert process is None or process.poll() is None, self.log(service).read_text()[-3000:]
        how, *command = self.services[service]["healthcheck"]["test"]
        assert how == "CMD"
        check = [self.local(part, service) for part in command]
        return not subprocess.run(
            check, env=self.environment(service), stdin=subprocess.DEVNULL, capture_output=True, check=False
        ).returncode

    def await_healthy(self, service: str, timeout: float = 60.0) -> None:
        eventually(f"{service} is healthy", lambda: self.healthy(service), timeout)

    def end(self, service: str, how: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> int:
        """Stop a service and return its exit code."""
        process = self.started.pop(service)
        process.send_signal(how)
        return process.wait(timeout)

    # Kafka, with the variables of its image

    def start_kafka(self) -> None:
        """Format the storage and start Kafka, as the image does. KAFKA_LOG_DIRS sets log.dirs, and so on."""
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
        format_storage = ["kafka.tools.StorageTool", "format", "--cluster-id", "4L6g3nShT-eMCtK--X86sw"]
        with self.log("kafka").open("wb") as log:
            subprocess.run(
                [*run, *format_storage, "--config", str(properties)], stdout=log, stderr=log, check=True
            )
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
    """A running Kafka with the topics, and kernels compiled as in an image."""
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


def test_topics_service_creates_topics_with_the_partitions_of_the_file(stack: Stack) -> None:
    assert f"all topics at {stack.bootstrap_servers} are as required" in stack.log("topics").read_text()
    admin = AdminClient(
        {"bootstrap.servers": f"127.0.0.1:{stack.ports['host']}"}
    )  # the listener for this machine
    assert len(admin.list_topics(timeout=30).topics["security-events"].partitions) == 4


def test_two_workers_score_simulated_events_load_a_retrained_model_and_stop_cleanly(stack: Stack) -> None:
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
    eventually(
        "the first run has promoted a model", lambda: _alive(stack, "retrain") and current.exists(), 240
    )
    stack.await_healthy("retrain")
    version = current.read_text().splitlines()[0]
    for worker in workers:
        eventually(f"{worker} has the model", lambda w=worker: version in _versions(stack, w))

    assert simulator.poll() is None
    assert stack.end("simulator", signal.SIGINT) == 0
    assert stack.end("retrain", timeout=120) == 0, stack.log("retrain").read_text()
    for worker in workers:
        assert _compiled(stack, worker) == set(), "the image should contain these kernels"
        assert stack.end(worker) == 0, stack.log(worker).read_text()


@pytest.mark.parametrize("service", ["alertmanager", "prometheus"])
def test_monitoring_service_starts_and_becomes_healthy(stack: Stack, service: str) -> None:
    assert not stack.healthy(service)
    stack.start(service)
    stack.await_healthy(service)
    assert stack.end(service) == 0, stack.log(service).read_text()


def test_sources_service_becomes_healthy_and_stops_cleanly(stack: Stack) -> None:
    assert not stack.healthy("sources")
    stack.start("sources")
    stack.await_healthy("sources")
    assert stack.end("sources") == 0, stack.log("sources").read_text()


def test_campaigns_service_becomes_healthy_and_stops_cleanly(stack: Stack) -> None:
    assert not stack.healthy("campaigns")
    stack.start("campaigns")
    stack.await_healthy("campaigns")
    assert stack.end("campaigns", timeout=10) == 0, stack.log("campaigns").read_text()


def test_serve_service_becomes_healthy_answers_a_key_of_its_volume_and_stops_cleanly(stack: Stack) -> None:
    assert not stack.healthy("serve")
    stack.start("serve")
    stack.await_healthy("serve")
    assert _status(stack, "") == 401
    assert "sign-in?key=" not in stack.log("serve").read_text(), "keys are in the file alone"
    key, made = keys.new_key("ann", "viewer", 3600)
    keys.write(Path(stack.environment("serve")["STREAMGUARD_SERVE_KEYS_FILE"]), [made])
    assert _status(stack, key) == 200
    assert (stack.directory / "volumes" / "serve" / "projection").is_dir()
    eventually("profiles are known", lambda: "changelog" in _fresh(stack))
    assert _compiled(stack, "serve") == set(), "the image should contain these kernels"
    assert stack.end("serve", timeout=15) == 0, stack.log("serve").read_text()


def _fresh(stack: Stack) -> set[str]:
    """Topics that the server knows up to now."""
    url = stack.local("http://127.0.0.1:9468/metrics", "serve")
    with urllib.request.urlopen(url, timeout=5) as answer:
        found = re.findall(
            r'^streamguard_serve_staleness_seconds\{topic="(\w+)"\} (\S+)$', answer.read().decode(), re.M
        )
    return {topic for topic, seconds in found if float(seconds) < 1}


def _compiled(stack: Stack, service: str) -> set[Path]:
    """Kernels that a service has compiled, because the image does not contain them."""
    before, after = (
        {path.relative_to(directory) for path in directory.rglob("*.nbc")}
        for directory in (stack.directory / "kernels", stack.directory / service / "kernels")
    )
    assert before <= after
    return after - before


def _status(stack: Stack, key: str) -> int:
    """Status of a request to the API, at the port that is published."""
    address = stack.local("http://127.0.0.1:8080/v1/statistics", "serve")
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _alive(stack: Stack, service: str) -> bool:
    assert stack.started[service].poll() is None, stack.log(service).read_text()
    return True


def _committed(stack: Stack) -> int:
    """Number of checkpointed events, computed from the committed offsets of the group."""
    for service in ("worker-1", "worker-2", "simulator"):
        _alive(stack, service)
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers, "log_level": 0})
    group = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("streamguard")])["streamguard"]
    return sum(max(committed.offset, 0) for committed in group.result(30).topic_partitions or [])


def _versions(stack: Stack, worker: str) -> list[str]:
    """Versions of the forests with which a worker scores events."""
    url = stack.local("http://127.0.0.1:9464/metrics", worker)
    with urllib.request.urlopen(url, timeout=5) as answer:
        return re.findall(
            r'^streamguard_model_info\{version="(\w+)"\} 1', answer.read().decode(), re.MULTILINE
        )
