"""Exactness under violence: `python -m bench.chaos --kills 20` ends with a table, and with 0 if all is exact.

Two workers on a real Kafka are killed, stopped, frozen past their session and started again at random
moments, half of the kills with the local state deleted; the input has aborted transactions; the broker is
killed for ten seconds. What is left is compared, to the bit, with a fold of the topic from scratch.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import KafkaException

from streamguard.errors import ExitCode
from streamguard.testing.broker import LocalKafka
from tests.harness import Site, WorkerProcess, events

NAMES = ("a", "b")
ACTIONS = ("kill", "kill and wipe", "stop", "freeze")
RESTARTABLE = {0, -9, -15, ExitCode.UNAVAILABLE, ExitCode.SOFTWARE, ExitCode.TEMPORARY}
"""Exit codes after which a supervisor starts a worker again; others fail the run. -15: SIGTERM came
while Python was still importing."""


class Chaos:
    """One run.

    Parameters
    ----------
    site
        Topics and workers.
    broker
        Killed once.
    seed
        Of everything random here; the moments themselves depend on the machine.
    """

    def __init__(self, site: Site, broker: LocalKafka, seed: int) -> None:
        self.site = site
        self.broker = broker
        self.random = random.Random(seed)
        self.workers: dict[str, WorkerProcess] = {}
        self.done: Counter[str] = Counter()
        self.exits: Counter[int] = Counter()
        self.started = time.monotonic()
        self._produced = 0
        self._quiet = threading.Event()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:6.1f} s  {text}", flush=True)

    def run(self, kills: int, rate: int) -> list[str]:
        """Do it; returns what is wrong."""
        feeder = threading.Thread(target=self._feed, args=(rate,))
        feeder.start()
        try:
            self.start("a")
            while self.done["kill"] + self.done["kill and wipe"] < kills:
                self.pause(1.0, 8.0)
                self.supervise()
                self.act()
                if (
                    not self.done["broker killed"]
                    and self.done["kill"] + self.done["kill and wipe"] >= kills // 2
                ):
                    self.kill_broker()
        finally:
            self._quiet.set()
            feeder.join()
        for name in NAMES:
            self.start(name)
        self.say("waiting for the rest to be scored")
        deadline = time.monotonic() + 300
        while True:
            self.supervise()
            try:
                self.site.await_caught_up(5)
                break
            except AssertionError:
                if time.monotonic() > deadline:
                    return ["the workers do not catch up"]
        for worker in self.workers.values():
            self.exits[worker.terminate()] += 1
        self.say("comparing with a fold from scratch")
        unforeseen = set(self.exits) - RESTARTABLE
        return [f"a worker ended with {code}" for code in unforeseen] + self.site.differences(NAMES)

    def act(self) -> None:
        alive = [name for name in NAMES if name in self.workers and self.workers[name].alive]
        if len(alive) < 2 and (not alive or self.random.random() < 0.6):
            self.start(self.random.choice([name for name in NAMES if name not in alive]))
            return
        name, action = self.random.choice(alive), self.random.choices(ACTIONS, (4, 4, 1, 1))[0]
        worker = self.workers[name]
        self.done[action] += 1
        self.say(f"{action} {name}")
        if action == "stop":
            self.exits[worker.terminate(90)] += 1
        elif action == "freeze":
            worker.signal(signal.SIGSTOP)
            self.pause(*(self.site.settings.worker.session_timeout_seconds * k for k in (1.5, 2.5)))
            worker.signal(signal.SIGCONT)
        else:
            worker.kill()
            self.exits[-9] += 1
            if action == "kill and wipe":
                self.site.wipe(name)
            if self.random.random() < 0.7:
                self.start(name)

    def start(self, name: str) -> None:
        if name not in self.workers or not self.workers[name].alive:
            self.done["start"] += 1
            self.workers[name] = self.site.start(name)
            self.say(f"start {name}")

    def supervise(self) -> None:
        """Start again what ended by itself."""
        for name, worker in list(self.workers.items()):
            if not worker.alive and worker.process.returncode not in (0, -9):
                code = worker.process.returncode
                self.exits[code] += 1
                self.say(f"{name} ended by itself with {code}: {worker.tail(1)[:200]}")
                del self.workers[name]
                if code in RESTARTABLE:
                    self.start(name)

    def kill_broker(self) -> None:
        self.say("kill the broker for 10 s")
        self.done["broker killed"] += 1
        self.broker.kill()
        time.sleep(10)
        self.broker.start()
        self.say("the broker is back")

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.random.uniform(least, most))

    def _feed(self, rate: int) -> None:
        """Events all the time, a third of the transactions aborted."""
        partitions = self.site.settings.kafka.partitions
        while not self._quiet.is_set():
            began = time.monotonic()
            made = events(rate, partitions, users=4000, seed=self._produced, start=self._produced)
            try:
                self.site.produce_in_transactions(
                    [(True, made[: rate // 2]), (False, made[:50]), (True, made[rate // 2 :])]
                )
                self._produced += rate
            except KafkaException as error:  # the broker is being killed
                self.say(f"the producer failed and goes on: {str(error)[:80]}")
            self._quiet.wait(max(0.0, 1.0 - (time.monotonic() - began)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="kill -9 of a worker, at least this often")
    parser.add_argument("--rate", type=int, default=1000, help="events a second")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="streamguard-chaos-") as directory, LocalKafka() as broker:
        site = Site(
            broker.bootstrap_servers,
            Path(directory),
            partitions=4,
            checkpoint_events=2000,
            resident_profiles=1600,
        )
        chaos = Chaos(site, broker, options.seed)
        try:
            wrong = chaos.run(options.kills, options.rate)
            truth = site.truth()
        finally:
            site.close()
        print("\nwhat was done")
        for action, count in sorted(chaos.done.items()):
            print(f"  {action:<16}{count:>6}")
        print("how workers ended")
        for code, count in sorted(chaos.exits.items()):
            print(f"  exit {code:<11}{count:>6}")
        print("what there was to get right")
        print(
            f"  events          {sum(truth.next_offset.values()):>6} offsets in {len(truth.state)} partitions"
        )
        print(f"  values          {sum(map(len, truth.state.values())):>6}")
        print(f"  incidents       {len(truth.incidents):>6}")
        print(f"  dead letters    {len(truth.refused):>6}")
        for line in wrong:
            print(f"WRONG: {line}")
        print("EXACT" if not wrong else "NOT EXACT")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
