"""The wheel, installed in a clean environment away from the checkout, beside packages with the names of our folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import streamguard
from streamguard.testing.broker import free_port
from tests.harness import eventually
from tests.incidents import published

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
NEIGHBOURS = ("agents", "batch", "serving")
"""Top-level import names of other packages: openai-agents ships `agents`, and overwrote ours in one environment."""

IMPORT_ALL = """
import importlib, pkgutil, sys
import agents, batch, serving
for _, name, _ in pkgutil.walk_packages(importlib.import_module("streamguard").__path__, "streamguard."):
    if not name.endswith("__main__") and not name.startswith(tuple(sys.argv[1:])):
        importlib.import_module(name)
assert agents.__name__ == "agents" and "streamguard" not in agents.__file__
for name, module in sys.modules.items():
    if name.split(".")[0] == "streamguard":
        print(module.__file__)
"""
"""Imports every module but those below the names given, beside the other `agents`; prints the files of ours."""


def environment(**more: str) -> dict[str, str]:
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return own | more


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--outdir", target, ROOT, cwd=target)
    (built,) = target.glob("*.whl")
    return built


def install(wheel: Path, extra: str, where: Path) -> Path:
    """A clean environment with the wheel, what it requires with an extra, and neighbours; its directory of programs.

    The requirements are links to the distributions of the environment that runs the tests, so a package that the wheel
    does not declare is missing, and nothing is downloaded.
    """
    programs = where / "venv" / "bin"
    run(sys.executable, "-m", "venv", "--without-pip", where / "venv", cwd=where)
    run(
        *(sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet"),
        *("--no-compile", "--no-deps", "--no-index", wheel),
        cwd=where,
    )
    site = Path(
        run(programs / "python", "-c", "import site; print(*site.getsitepackages())", cwd=where).strip()
    )
    (installed,) = metadata.distributions(name="streamguard", path=[str(site)])
    for distribution in required(installed, {extra}):
        for entry in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / entry).exists():  # a namespace may have several distributions
                (site / entry).symlink_to(Path(str(distribution.locate_file(entry))))
    for neighbour in NEIGHBOURS:
        (site / neighbour).mkdir()
        (site / neighbour / "__init__.py").touch()
    return programs


def required(installed: metadata.Distribution, extras: set[str]) -> Iterator[metadata.Distribution]:
    """All distributions that one requires, directly or through others, with some of its extras."""
    waiting, done = [(installed, extra) for extra in ("", *extras)], set()
    while waiting:
        distribution, extra = waiting.pop()
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            found = metadata.distribution(requirement.name)
            assert requirement.specifier.contains(found.version, prereleases=True), requirement
            for wanted in {"", *requirement.extras}:
                if (found.name, wanted) not in done:
                    done.add((found.name, wanted))
                    waiting.append((found, wanted))
                    yield found


def check_imports(programs: Path, where: Path, *without: str) -> None:
    assert run(programs / "streamguard", "--version", cwd=where).split()[-1] == streamguard.__version__
    assert "Commands:" in run(programs / "streamguard", "--help", cwd=where)
    places = run(programs / "python", "-c", IMPORT_ALL, *without, cwd=where).splitlines()
    assert len(places) > 100
    assert all(Path(place).is_relative_to(where) for place in places)


def test_the_wheel_has_every_file_under_one_name(wheel: Path) -> None:
    there = {
        str(Path(directory, name).relative_to(ROOT))
        for directory, _, names in os.walk(ROOT / "streamguard", followlinks=True)
        for name in names
        if "__pycache__" not in directory
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == there
    assert {name.partition("/")[0] for name in packed} == {"streamguard"}
    assert {"streamguard/py.typed", "streamguard/alerts/incident.schema.json"} <= packed
    assert "streamguard/campaigns/campaign.schema.json" in packed
    analyst = ("analysis.schema.json", "knowledge.toml", "playbook.toml")
    assert {f"streamguard/analyst/{name}" for name in analyst} <= packed


def test_a_worker_and_replay_run_from_the_plain_wheel(wheel: Path, kafka: str, tmp_path: Path) -> None:
    programs = install(wheel, "", tmp_path)
    check_imports(programs, tmp_path, "streamguard.batch", "streamguard.serving", "streamguard.pictures")
    command, suffix, port = programs / "streamguard", uuid.uuid4().hex[:8], free_port()
    simulate = ("simulate", "--days", "3", "--attack", "brute_force", "--seed", "4")
    run(command, *simulate, "--output", "events.jsonl", cwd=tmp_path)
    replayed = run(command, "replay", "events.jsonl", "--json", cwd=tmp_path).splitlines()
    assert replayed and all(published(line.encode()) for line in replayed)

    settings = {
        "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": kafka,
        "STREAMGUARD_KAFKA_EVENTS_TOPIC": f"events-{suffix}",
        "STREAMGUARD_KAFKA_ALERTS_TOPIC": f"alerts-{suffix}",
        "STREAMGUARD_KAFKA_DEAD_LETTER_TOPIC": f"dead-{suffix}",
        "STREAMGUARD_KAFKA_MODELS_TOPIC": f"models-{suffix}",
        "STREAMGUARD_WORKER_APP_ID": f"wheel-{suffix}",
        "STREAMGUARD_WORKER_METRICS_PORT": str(port),
    }
    run(command, "topics", "create", cwd=tmp_path, **settings)
    run(command, *simulate, cwd=tmp_path, **settings)
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen([command, "worker"], cwd=tmp_path, env=environment(**settings), stderr=log)
    try:

        def alerts() -> float:
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()
            try:
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            except OSError:
                return 0.0
            lines = [
                line
                for line in text.splitlines()
                if line.startswith("streamguard_published_incidents_total{")
            ]
            return sum(float(line.rpartition(" ")[2]) for line in lines)

        eventually("the worker publishes incidents", lambda: alerts() > 0, timeout=180)
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0


def test_a_retrain_runs_from_the_wheel_with_its_extra(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, "batch", tmp_path)
    check_imports(programs, tmp_path, "streamguard.serving")
    command = programs / "streamguard"
    run(command, "simulate", "--days", "30", "--output", "events.jsonl", cwd=tmp_path)
    outcome = json.loads(
        run(command, "retrain", "--engine", "local", "--input", "events.jsonl", "--json", cwd=tmp_path)
    )
    assert outcome["current"] and len(outcome["version"]) == 12


def test_the_page_is_served_from_the_wheel_with_its_extra(wheel: Path, kafka: str, tmp_path: Path) -> None:
    programs = install(wheel, "serve", tmp_path)
    check_imports(programs, tmp_path, "streamguard.batch")
    command = [
        programs / "streamguard",
        "serve",
        "--bootstrap-servers",
        kafka,
        "--port",
        "0",
        "--metrics-port",
        "0",
    ]
    out = tmp_path / "out"
    with out.open("wb") as standard, (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=standard, stderr=log)
    try:

        def address() -> str:
            assert server.poll() is None, (tmp_path / "log").read_text()
            return out.read_text().strip().removeprefix("open ")

        signed_in = eventually("the server prints its address", address)
        home, _, key = signed_in.partition("/sign-in?key=")
        for path in (
            "/",
            "/static/page.css",
            "/static/page.js",
            "/v1/docs",
            "/v1/docs/files/swagger-ui-bundle.js",
        ):
            request = urllib.request.Request(home + path, headers={"Authorization": f"Bearer {key}"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200 and answer.read(), path
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def test_help_loads_nothing_heavy() -> None:
    heavy = [
        "numba",
        "numpy",
        "sklearn",
        "pandas",
        "pyarrow",
        "pyspark",
        "confluent_kafka",
        "faust",
        "rocksdict",
    ]
    program = f"""
import sys
from streamguard.cli.main import main
main(["--help"], standalone_mode=False)
print("loaded:", *(name for name in {heavy} if name in sys.modules))
"""
    assert run(sys.executable, "-c", program, cwd=ROOT).splitlines()[-1].strip() == "loaded:"
