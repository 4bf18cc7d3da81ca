"""Exactness under failures: `python -m bench.chaos --kills 20` prints a table, and exits with 0 if all is exact.

Two workers on a real Kafka are killed, stopped, frozen for longer than their session timeout and started again at
random moments. Half of the kills also delete the local state. The input has aborted transactions and decisions of
people, and the broker is killed for ten seconds. The final state, the incidents, the dead letters and the events that
were forwarded to the fold of sources are compared, to the bit, with a fold of the topic from scratch. Two servers are
killed, too, while people act on incidents; their projections are compared with that of a rebuilt server.
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

from bench.chaos_servers import Servers
from streamguard.decisions.signing import HEADER
from streamguard.errors import ExitCode
from streamguard.events.decision import Decision
from streamguard.polling import poll_until
from streamguard.settings.schema import Models
from streamguard.testing.broker import LocalKafka
from streamguard.text import counted
from tests.harness import Site, WorkerProcess, events

NAMES = ("a", "b")
UNTIL = 1_900_000_000_000
"""Event time, ms, at which expectations end: after all events."""
ACTIONS = ("kill", "kill and wipe", "stop", "freeze")
RESTARTABLE = {0, -9, -15, ExitCode.UNAVAILABLE, ExitCode.SOFTWARE, ExitCode.TEMPORARY}
"""Exit codes after which a supervisor starts a worker again; others fail the run.

-15 means that SIGTERM arrived while Python was still importing modules.
"""


class Chaos:
    """One run with failures.

    Parameters
    ----------
    site
        Topics and workers.
    broker
        Broker, which is killed once.
    seed
        Seed of the random actions. The moments of the actions also depend on the machine.
    """

    def __init__(self, site: Site, broker: LocalKafka, seed: int) -> None:
        self.site = site
        self.broker = broker
        self.random = random.Random(seed)
        self.workers: dict[str, WorkerProcess] = {}
        self.done: Counter[str] = Counter()
        self.exits: Counter[int] = Counter()
        self.started = time.monotonic()
        self.servers = Servers(site, random.Random(seed + 1), self.say)
        self._produced = 0
        self._quiet = threading.Event()

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self.started:6.1f} s  {text}", flush=True)

    def run(self, kills: int, rate: int) -> list[str]:
        """Run until the workers were killed this often; return the differences from the expected result."""
        feeder = threading.Thread(target=self._feed, args=(rate,))
        feeder.start()
        try:
            self.start("a")
            while self.done["kill"] + self.done["kill and wipe"] < kills:
                self.pause(1.0, 8.0)
                self.supervise()
                self.act()
                self.servers.act()
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
        self.say("waiting until the remaining events are scored")
        try:
            poll_until(self.caught_up, 300.0)
        except TimeoutError:
            return ["the workers did not catch up within 300 s"]
        for worker in self.workers.values():
            self.exits[worker.terminate()] += 1
        self.say("comparing with a fold from scratch")
        unforeseen = set(self.exits) - RESTARTABLE
        wrong = [f"a worker exited with {code}" for code in unforeseen] + self.site.differences(NAMES)
        self.say("comparing the servers with one that is built from the topics")
        return wrong + self.servers.compare(self.site.truth().incidents)

    def caught_up(self) -> bool:
        """Whether the checkpoints reach the end of the topic; workers that have ended are started again."""
        self.supervise()
        try:
            self.site.await_caught_up(5)
        except AssertionError:
            return False
        return True

    def act(self) -> None:
        """Start, stop, freeze or kill a random worker."""
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
        """Start a worker unless it is running."""
        if name not in self.workers or not self.workers[name].alive:
            self.done["start"] += 1
            self.workers[name] = self.site.start(name)
            self.say(f"start {name}")

    def supervise(self) -> None:
        """Restart workers that exited by themselves."""
        for name, worker in list(self.workers.items()):
            if not worker.alive and worker.process.returncode not in (0, -9):
                code = worker.process.returncode
                self.exits[code] += 1
                self.say(f"{name} exited by itself with {code}: {worker.tail(1)[:200]}")
                del self.workers[name]
                if code in RESTARTABLE:
                    self.start(name)

    def kill_broker(self) -> None:
        """Kill the broker, and start it again after 10 s."""
        self.say("kill the broker for 10 s")
        self.done["broker killed"] += 1
        self.broker.kill()
        time.sleep(10)
        self.broker.start()
        self.say("the broker runs again")

    def pause(self, min_seconds: float, max_seconds: float) -> None:
        """Sleep for a random time."""
        time.sleep(self.random.uniform(min_seconds, max_seconds))

    def _feed(self, rate: int) -> None:
        """Send events all the time; a third of the transactions is aborted."""
        partitions = self.site.settings.kafka.partitions
        while not self._quiet.is_set():
            began = time.monotonic()
            made = events(rate, partitions, users=4000, seed=self._produced, start=self._produced)
            try:
                self.site.produce_in_transactions(
                    [(True, made[: rate // 2]), (False, made[:50]), (True, made[rate // 2 :])]
                )
                self._produced += rate
                self._decide()
            except KafkaException as error:  # the broker is being killed
                self.say(f"the producer failed and continues: {str(error)[:80]}")
            self._quiet.wait(max(0.0, 1.0 - (time.monotonic() - began)))

    def _decide(self) -> None:
        """Write a decision about one of the busy users: an address is expected, or part of an attack."""
        user = self.random.randrange(9)
        partition = user % self.site.settings.kafka.partitions
        expected = self.random.random() < 0.5
        decision = Decision(
            version=1,
            id=f"{partition}-{self._produced:024x}",
            decision="expected" if expected else "attack",
            until=UNTIL if expected else 0,
            user=f"user-{user}",
            field="source",
            value=f"10.0.{user}.{self.random.randrange(3)}",
        )
        header = self.site.binding().header(decision, partition, decision.encoded())
        self.site.produce_with_header(partition, decision.encoded(), {HEADER: header})
        self.done["decision"] += 1


def main() -> int:
    """Run the failures, print the table, and return 0 if the result is exact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="Minimum number of kill -9 of a worker.")
    parser.add_argument("--rate", type=int, default=1000, help="Events a second.")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="Seed of the random actions; the time by default."
    )
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="streamguard-chaos-") as directory, LocalKafka() as broker:
        key = Path(directory, "key")
        key.write_bytes(random.Random(options.seed).randbytes(32))
        site = Site(
            broker.bootstrap_servers,
            Path(directory),
            partitions=4,
            checkpoint_events=2000,
            resident_profiles=1600,
            models=Models(key_file=str(key)),
        )
        chaos = Chaos(site, broker, options.seed)
        try:
            wrong = chaos.run(options.kills, options.rate)
            truth = site.truth()
        finally:
            site.close()
            chaos.servers.close()
        print("\nactions")
        for action, count in sorted((chaos.done + chaos.servers.done).items()):
            print(f"  {action:<16}{count:>6}")
        print("exit codes of workers")
        for code, count in sorted(chaos.exits.items()):
            print(f"  exit {code:<11}{count:>6}")
        print("expected result")
        print(
            f"  events          {sum(truth.next_offset.values()):>6} offsets"
            f" in {counted(len(truth.state), 'partition')}"
        )
        print(f"  values          {sum(map(len, truth.state.values())):>6}")
        print(f"  incidents       {len(truth.incidents):>6}")
        print(f"  dead letters    {len(truth.refused):>6}")
        print(f"  for the sources {len(truth.forwarded):>6}")
        for line in wrong:
            print(f"WRONG: {line}")
        print("EXACT" if not wrong else "NOT EXACT")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
