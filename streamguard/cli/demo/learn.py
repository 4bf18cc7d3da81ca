"""The demo's retrain: the topic it has just filled becomes a model, which the running worker takes over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import click

from streamguard.errors import ExitCode, StreamGuardError
from streamguard.settings.schema import Settings


def retrain(settings: Settings, output: Path) -> dict[str, Any]:
    """Run `streamguard retrain` on Spark over the topic, its steps printed as they come; what it came to."""
    environ = {
        "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "STREAMGUARD_MODELS_REGISTRY": settings.models.registry,
    }
    click.echo(
        "retrain: Spark replays the topic through the same fold (the first use fetches its Kafka connector)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "streamguard.cli", "retrain", "--json", "--output", str(output)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    said: list[str] = []
    steps = threading.Thread(target=_echo, args=(process.stderr, said))
    steps.start()
    answer = process.stdout.read()
    steps.join()
    if process.wait() not in (ExitCode.OK, ExitCode.NOT_PROMOTED) or not answer:
        raise StreamGuardError(
            f"retrain ended with code {process.returncode}; it said:\n" + "\n".join(said[-10:])
        )
    outcome: dict[str, Any] = json.loads(answer)
    return outcome


def _echo(lines: IO[str], said: list[str]) -> None:
    for line in lines:
        said.append(line.rstrip())
        if line.startswith("["):
            click.echo(f"  {line.rstrip()}")


def judgement(outcome: dict[str, Any]) -> str:
    """The gate's verdict and what it rests on, in words; without a model there was nothing to judge."""
    report = json.loads((Path(outcome["directory"]) / "anomaly_report.json").read_bytes())
    checks = [f"    {check['says']}" for check in (report["model"] or {"checks": []})["checks"]]
    return "\n".join([f"  {outcome['says']}", *checks])
