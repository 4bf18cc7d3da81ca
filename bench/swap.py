"""Model swaps of a worker at 20,000 events a second: waiting time, lost events, and the version of each alert."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure
from bench.topic import read
from bench.traffic import fold, habits, publish, values
from bench.worker import EVENTS, RunningWorker, running, settings
from streamguard.fold.features import NAMES
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Detection, Settings
from streamguard.state.partition import PartitionState
from streamguard.testing.broker import LocalKafka

USERS = 10_000
SLICES = 250
"""Slices of a second. The events of a slice are sent together at its beginning."""
AROUND_MS = 500
"""An alert at most this long before or after a swap counts as an alert of a second with a swap."""


def measure(*, quick: bool) -> list[Figure]:
    rate, seconds, swaps, history = (4000, 4, 2, 8_000) if quick else (20_000, 30, 8, 200_000)
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        directory = Path(name)
        versions = _forests(directory / "registry", swaps + 1)
        chosen = _settings(kafka.bootstrap_servers, directory)
        topic = chosen.kafka.events_topic
        events = [(event.user, event.value) for event in habits(history + rate * seconds, USERS)]
        with running(chosen) as worker:
            with EventProducer(Brokers(kafka.bootstrap_servers), topic) as producer:
                producer.send(events[:history])
            worker.until_events(history)
            worker.until_saved(chosen.worker.checkpoint_seconds)
            began = time.time()
            promotions = threading.Thread(
                target=_promote, args=(directory / "registry", versions[1:], seconds / (swaps + 1))
            )
            promotions.start()
            with EventProducer(Brokers(kafka.bootstrap_servers), topic, linger_ms=0.0) as producer:
                for start in range(history, len(events), rate // SLICES):
                    time.sleep(max(0.0, began + (start - history) / rate - time.time()))
                    producer.send(events[start : start + rate // SLICES])
            took = time.time() - began
            promotions.join()
            worker.until_events(len(events))
            counted = worker.until_saved(chosen.worker.checkpoint_seconds)[EVENTS]
            at, pauses = _swaps(worker)
        waits, when, wrong = _alerts(chosen, set(versions), int(began * 1000) + 1000)
    near = np.abs(when[:, None] - at).min(axis=1) <= AROUND_MS
    return [
        Figure("longest wait of an event for a swap", max(pauses), "ms", "<= 5"),
        Figure("swaps", len(pauses), "", f">= {swaps}"),
        Figure("events a second", (len(events) - history) / took, "/s"),
        Figure("events lost", abs(counted - len(events)), "", "<= 0"),
        Figure("alerts that do not name exactly one published version", wrong, "", "<= 0"),
        Figure("event to alert, p99, in seconds with a swap", float(np.percentile(waits[near], 99)), "ms"),
        Figure("event to alert, p99, in other seconds", float(np.percentile(waits[~near], 99)), "ms"),
        Figure("alerts in seconds with a swap", int(near.sum())),
    ]


def _settings(bootstrap_servers: str, directory: Path) -> Settings:
    """Settings with which one event in a hundred is alerted, and each alert is a separate incident.

    This gives as many samples as possible.
    """
    chosen = settings(bootstrap_servers, directory, directory / "registry")
    return msgspec.structs.replace(
        chosen,
        detection=Detection(alert_risk=66.7, incident_gap_seconds=0.001),
        models=msgspec.structs.replace(chosen.models, poll_seconds=0.1),
    )


def _forests(directory: Path, count: int) -> list[str]:
    """Publish this many versions and promote the first one; return all of them."""
    state = PartitionState(0, lambda keys: [None] * len(keys), resident=65_536, detection=Detection())
    rows = fold(state, values(habits(10_000, USERS, seed=3)))
    forests = [train(rows, seed=seed) for seed in range(count)]
    publish(forests[0], directory)
    registry = Registry(directory, feature_names=NAMES)
    return [registry.publish(forest) for forest in forests]


def _promote(directory: Path, versions: list[str], pause: float) -> None:
    """Move only the pointer: the checks of a promotion would delay the events that this process sends."""
    for version in versions:
        time.sleep(pause)
        aside = directory / ".next"
        aside.write_text(version + "\n")
        aside.replace(directory / "current")


def _swaps(worker: RunningWorker) -> tuple[NDArray[np.float64], list[float]]:
    """Time of each swap in epoch ms, and how many ms chunks waited for it; without the load of the first model."""
    swaps = [(line["time"], line["pause_ms"]) for line in worker.log() if "pause_ms" in line][1:]
    return np.array([datetime.fromisoformat(at).timestamp() * 1000 for at, _ in swaps]), [
        ms for _, ms in swaps
    ]


def _alerts(
    chosen: Settings, versions: set[str], since_ms: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """(ms from event to alert, time of the event) of each alert since `since_ms`, and the number of wrong alerts.

    A wrong alert names an unknown version, or another version than an earlier alert of the same event.
    """
    logged: dict[tuple[int, int], int] = {}
    for message in read(chosen, chosen.kafka.events_topic):
        logged[message.partition(), message.offset()] = message.timestamp()[1]
    waits, when = [], []
    scored: dict[tuple[int, int], str] = {}
    wrong = 0
    for message in read(chosen, chosen.kafka.alerts_topic):
        body = json.loads(message.value())
        place = body["origin"]["partition"], body["origin"]["offset"]
        version = body["model"]["version"]
        wrong += version not in versions or scored.setdefault(place, version) != version
        if logged[place] >= since_ms:
            waits.append(message.timestamp()[1] - logged[place])
            when.append(logged[place])
    return np.array(waits, np.float64), np.array(when, np.float64), wrong
