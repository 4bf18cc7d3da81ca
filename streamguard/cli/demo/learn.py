"""The retrain of the demo: trains a model on the topic, which the running worker then uses."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import click

from streamguard.cli.demo.surroundings import environment
from streamguard.errors import ExitCode, StreamGuardError
from streamguard.settings.schema import Settings


def retrain(settings: Settings) -> dict[str, Any]:
    """Run `streamguard retrain` on Spark over the topic, print its steps, and return its JSON result."""
    click.echo(
        "retrain: Spark replays the topic through the same fold (the first use downloads its Kafka connector)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "streamguard.cli", "retrain", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(settings),
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    log: list[str] = []
    steps = threading.Thread(target=_echo, args=(process.stderr, log))
    steps.start()
    answer = process.stdout.read()
    steps.join()
    if process.wait() not in (ExitCode.OK, ExitCode.NOT_PROMOTED) or not answer:
        raise StreamGuardError(
            f"retrain exited with {process.returncode}; the end of its log:\n" + "\n".join(log[-10:])
        )
    outcome: dict[str, Any] = json.loads(answer)
    return outcome


def _echo(lines: IO[str], log: list[str]) -> None:
    for line in lines:
        log.append(line.rstrip())
        if line.startswith("["):
            click.echo(f"  {line.rstrip()}")


def judgement(outcome: dict[str, Any]) -> str:
    """The gate's verdict and its checks as text; without a model there are no checks."""
    report = json.loads((Path(outcome["directory"]) / "anomaly_report.json").read_bytes())
    checks = [f"    {check['message']}" for check in (report["model"] or {"checks": []})["checks"]]
    return "\n".join([f"  {outcome['message']}", *checks])
