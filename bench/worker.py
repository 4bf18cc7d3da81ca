"""Runs a `streamguard worker` in a separate process and reads its metrics."""

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
from streamguard.polling import poll_until
from streamguard.settings.schema import Kafka, Models, Settings, Worker
from streamguard.testing.broker import free_port

PATIENCE_SECONDS = 300.0
"""Maximum time to wait for a worker."""
EVENTS = "streamguard_events_total"
CPU = "process_cpu_seconds_total"
RESIDENT = "process_resident_memory_bytes"
CHECKPOINTS = "streamguard_checkpoint_seconds_count"


class RunningWorker:
    """A running worker. `running` creates it.

    Parameters
    ----------
    process
        Process of the worker.
    url
        Address of its metrics, without a path.
    log
        File of its log.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self._process = process
        self._url = url
        self._log = log

    def metrics(self) -> dict[str, float]:
        """Every metric, summed over its labels; empty if the worker does not answer."""
        try:
            with urllib.request.urlopen(f"{self._url}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        sums: dict[str, float] = {}
        for name, value in re.findall(r"^(\w+)(?:{[^}]*})? (\S+)$", text, re.MULTILINE):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def peak(self) -> int:
        """Largest resident memory that the process has had, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0]) << 10

    def log(self) -> list[dict[str, Any]]:
        """The complete JSON lines of the worker's log."""
        lines = self._log.read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def until(self, what: str, probe: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """Wait for metrics for which `probe` returns True, and return them.

        Parameters
        ----------
        what
            What is waited for, for the error message.

        Raises
        ------
        RuntimeError
            If the worker ends before, or the wait takes too long.
        """

        def answer() -> dict[str, float] | None:
            metrics = self.metrics()
            if metrics and probe(metrics):
                return metrics
            if self._process.poll() is not None:
                raise TimeoutError
            return None

        try:
            return poll_until(answer, PATIENCE_SECONDS) or {}
        except TimeoutError:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
            raise RuntimeError(
                f"waited in vain until the worker {what}; the end of its log:\n{tail}"
            ) from None

    def until_ready(self) -> None:
        """Wait until /readyz answers with 200."""

        def ready(_: dict[str, float]) -> bool:
            try:
                with urllib.request.urlopen(f"{self._url}/readyz", timeout=5):
                    return True
            except OSError:
                return False

        self.until("is ready", ready)

    def until_events(self, count: int) -> dict[str, float]:
        """Wait until this many events are folded; return the metrics."""
        return self.until(f"has folded {count:,} events", lambda m: m.get(EVENTS, 0.0) >= count)

    def until_saved(self, checkpoint_seconds: float) -> dict[str, float]:
        """Wait until no checkpoint was written for two intervals; return the metrics."""
        last, since = -1.0, time.monotonic()

        def settled(metrics: dict[str, float]) -> bool:
            nonlocal last, since
            if metrics[CHECKPOINTS] != last:
                last, since = metrics[CHECKPOINTS], time.monotonic()
            return time.monotonic() - since > 2 * checkpoint_seconds

        return self.until("has saved everything", settled)


def settings(
    bootstrap_servers: str, directory: Path, registry: Path | None = None, **worker: object
) -> Settings:
    """Default settings with another Kafka, data directory, free port and registry, and the given settings."""
    given = {"data_dir": str(directory), "metrics_port": free_port(), **worker}
    return Settings(
        kafka=Kafka(bootstrap_servers=bootstrap_servers),
        worker=msgspec.convert(given, Worker),
        models=Models(registry=str(registry or "")),
    )


def environment(chosen: Settings) -> dict[str, str]:
    """The environment of a process that uses the settings."""
    own = {
        f"STREAMGUARD_{section}_{name}".upper(): str(value)
        for section, part in msgspec.to_builtins(chosen).items()
        for name, value in part.items()
    }
    return {**os.environ, **own}


@contextmanager
def running(chosen: Settings) -> Iterator[RunningWorker]:
    """Create the topics, and run a worker until the context ends. The compiled kernels should be cached."""
    topics.create(chosen)
    directory = Path(chosen.worker.data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamguard.cli", "worker"],
            stdout=out, stderr=out, env=environment(chosen),
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
