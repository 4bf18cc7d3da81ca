"""Time from an event to its alert, and CPU per event: the whole worker at 1,000 events a second, with attacks."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.figures import Figure
from bench.topic import read
from bench.traffic import habits, learn, publish, values
from bench.worker import CPU, EVENTS, running, settings
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.settings.schema import Settings
from streamguard.simulate import Simulation
from streamguard.simulate.pace import paced
from streamguard.testing.broker import LocalKafka

USERS = 2000
RATE = 1000
ATTACKS = ("brute_force", "password_spray", "credential_stuffing", "ransomware", "dns_tunnel")
DAY_MS = 86_400_000


def measure(*, quick: bool) -> list[Figure]:
    seconds, warm, history = (5, 1, 4_000) if quick else (75, 10, 200_000)
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        directory = Path(name)
        publish(learn(values(habits(min(history, 20_000), USERS)))[1], directory / "registry")
        chosen = settings(kafka.bootstrap_servers, directory, registry=directory / "registry")
        topic = chosen.kafka.events_topic
        with running(chosen) as worker:
            now = int(time.time() * 1000)
            past = Simulation(
                USERS, 1, now - 30 * DAY_MS, events=history, events_per_day=history / USERS / 30
            )
            with EventProducer(Brokers(kafka.bootstrap_servers), topic) as producer:
                producer.send((event.user, event.value) for event in past)
            worker.until_events(history)
            worker.until_saved(chosen.worker.checkpoint_seconds)

            start = int(time.time() * 1000) + 1000
            live = Simulation(
                USERS, 1, start, duration_ms=seconds * 1000, rate=RATE, scenarios=ATTACKS * (1 if quick else 6),
                window=(0.1, 0.7),
            )  # fmt: skip
            sent = 0
            first: dict[str, float] = {}
            with EventProducer(Brokers(kafka.bootstrap_servers), topic, linger_ms=0.0) as producer:
                for due in paced(live.blocks()):
                    producer.send((event.user, event.value) for event in due)
                    sent += len(due)
                    if not first and due[-1].timestamp >= start + warm * 1000:
                        first = worker.metrics()
            last = worker.until_events(history + sent)
        waits = np.array([wait for at, wait in _alerts(chosen) if at >= start + warm * 1000])
    p50, p99 = np.percentile(waits, [50, 99]) if len(waits) else (np.inf, np.inf)
    return [
        Figure("event to alert, p50", float(p50), "ms", "<= 8"),
        Figure("event to alert, p99", float(p99), "ms", "<= 40"),
        Figure("number of these alerts", len(waits)),
        Figure("events a second", sent / seconds, "/s"),
        Figure(
            "CPU per event", (last[CPU] - first[CPU]) / (last[EVENTS] - first[EVENTS]) * 1e6, "us", "<= 300"
        ),
    ]


def _alerts(chosen: Settings) -> Iterator[tuple[int, int]]:
    """(time of the event, ms until its alert was produced) for each record of the alerts topic."""
    for message in read(chosen, chosen.kafka.alerts_topic):
        at = json.loads(message.value())["event"]["timestamp"]
        yield at, message.timestamp()[1] - at
