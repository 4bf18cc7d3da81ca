"""A long run: `python -m bench.soak --minutes 20` prints a table, and exits with 0 if nothing is wrong.

Two workers share steady traffic that contains attacks: one runs all the time, the other one is killed and stopped.
Incremental retrains publish models, and both workers swap them in. Two minutes of the run stand for an hour: they
contain a retrain, a kill -9 and a stop, and each of the latter two causes two rebalances. A model that the gate refuses
is promoted as an operator can do it, because the live traffic differs much from the habits before it and the run needs
model swaps. The final state is compared, to the bit, with a fold of the topic from scratch: every event must be folded
exactly once. After a quarter of the run, the memory of the worker that runs all the time must not grow by more than 2 %
and significantly (t-test, 99 %).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from bench.soak_table import Labels, Sample, Table, samples
from streamguard.errors import ExitCode
from streamguard.fold.features import NAMES
from streamguard.kafka.connection import Brokers
from streamguard.kafka.producer import EventProducer
from streamguard.models.registry import Registry
from streamguard.settings.schema import Models
from streamguard.simulate import SCENARIOS, Simulation
from streamguard.simulate.pace import paced
from streamguard.testing.broker import LocalKafka
from tests.harness import Site, WorkerProcess

USERS = 2_000
HABITS_DAYS = 30
HABITS_PER_DAY = 4.0
HOUR = 120.0
"""Seconds of this run that stand for an hour."""
RETRAIN_AT, KILL_AT, STOP_AT, BACK_AT = 10.0, 60.0, 85.0, 95.0
"""Seconds of such an hour at which each action happens."""
SAMPLE_SECONDS = 5.0
CACHE_MB = 8
"""Size of RocksDB's cache: small, so that it is full early in the run and does not make the memory grow later."""


class Soak:
    """One long run.

    Parameters
    ----------
    site
        Topics and workers, with a registry.
    rate
        Events a second.
    minutes
        Duration of the live traffic.
    """

    def __init__(self, site: Site, rate: float, minutes: float) -> None:
        self.site = site
        self.rate = rate
        self.seconds = minutes * 60
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.samples: list[Sample] = []
        self.labels = Labels()
        self._workers: dict[str, WorkerProcess] = {}
        self._retrain: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    def run(self) -> None:
        """Run to the end; `wrong` then lists all problems."""
        for name in "ab":
            self._start(name)
            self._workers[name].await_ready()
        self._send_habits()
        self.site.await_caught_up(workers=self._workers.values())
        self.say(f"{self.labels.sent:,} events of habits are folded; live traffic begins")
        feeder = threading.Thread(target=self._send_live)
        feeder.start()
        self._operate()
        feeder.join()
        if self._retrain is not None:
            self._retrain.wait()
            self._end_retrain()
        self.say("traffic ends; waiting until the remaining events are folded")
        self._start("b")
        self.site.await_caught_up(300, workers=self._workers.values())
        swaps = [line["pause_ms"] for line in self._workers["a"].lines() if "pause_ms" in line]
        self.done["swaps in the worker that ran all the time"] = len(swaps)
        for name, worker in self._workers.items():
            if code := worker.terminate():
                self.wrong.append(f"worker {name} exited with {code}")
        self.say("comparing with a fold from scratch")
        counts = self.site.event_counts().values()
        self.done["events folded"] = sum(folded for _, folded in counts)
        self.done["events lost"] = sum(max(there - folded, 0) for there, folded in counts)
        self.done["events folded twice"] = sum(max(folded - there, 0) for there, folded in counts)
        self.wrong += self.site.differences("ab", compacted=True)

    def _operate(self) -> None:
        began = time.monotonic()
        plan = sorted(
            (hour * HOUR + at, action)
            for hour in range(int(self.seconds / HOUR))
            for at, action in (
                (RETRAIN_AT, self._begin_retrain),
                (KILL_AT, self._kill),
                (STOP_AT, self._stop),
                (BACK_AT, lambda: self._start("b")),
            )
        )
        next_sample = 0.0
        while (elapsed := time.monotonic() - began) < self.seconds:
            while plan and plan[0][0] <= elapsed:
                plan.pop(0)[1]()
            if self._retrain is not None and self._retrain.poll() is not None:
                self._end_retrain()
            if elapsed >= next_sample:
                next_sample += SAMPLE_SECONDS
                self.samples += samples(elapsed / self.seconds, elapsed, self._workers)
            time.sleep(0.1)

    def _start(self, name: str) -> None:
        if name not in self._workers or not self._workers[name].alive:
            self._workers[name] = self.site.start(name)

    def _kill(self) -> None:
        self.done["kill -9"] += 1
        self._workers["b"].kill()
        self._start("b")

    def _stop(self) -> None:
        self.done["stop and start"] += 1
        if code := self._workers["b"].terminate():
            self.wrong.append(f"worker b exited with {code} when it was stopped")

    def _begin_retrain(self) -> None:
        if self._retrain is not None:
            self.done["retrain skipped: the previous one was still running"] += 1
            return
        command = [
            sys.executable, "-m", "streamguard.cli", "retrain", "--engine", "local", "--json",
            "--config", str(self.site.directory / "streamguard.toml"), "--output", str(self.site.directory / "runs"),
        ]  # fmt: skip
        directory = self.site.directory
        with (directory / "retrain.json").open("wb") as out, (directory / "retrain.log").open("wb") as log:
            self._retrain = subprocess.Popen(command, stdout=out, stderr=log)

    def _end_retrain(self) -> None:
        assert self._retrain is not None
        code, self._retrain = self._retrain.returncode, None
        if code not in (ExitCode.OK, ExitCode.NOT_PROMOTED):
            log = (self.site.directory / "retrain.log").read_text(errors="replace")
            self.wrong.append(f"a retrain exited with {code}: {log[-300:]}")
            return
        outcome = json.loads((self.site.directory / "retrain.json").read_bytes())
        self.say(outcome["message"])
        self.done["retrains"] += 1
        self.done["retrains whose model the gate accepted"] += code == ExitCode.OK
        if code == ExitCode.NOT_PROMOTED:
            registry = Registry(Path(self.site.settings.models.registry), feature_names=NAMES)
            registry.promote(outcome["version"])

    def _send_habits(self) -> None:
        duration = HABITS_DAYS * 86_400_000
        start = int(time.time() * 1000) - duration
        habits = Simulation(USERS, 1, start, duration_ms=duration, events_per_day=HABITS_PER_DAY)
        with self._producer(5.0) as producer:
            for block in habits.blocks():
                producer.send((event.user, event.value) for event in block)
                self.labels.sent += len(block)
            producer.send((user, b"no event") for user in ("ann", "bob"))  # dead letters
            self.labels.sent += 2

    def _send_live(self) -> None:
        self.labels.live_ms = int(time.time() * 1000) + 500
        live = Simulation(
            USERS, 1, self.labels.live_ms, duration_ms=int(self.seconds * 1000), rate=self.rate,
            scenarios=tuple(SCENARIOS), window=(0.1, 0.8),
        )  # fmt: skip
        with self._producer(0.0) as producer:
            for due in paced(live.blocks()):
                producer.send((event.user, event.value) for event in due)
                self.labels.sent += len(due)
                self.labels.live += len(due)
                for event in due:
                    if event.campaign is not None and event.scenario is not None:
                        self.labels.campaign[event.event_id] = event.campaign
                        self.labels.scenario[event.campaign] = event.scenario

    def _producer(self, linger_ms: float) -> EventProducer:
        kafka = self.site.settings.kafka
        return EventProducer(Brokers(kafka.bootstrap_servers), kafka.events_topic, linger_ms=linger_ms)


def main() -> int:
    """Run the traffic and the actions, print the table, and return 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="Minutes of live traffic; two minutes stand for an hour."
    )
    parser.add_argument("--rate", type=float, default=500.0, help="Events a second.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="streamguard-soak-") as name, LocalKafka() as broker:
        directory = Path(name)
        site = Site(
            broker.bootstrap_servers,
            directory,
            partitions=4,
            models=Models(registry=str(directory / "registry"), poll_seconds=1.0),
            chunk_events=500,
            checkpoint_seconds=1.0,
            checkpoint_events=20_000,
            session_timeout_seconds=6.0,
            resident_profiles=65_536,
            block_cache_mb=CACHE_MB,
        )
        soak = Soak(site, options.rate, options.minutes)
        try:
            soak.run()
            incidents = [
                (record.headers["sg.incident"].decode(), json.loads(record.value or b"{}"))
                for record in site.read("alerts")
            ]
            in_topic = sum(site.ends().values())
        finally:
            site.close()
        table = Table(soak.samples, soak.labels, incidents, HOUR)
        print(f"\n{table.text(in_topic, soak.done)}")
        if table.grows:
            soak.wrong.append("the memory of the worker that ran all the time grows")
        for line in soak.wrong:
            print(f"WRONG: {line}")
        print("EXACT" if not soak.wrong else "NOT EXACT")
        return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
