"""CPU per event on a backlog: the whole worker with 300 trees, compared with stock Faust and Quix Streams.

All of them read the same topic; Faust reads only the first tenth of it. The CPU time is that of all threads of the
process from its first events to its last. The programs run in turn for several rounds, and the lowest result of each
one counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure
from bench.traffic import habits, learn, publish, values
from bench.worker import CPU, EVENTS, running, settings
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.testing.broker import LocalKafka

USERS = 10_000
QUIX = "quixstreams==3.28.1"
RIVALS = Path(__file__).parent / "rivals"


def measure(*, quick: bool) -> list[Figure]:
    events, rounds = (20_000, 1) if quick else (500_000, 3)
    few = events // 10
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        directory = Path(name)
        simulation = habits(events, USERS)
        publish(learn(values(habits(5_000 if quick else 20_000, USERS, seed=2)))[1], directory / "registry")
        chosen = settings(kafka.bootstrap_servers, directory)
        topics.create(chosen)
        bootstrap, topic, partitions = (
            kafka.bootstrap_servers,
            chosen.kafka.events_topic,
            chosen.kafka.partitions,
        )
        with EventProducer(Brokers(bootstrap), topic) as producer:
            for block in simulation.blocks():
                producer.send((event.user, event.value) for event in block)
        made = iter(range(100))

        def place() -> Path:
            return directory / f"run-{next(made)}"

        def faust(mode: str, count: int) -> float:
            script = RIVALS / "faust_table.py"
            return _cpu(sys.executable, script, bootstrap, topic, partitions, count, place(), mode)

        def quix(mode: str) -> float:
            script = RIVALS / "quix_state.py"
            return _cpu(_quix_python(), script, bootstrap, topic, events, place(), mode)

        runs: dict[str, Callable[[], float]] = {
            "worker": lambda: _worker(bootstrap, place(), directory / "registry", events),
            "table": lambda: faust("table", few),
            "empty": lambda: faust("empty", few),
        }
        if not quick:  # Quix Streams must be installed first, see `_quix_python`
            runs |= {"quix": lambda: quix("json"), "quix-bytes": lambda: quix("bytes")}
        costs: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                costs[name].append(run())
    lowest = {name: min(found) for name, found in costs.items()}
    figures = [
        Figure(f"worker, {USERS:,} users, 28 features, 300 trees, saved", lowest["worker"], "us", "<= 15"),
        Figure("Faust, one RocksDB table get and set", lowest["table"], "us"),
        Figure("Faust, an agent that does nothing", lowest["empty"], "us"),
        Figure("Faust with a table / worker", lowest["table"] / lowest["worker"], "x", ">= 15"),
    ]
    if not quick:
        figures += [
            Figure("Quix Streams, one state get and set", lowest["quix"], "us"),
            Figure("Quix Streams, one state get and set, events not decoded", lowest["quix-bytes"], "us"),
            Figure("worker / Quix Streams", lowest["worker"] / lowest["quix"], "x", "< 1"),
        ]
    return figures


def _worker(bootstrap: str, directory: Path, registry: Path, events: int) -> float:
    """Microseconds of CPU per event, without the work before the first events, but with the last checkpoint."""
    chosen = settings(bootstrap, directory, app_id=directory.name, registry=registry)
    with running(chosen) as worker:
        first = worker.until_events(1)
        worker.until_events(events)
        last = worker.until_saved(chosen.worker.checkpoint_seconds)
    return (last[CPU] - first[CPU]) / (last[EVENTS] - first[EVENTS]) * 1e6


def _cpu(*command: object) -> float:
    """Run the script of a rival; return the microseconds of CPU per event that it prints."""
    ran = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, check=False
    )
    if ran.returncode or not ran.stdout.strip():
        raise RuntimeError(
            f"{command[1]} exited with {ran.returncode}; the end of its output:\n{ran.stderr[-2000:]}"
        )
    return float(json.loads(ran.stdout.splitlines()[-1])["us"])


def _quix_python() -> Path:
    """Python interpreter of a virtual environment with Quix Streams, which is created once in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(cache, "streamguard", "rivals", QUIX.replace("==", "-"))
    python = directory / "bin" / "python"
    done = directory / "installed"
    if not done.exists():
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", QUIX], check=True)
        done.touch()
    return python
