"""Lists, counts and decisions among a million incidents; delays from the topics, rebuild, memory, first view."""

from __future__ import annotations

import gzip
import json
import random
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bench.figures import Figure
from bench.many_incidents import fill, templates, updates
from bench.questions import FREQUENT, LISTS, NARROWED, Question
from bench.server import Client, RunningServer, serving
from bench.traffic import Invented
from bench.worker import RunningWorker, running, settings
from streamguard.alerts.incident import Incident
from streamguard.events.event_time import epoch_ms
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.serving.log.reader import topic_state
from streamguard.serving.masking.pseudonyms import Pseudonyms, key_of
from streamguard.serving.projection.store import Store
from streamguard.settings.schema import Settings
from streamguard.testing.broker import LocalKafka

MB = 1 << 20
PROBE = "probe"
"""User whose profile is asked for."""
PROBE_SECONDS = 0.05
"""Time between two events of this user."""


class Size(NamedTuple):
    """How much is measured.

    Attributes
    ----------
    incidents
        Incidents of the store.
    rebuilt, users
        Incidents, and users with a profile, that a new server reads from the topics.
    events
        Simulated events from whose incidents the others are made.
    repeats
        How often each question is asked.
    samples
        Updates, and decisions, that are timed.
    seconds
        How long the profile of a user is watched.
    """

    incidents: int
    rebuilt: int
    users: int
    events: int
    repeats: int
    samples: int
    seconds: int


FULL = Size(1_000_000, 1_000_000, 1_000_000, 20_000, 40, 300, 60)
QUICK = Size(1_500, 1_000, 500, 6_000, 2, 5, 4)


def measure(*, quick: bool) -> list[Figure]:
    return measured(QUICK if quick else FULL)


def measured(size: Size) -> list[Figure]:
    """Figures of a server with so much."""
    known = templates(size.events)
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as name, LocalKafka() as kafka:
        directory = Path(name)
        chosen = settings(kafka.bootstrap_servers, directory / "worker", checkpoint_seconds=1.0)
        with running(chosen) as worker:
            fill_users(worker, chosen, size.users)
            store_seconds = fill_store(chosen, directory / "serve", size.incidents, known)
            print(f"store of {size.incidents:,} incidents filled in {store_seconds:.0f} s", flush=True)
            with serving(chosen, directory / "serve") as server:
                server.until(server.client(), "/v1/users?limit=1", lambda answer: answer["users"])
                figures = [  # a new client for each: the server closes a connection that is idle
                    *questions(server.client(), size),
                    *memory(server, size),
                    *delays(server, chosen, known, size),
                    *decisions(server.client(), size),
                    *staleness(server.client(), chosen, size),
                    *first_view(server.client()),
                ]
            figures += rebuilt_users(chosen, directory / "users", size)
        figures += rebuilt_incidents(chosen, directory / "incidents", known, size)
    return figures


def fill_users(worker: RunningWorker, chosen: Settings, users: int) -> None:
    """Have the worker fold an event of each user, so that the changelog has their profiles."""
    with EventProducer(Brokers.of(chosen), chosen.kafka.events_topic) as producer:
        producer.send(Invented().events(range(users)))
    worker.until_events(users)
    worker.until_saved(chosen.worker.checkpoint_seconds)


def fill_store(chosen: Settings, directory: Path, count: int, known: list[Incident]) -> float:
    """Fill the data directory of a server as if it had read the topics; return the seconds."""
    begun = time.monotonic()
    names = topics.names(chosen)
    directory.mkdir(parents=True)
    pseudonyms = Pseudonyms(key_of("", directory))
    store = Store(directory, chosen.detection.floor_bits, pseudonyms.of, pseudonyms.fingerprint)
    for role in ("alerts", "decisions"):
        state = topic_state(Brokers.of(chosen), names[role])
        assert state is not None
        store.follow(names[role], state.id)
    fill(store, count, known, chosen.kafka.partitions, names["alerts"], names["decisions"])
    store.close()
    return time.monotonic() - begun


def questions(client: Client, size: Size) -> Iterator[Figure]:
    """Lists, next pages and counts, each question several times."""
    times: dict[str, list[float]] = {}
    rows = []
    for question in (*LISTS, *NARROWED, *FREQUENT):
        own: dict[str, list[float]] = {"list": [], "next page": [], "facets": []}
        total = 0
        for sort in ("evidence", "time"):
            for _ in range(size.repeats):
                path = f"/v1/incidents?sort={sort}&{question.query}"
                page, ms = client.timed(path)
                own["list"].append(ms)
                if page["next"] is not None:
                    own["next page"].append(client.timed(f"{path}&cursor={page['next']}")[1])
                counted, ms = client.timed(f"/v1/incidents/facets?{question.query}")
                own["facets"].append(ms)
                total = counted["total"]
        for kind, found in own.items():
            times.setdefault(f"{question.group(kind)}", []).extend(found)
        rows.append((question, total, own))
    print(table(rows), flush=True)
    n = f"{size.incidents:,} incidents"
    for what, limit in (("list", 25), ("list with filters", 25), ("next page", 25), ("facets", 50)):
        for share in (50, 99):
            wanted = f"<= {limit}" if share == 99 else ""
            yield Figure(f"{what} at {n}, p{share}", percentile(times[what], share), "ms", wanted)
    for what in ("list of a frequent word or a busy user", "facets of a frequent word or a busy user"):
        yield Figure(f"{what} at {n}, p99", percentile(times[what], 99), "ms")


def table(rows: list[tuple[Question, int, dict[str, list[float]]]]) -> str:
    """Median and maximum of each question in milliseconds, as text."""
    lines = [f"  {'question':<26} {'incidents':>10} {'list':>14} {'next page':>14} {'facets':>14}"]
    for question, total, own in rows:
        cells = [f"{percentile(ms, 50):6.1f} {max(ms):7.1f}" if ms else "" for ms in own.values()]
        lines.append(f"  {question.name:<26} {total:>10,} " + " ".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def memory(server: RunningServer, size: Size) -> Iterator[Figure]:
    """Memory of the server with all incidents, after it was asked."""
    total, code = server.resident()
    yield Figure(f"memory of the server at {size.incidents:,} incidents", total / MB, "MB", "<= 250")
    yield Figure("  of it code of libraries", code / MB, "MB")


def delays(server: RunningServer, chosen: Settings, known: list[Incident], size: Size) -> Iterator[Figure]:
    """Time from an update that is produced to its event in the stream."""
    arrived = threading.Semaphore(0)
    stream = server.client().send("/v1/stream")

    def listen() -> None:
        try:
            while line := stream.readline():
                if line.startswith(b"event: changed"):
                    arrived.release()
        except (OSError, ValueError):  # the stream is closed at the end
            return

    threading.Thread(target=listen, daemon=True).start()
    draw, waits = random.Random(4), []
    with EventProducer(Brokers.of(chosen), topics.names(chosen)["alerts"], linger_ms=0.0) as producer:
        for one in updates(size.samples, known, chosen.kafka.partitions, seed=5):
            time.sleep(draw.uniform(0.1, 0.3))  # at any time between two rounds of the server
            begun = time.perf_counter()
            producer.send([(one.incident.entity.value, one.value)])
            if not arrived.acquire(timeout=30):
                raise RuntimeError("an update has not reached the stream")
            waits.append((time.perf_counter() - begun) * 1000)
    yield Figure("update on the topic to the stream of a browser, p50", percentile(waits, 50), "ms")
    yield Figure("update on the topic to the stream of a browser, p99", percentile(waits, 99), "ms", "<= 300")


def decisions(client: Client, size: Size) -> Iterator[Figure]:
    """Time of a decision, which Kafka acknowledges and the answer shows."""
    ids: list[str] = []
    after = ""
    while len(ids) < size.samples:
        page = client.ask(f"/v1/incidents?limit=200&status=new{after}")
        ids += [row["id"] for row in page["incidents"]]
        after = f"&cursor={page['next']}"
    times = []
    for id in ids[: size.samples]:
        answer, ms = client.timed(f"/v1/incidents/{id}/actions", {"kind": "acknowledge", "assignee": "ann"})
        assert answer["row"]["assignee"] == "ann"
        times.append(ms)
    yield Figure("decision acknowledged by Kafka, p50", percentile(times, 50), "ms")
    yield Figure("decision acknowledged by Kafka, p99", percentile(times, 99), "ms", "<= 150")


def staleness(client: Client, chosen: Settings, size: Size) -> Iterator[Figure]:
    """Age of the latest event that the profile of a busy user has, while the worker saves every second."""
    ages, stated = [], []
    with active_user(chosen):
        ends = None
        while ends is None or time.monotonic() < ends:
            answer = client.send(f"/v1/users/{PROBE}")
            found: Any = json.loads(answer.read())
            if answer.status != 200 or not found["profiles"]:
                continue  # not known yet
            ends = ends or time.monotonic() + size.seconds
            ages.append(time.time() * 1000 - (epoch_ms(found["profiles"][0]["last_seen"]) or 0))
            stated.append(next(one["staleness_ms"] for one in found["as_of"] if "changelog" in one["source"]))
            time.sleep(0.02)
    yield Figure("age of a profile, checkpoint every second, p50", percentile(ages, 50), "ms")
    yield Figure("age of a profile, checkpoint every second, p99", percentile(ages, 99), "ms", "<= 1500")
    yield Figure("staleness that its answer states for the changelog, p99", percentile(stated, 99), "ms")


@contextmanager
def active_user(chosen: Settings) -> Iterator[None]:
    """Send events of a user until the context ends."""
    stop = threading.Event()

    def send() -> None:
        with EventProducer(Brokers.of(chosen), chosen.kafka.events_topic, linger_ms=0.0) as producer:
            while not stop.wait(PROBE_SECONDS):
                event = {
                    "timestamp": int(time.time() * 1000), "event_type": "login", "user": PROBE, "status": "success",
                    "source_ip": "192.0.2.1",
                }  # fmt: skip
                producer.send([(PROBE, json.dumps(event).encode())])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def first_view(client: Client) -> Iterator[Figure]:
    """Size of the list as a page with what it loads."""
    page = client.send("/").read()
    names = dict.fromkeys(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.decode()))
    parts = [page, *(client.send(name).read() for name in names)]
    yield Figure(
        "first view, compressed", sum(len(gzip.compress(part)) for part in parts) / 1000, "kB", "<= 40"
    )
    yield Figure("files of the first view", len(parts))


def rebuilt_users(chosen: Settings, directory: Path, size: Size) -> Iterator[Figure]:
    """Time from the start of a new server until it knows the profile of every user."""
    begun = time.monotonic()
    with serving(chosen, directory) as server:
        server.until(server.client(), "/v1/users?limit=1", lambda answer: answer["users"])
        seconds = time.monotonic() - begun
    wanted = "<= 30" if size.users <= FULL.users else ""
    yield Figure(f"start of a new server, {size.users:,} users", seconds, "s", wanted)


def rebuilt_incidents(
    chosen: Settings, directory: Path, known: list[Incident], size: Size
) -> Iterator[Figure]:
    """Time from the start of a new server until it has read a topic of incidents."""
    kafka = msgspec.structs.replace(chosen.kafka, alerts_topic="rebuilt", decisions_topic="rebuilt-decisions")
    own = msgspec.structs.replace(chosen, kafka=kafka)
    topics.create(own)
    with EventProducer(Brokers.of(own), "rebuilt") as producer:
        made = updates(size.rebuilt, known, own.kafka.partitions)
        producer.send((one.incident.entity.value, one.value) for one in made)
    begun = time.monotonic()
    with serving(own, directory) as server:
        server.until(server.client(), "/v1/incidents/facets", lambda answer: answer["total"] == size.rebuilt)
        seconds = time.monotonic() - begun
    what = f"start of a new server, {size.rebuilt:,} incidents"
    yield Figure(what, seconds, "s", "<= 300" if size.rebuilt == FULL.rebuilt else "")


def percentile(values: list[float], share: float) -> float:
    """A percentile; 0 without values."""
    return float(np.percentile(values, share)) if values else 0.0
