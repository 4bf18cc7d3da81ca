"""Time of `streamguard --help`, and time until a worker with compiled kernels is ready."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.worker import running, settings
from streamguard.testing.broker import LocalKafka


def measure(*, quick: bool) -> list[Figure]:
    command = Path(sys.executable).with_name("streamguard")
    subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)  # compiles modules once
    help_seconds = []
    for _ in range(2 if quick else 5):
        begun = time.perf_counter()
        subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)
        help_seconds.append(time.perf_counter() - begun)
    ready_seconds = []
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as directory, LocalKafka() as kafka:
        # The first worker compiles the kernels if they are not cached, and is not measured.
        for start in range(1 if quick else 4):
            chosen = settings(kafka.bootstrap_servers, Path(directory, str(start)), app_id=f"start-{start}")
            begun = time.perf_counter()
            with running(chosen) as worker:
                worker.until_ready()
                ready_seconds.append(time.perf_counter() - begun)
    return [
        Figure("streamguard --help, median", median(help_seconds), "s", "< 0.3"),
        Figure("worker from start to ready, median", median(ready_seconds[-3:]), "s"),
    ]
