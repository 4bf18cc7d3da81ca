"""A whole retrain from process start: 2,500 events, a million and ten million events.

The CPU time is that of the whole process tree, with the workers of Spark. The rival computes its features in Spark SQL
over the same topic, from a DataFrame that is parsed once and persisted. The topic of ten million events has simpler
events than the others; see `Invented` in `bench/traffic.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figures import Figure
from bench.traffic import Invented, habits
from bench.worker import settings
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.settings.schema import Settings
from streamguard.testing.broker import LocalKafka

RIVAL = Path(__file__).parent / "rivals" / "spark_sql.py"
_SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a command.

    Attributes
    ----------
    wall, cpu
        Seconds.
    memory
        Maximum memory (PSS) of all processes together, in MB.
    output
        Standard output.
    driver
        Maximum memory (PSS) of the first process alone, in MB.
    """

    wall: float
    cpu: float
    memory: float
    output: str
    driver: float


def measure(*, quick: bool) -> list[Figure]:
    sizes = (
        [("seed", 2_500, 14)]
        if quick
        else [("seed", 2_500, 14), ("1M", 1_000_000, 10_000), ("10M", 10_000_000, 10_000)]
    )
    figures: list[Figure] = []
    limits = {
        ("seed", "spark"): "<= 14", ("seed", "local"): "<= 3", ("1M", "spark"): "<= 32", ("1M", "local"): "<= 10",
        ("10M", "spark"): "<= 180",
    }  # fmt: skip
    memory: dict[tuple[str, str], float] = {}
    versions: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        for size, events, users in sizes:
            directory = Path(name, size)
            chosen = settings(kafka.bootstrap_servers, directory, app_id=size)
            topic = f"events-{size}"
            fill(chosen, topic, events, users)
            cpu = {}
            for engine in ("local", "spark"):
                rounds = 2 if size == "seed" and not quick else 1
                fastest = min(
                    (retrain(chosen, topic, directory / f"{engine}-{k}", engine) for k in range(rounds)),
                    key=lambda r: r.wall,
                )
                result = json.loads(fastest.output.splitlines()[-1])
                versions.setdefault(size, set()).add(result["version"])
                cpu[engine], memory[size, engine] = fastest.cpu, fastest.memory
                what = f"{events:,} events, {users:,} users, {engine}"
                figures.append(Figure(what, fastest.wall, "s", limits.get((size, engine), "")))
                figures.append(Figure("  its CPU", fastest.cpu, "s"))
                figures.append(Figure("  its memory", fastest.memory, "MB"))
            if size == "1M":
                rival = ran(
                    [sys.executable, str(RIVAL), kafka.bootstrap_servers, topic, str(directory / "rival")]
                )
                figures.append(Figure("  CPU of similar features in Spark SQL, persisted", rival.cpu, "s"))
                figures.append(
                    Figure("  Spark SQL / Spark with the fold", rival.cpu / cpu["spark"], "x", ">= 2")
                )
            figures.append(
                Figure("  different models of the two engines", float(len(versions[size])), "", "<= 1")
            )
    if not quick:
        for engine in ("local", "spark"):
            figures.append(
                Figure(
                    f"memory at 10M events / at 1M events, {engine}",
                    memory["10M", engine] / memory["1M", engine],
                    "x",
                    "<= 1.5",
                )
            )
    return figures


def fill(chosen: Settings, topic: str, events: int, users: int) -> None:
    """Create a topic and fill it with events of the simulator, or of `Invented` for more than a million events."""
    import msgspec

    kafka = msgspec.structs.replace(chosen.kafka, events_topic=topic)
    topics.create(msgspec.structs.replace(chosen, kafka=kafka))
    with EventProducer(Brokers(chosen.kafka.bootstrap_servers), topic, linger_ms=20.0) as producer:
        if events <= 1_000_000:
            for block in habits(events, users).blocks():
                producer.send((event.user, event.value) for event in block)
        else:
            invented = Invented(step_ms=259)  # ten million in a month
            order = ((k * 7919) % users for k in range(events))
            producer.send(invented.events(order))


def retrain(chosen: Settings, topic: str, output: Path, engine: str) -> Ran:
    """Retrain from a topic."""
    environ = {
        "STREAMGUARD_KAFKA_BOOTSTRAP_SERVERS": chosen.kafka.bootstrap_servers,
        "STREAMGUARD_KAFKA_EVENTS_TOPIC": topic,
    }
    command = [
        sys.executable,
        "-m",
        "streamguard.cli",
        "retrain",
        "--json",
        "--engine",
        engine,
        "--output",
        str(output),
    ]
    return ran(command, environ)


def ran(command: list[str], environ: dict[str, str] | None = None) -> Ran:
    """Run a command to its end; measure CPU and memory of its process tree."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environ or {})},
    )
    peak: list[float] = [0.0, 0.0]
    cpu: dict[tuple[int, float], float] = {}
    stop = threading.Event()
    watch = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak, cpu, stop.is_set))
    watch.start()
    out, error = process.communicate()
    wall = time.perf_counter() - begun
    stop.set()
    watch.join()
    if process.returncode not in (0, 3):
        raise RuntimeError(
            f"{' '.join(command)} exited with {process.returncode}; the end of its output:\n{error[-2000:]}"
        )
    return Ran(wall, sum(cpu.values()), peak[0], out, peak[1])


def _watch(
    root: psutil.Process, peak: list[float], cpu: dict[tuple[int, float], float], stopped: Callable[[], bool]
) -> None:
    """Sample a process tree: maximum memory of all and of the first, and the CPU time of each at the last sample."""
    while not stopped():
        memory = 0.0
        try:
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                times = process.cpu_times()
                cpu[process.pid, process.create_time()] = times.user + times.system
                used = process.memory_full_info().pss / 1e6
                memory += used
                if process is root:
                    peak[1] = max(peak[1], used)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak[0] = max(peak[0], memory)
        time.sleep(_SAMPLE_SECONDS)
