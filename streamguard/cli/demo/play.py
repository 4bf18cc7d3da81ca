"""The steps of the demo: start Kafka and a worker, send habits, retrain, send live traffic, print the result."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from streamguard.cli.demo.learn import judgement, retrain
from streamguard.cli.demo.page import WHERE, in_a_terminal, page
from streamguard.cli.demo.surroundings import environment, settings_of
from streamguard.cli.demo.watch import Seen, Watch
from streamguard.errors import StreamGuardError
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.polling import poll_until
from streamguard.settings.schema import Settings
from streamguard.simulate import Simulation
from streamguard.simulate.pace import paced
from streamguard.testing.broker import LocalKafka, free_port
from streamguard.text import counted

ATTACKS = ("brute_force", "ransomware", "dns_tunnel")
MONTH_MS = 30 * 86_400_000
HABITS_PER_DAY = 4.0
"""Events a day of a user in the month of habits: enough for a profile, and folded in seconds."""

PATIENCE = 120.0
"""Seconds to wait for the worker before the demo fails."""


@dataclass
class Reading:
    """Counters of the worker at one moment."""

    events: float
    cpu: float
    lag: float


class RunningWorker:
    """A `streamguard worker` process and its metrics."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._log = log

    def read(self) -> Reading:
        """Scrape /metrics."""
        text = self._get("/metrics") or ""
        return Reading(
            _sum(text, "streamguard_events_total"),
            _sum(text, "process_cpu_seconds_total"),
            _sum(text, "streamguard_lag_records"),
        )

    def await_ready(self) -> None:
        """Wait for /readyz."""
        self._await("the worker is ready", lambda: self._get("/readyz") is not None)

    def await_events(self, count: int) -> Reading:
        """Wait until the worker has folded this many events."""
        self._await(f"{counted(count, 'event')} are folded", lambda: self.read().events >= count)
        return self.read()

    def await_model(self, version: str) -> None:
        """Wait until the worker scores events with this version."""
        wanted = f'streamguard_model_info{{version="{version}"}} 1.0'
        self._await(f"model {version} is in use", lambda: wanted in (self._get("/metrics") or ""))

    def _await(self, what: str, probe: Callable[[], bool]) -> None:
        def done() -> bool:
            if probe():
                return True
            if self.process.poll() is not None:
                raise StreamGuardError(
                    f"the worker exited with {self.process.returncode}; the end of its log:\n{self._tail()}"
                )
            return False

        try:
            poll_until(done, PATIENCE, 0.1)
        except TimeoutError:
            raise StreamGuardError(
                f"waited {PATIENCE:.0f} s in vain until {what}; the end of the worker's log:\n{self._tail()}"
            ) from None

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 - loopback only
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None


def play(*, seconds: int, rate: int, users: int, seed: int, keep: bool) -> int:
    """Run the demo and return its exit code: 0 if every attack was caught."""
    signal.signal(signal.SIGTERM, _end)  # otherwise its processes and its directory would be left
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamguard-demo-")))
        began = time.perf_counter()
        kafka = stack.enter_context(LocalKafka())
        click.echo(f"Apache Kafka on {kafka.bootstrap_servers} ({time.perf_counter() - began:.1f} s)")
        settings = settings_of(kafka.bootstrap_servers, directory)
        topics.create(settings)
        click.echo("starting the worker (the first start on a machine compiles its kernels, about 20 s)")
        worker = stack.enter_context(_worker(settings, directory, "worker"))
        click.echo(f"the worker is ready and serves /metrics, /healthz and /readyz on {worker.url}")

        now = int(time.time() * 1000)
        history = Simulation(users, seed, now - MONTH_MS, duration_ms=MONTH_MS, events_per_day=HABITS_PER_DAY)
        first, began = worker.read(), time.perf_counter()
        count = _produce_history(settings, history)
        learned = worker.await_events(count)
        taken = time.perf_counter() - began
        backlog_us = (learned.cpu - first.cpu) / count * 1e6
        click.echo(
            f"a month of habits of {counted(users, 'user')}: {counted(count, 'event')} folded in {taken:.1f} s "
            f"({count / taken:,.0f} a second, {backlog_us:.1f} us CPU an event)"
        )

        stack.enter_context(_worker(settings, directory, "sources"))
        click.echo("the sources process is ready: it judges each address over all partitions")
        outcome = retrain(settings)
        click.echo(judgement(outcome))
        click.echo(_taken_over(worker, outcome))
        address = stack.enter_context(page(settings, directory))
        if address:
            click.echo(f"the page is at {address}")

        watch = Watch(kafka.bootstrap_servers, settings.kafka.alerts_topic)
        watch.start()
        live = Simulation(
            users, seed, int(time.time() * 1000) + 500, duration_ms=seconds * 1000, rate=rate,
            scenarios=ATTACKS, window=(0.1, 0.3),
        )  # fmt: skip
        click.echo(
            f"live traffic with {', '.join(ATTACKS)}: {counted(rate, 'event')} a second for {seconds} s"
        )
        labels = _produce_live(settings, live)
        final = worker.await_events(count + len(labels))
        seen = watch.finish()
        live_us = (final.cpu - learned.cpu) / max(len(labels), 1) * 1e6
        caught = _table(
            seen, labels, live, seconds=seconds, live_us=live_us, backlog=(count / taken, backlog_us)
        )
        if address:
            _where_to_click(address, keep)
        if keep:
            in_a_terminal(settings, address)
            _keep(settings, users, seed, worker)
        click.echo(
            f"\nthe demo stops its broker and worker and removes {directory}; --keep keeps them until Ctrl-C"
        )
        return 0 if caught else 1


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _taken_over(worker: RunningWorker, outcome: dict[str, Any]) -> str:
    """Wait until the worker uses the model of the retrain, and describe the result."""
    if not outcome["current"]:
        return f"the running worker continues without a model: {outcome['message']}"
    began = time.perf_counter()
    worker.await_model(outcome["version"])
    return (
        f"the running worker now scores with model {outcome['version']}, without a restart "
        f"({time.perf_counter() - began:.1f} s after the retrain); new incidents contain its version"
    )


@contextmanager
def _worker(settings: Settings, directory: Path, verb: str) -> Iterator[RunningWorker]:
    port = free_port()
    log = directory / f"{verb}.log"
    command = [sys.executable, "-m", "streamguard.cli", verb, "--metrics-port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment(settings))
    worker = RunningWorker(process, port, log)
    try:
        worker.await_ready()
        yield worker
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _produce_history(settings: Settings, history: Simulation) -> int:
    count = 0
    with EventProducer(Brokers.of(settings), settings.kafka.events_topic, linger_ms=5.0) as producer:
        for block in history.blocks():
            producer.send((event.user, event.value) for event in block)
            count += len(block)
    return count


def _produce_live(settings: Settings, live: Simulation) -> dict[str, str | None]:
    """Send each event at its time; return event id -> campaign, which only the closing table uses."""
    labels: dict[str, str | None] = {}
    with EventProducer(Brokers.of(settings), settings.kafka.events_topic, linger_ms=0.0) as producer:
        for due in paced(live.blocks()):
            producer.send((event.user, event.value) for event in due)
            labels.update((event.event_id, event.campaign) for event in due)
    return labels


def _table(
    seen: Seen,
    labels: dict[str, str | None],
    live: Simulation,
    *,
    seconds: int,
    live_us: float,
    backlog: tuple[float, float],
) -> bool:
    """Print the closing table; return whether every attack was caught."""
    campaigns = {campaign.id for campaign in live.campaigns}
    by_incident = {
        name: {labels[event] for event in events if labels.get(event)} for name, events in seen.events.items()
    }
    caught = set().union(*by_incident.values()) & campaigns if by_incident else set()
    false = [name for name, found in by_incident.items() if not found]
    severe = [name for name in false if seen.incidents[name].severity in ("high", "critical")]
    p50, p99 = np.percentile(seen.latencies, [50, 99]) if seen.latencies else (float("nan"), float("nan"))
    rows = [
        ("attacks injected / caught", f"{len(campaigns)} / {len(caught)}"),
        *((f"  {name}", _worst(name, by_incident, seen)) for name in sorted(campaigns)),
        ("incidents of attacks", f"{len(by_incident) - len(false)}"),
        (
            "false incidents",
            f"{len(false)} among {counted(len(labels), 'live event')}, {len(severe)} of them high or critical",
        ),
        (
            "event to alert",
            f"p50 {p50:.0f} ms, p99 {p99:.0f} ms over {counted(len(seen.latencies), 'alert')}",
        ),
        ("backlog", f"{counted(round(backlog[0]), 'event')} a second, {backlog[1]:.1f} us CPU an event"),
        ("live", f"{counted(round(len(labels) / seconds), 'event')} a second, {live_us:.0f} us CPU an event"),
    ]
    width = max(len(name) for name, _ in rows)
    click.echo()
    for name, value in rows:
        click.echo(f"  {name:{width}}  {value}")
    return caught == campaigns


def _where_to_click(address: str, keep: bool) -> None:
    """Print what the page shows; without --keep it ends with the demo."""
    click.echo(f"\n  {'open ' + address if keep else 'with --keep, the page stays open'}")
    width = max(len(path) for path, _ in WHERE)
    for path, what in WHERE:
        click.echo(f"    {path:{width}}  {what}")


def _worst(campaign: str, by_incident: dict[str, set[str | None]], seen: Seen) -> str:
    """The incident with the most evidence that contains events of a campaign, as text."""
    found = [seen.incidents[name] for name, campaigns in by_incident.items() if campaign in campaigns]
    if not found:
        return "missed"
    worst = max(found, key=lambda incident: incident.evidence_bits)
    entity = f"{worst.entity.kind} {worst.entity.value}"
    return f"{worst.severity} {worst.risk}  {entity}  {worst.technique or ''}".rstrip()


def _keep(settings: Settings, users: int, seed: int, worker: RunningWorker) -> None:
    """Go on with the habits that were learned, of the same accounts, so that the attacks stay on top of the list."""
    click.echo(
        f"\nKafka at {settings.kafka.bootstrap_servers} and the worker with {worker.url}/metrics keep running;"
        " Ctrl-C stops them"
    )
    now = int(time.time() * 1000) + 500
    _produce_live(settings, Simulation(users, seed, now, events_per_day=HABITS_PER_DAY))


def _sum(text: str, metric: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))
