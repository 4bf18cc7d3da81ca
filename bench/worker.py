"""A `streamguard worker` in a process of its own, and what its metrics say while it works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from streamguard.kafka import topics
from streamguard.settings.schema import Kafka, Models, Settings, Worker
from streamguard.testing.broker import free_port

PATIENCE_SECONDS = 300.0
EVENTS = "streamguard_events_total"
CPU = "process_cpu_seconds_total"
RESIDENT = "process_resident_memory_bytes"
CHECKPOINTS = "streamguard_checkpoint_seconds_count"


class RunningWorker:
    """One worker; made by `running`.

    Parameters
    ----------
    process, url, log
        Where it is, where its metrics are, what it says.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self._process = process
        self._url = url
        self._log = log

    def metrics(self) -> dict[str, float]:
        """Every metric, summed over its labels; empty before the first answer."""
        try:
            with urllib.request.urlopen(f"{self._url}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        sums: dict[str, float] = {}
        for name, value in re.findall(r"^(\w+)(?:{[^}]*})? (\S+)$", text, re.MULTILINE):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def said(self) -> list[dict[str, Any]]:
        """Its log, as far as it is whole lines of JSON."""
        lines = self._log.read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def until(self, what: str, probe: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The first metrics that fulfil `probe`.

        Raises
        ------
        RuntimeError
            If the worker ends before, or none do in time.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            metrics = self.metrics()
            if metrics and probe(metrics):
                return metrics
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
                raise RuntimeError(f"waited in vain for a worker to have {what}; it said:\n{said}")
            time.sleep(0.05)

    def until_ready(self) -> None:
        """Wait until /readyz is green."""

        def ready(_: dict[str, float]) -> bool:
            try:
                with urllib.request.urlopen(f"{self._url}/readyz", timeout=5):
                    return True
            except OSError:
                return False

        self.until("become ready", ready)

    def until_events(self, count: int) -> dict[str, float]:
        """The first metrics after so many events."""
        return self.until(f"folded {count} events", lambda m: m.get(EVENTS, 0.0) >= count)

    def until_saved(self, checkpoint_seconds: float) -> dict[str, float]:
        """The first metrics after which no checkpoint was written for two intervals."""
        last, since = -1.0, time.monotonic()

        def settled(metrics: dict[str, float]) -> bool:
            nonlocal last, since
            if metrics[CHECKPOINTS] != last:
                last, since = metrics[CHECKPOINTS], time.monotonic()
            return time.monotonic() - since > 2 * checkpoint_seconds

        return self.until("saved everything", settled)


def settings(
    bootstrap_servers: str, directory: Path, registry: Path | None = None, **worker: object
) -> Settings:
    """The defaults, but for the Kafka, the place of the data, a free port, a model registry, and what is given."""
    given = {"data_dir": str(directory), "metrics_port": free_port(), **worker}
    return Settings(
        kafka=Kafka(bootstrap_servers=bootstrap_servers),
        worker=msgspec.convert(given, Worker),
        models=Models(registry=str(registry or "")),
    )


@contextmanager
def running(chosen: Settings) -> Iterator[RunningWorker]:
    """Create the topics and run a worker until the context is left; its compiled kernels should be cached."""
    topics.create(chosen)
    directory = Path(chosen.worker.data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    environ = {
        f"STREAMGUARD_{section}_{name}".upper(): str(value)
        for section, part in msgspec.to_builtins(chosen).items()
        for name, value in part.items()
    }
    log = directory / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamguard.cli", "worker"],
            stdout=out, stderr=out, env={**os.environ, **environ},
        )  # fmt: skip
    try:
        yield RunningWorker(process, f"http://127.0.0.1:{chosen.worker.metrics_port}", log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
