"""A deterministic simulation: the worker's own code on a simulated broker, disk, clock and event loop, with faults.

`scheduler` runs processes on one loop with a virtual clock. `broker`, `clients`, `network`, `group` and `disk` take the
places of Kafka and RocksDB, at the interfaces of their clients; `seams` puts them there. `worker` runs the worker's
consumer, tasks and publisher, `state` is a cheap fold, `nemesis` causes faults, and `judge` compares every committed
checkpoint and the whole output with a plain fold. This module builds a world from a seed and runs it to its end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streamguard.settings.schema import Kafka, Settings
from streamguard.settings.schema import Worker as WorkerSettings
from tests.simulation import disk, network, seams
from tests.simulation.broker import Transaction
from tests.simulation.disk import Disk
from tests.simulation.group import SESSION_SECONDS, Group
from tests.simulation.judge import ALERTS, CHANGELOG, DEAD_LETTERS, EVENTS, SOURCES, Judge
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Network
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.worker import Worker

APP = "app"
LIMIT_SECONDS = 120.0
"""Simulated time after the last fault within which every partition has to be exact or refused."""
STOP_SECONDS = 2.0
"""Simulated time within which a worker without faults stops."""
ACCEPTED_CODES = (0, 69, 73, 75, 78)
"""Exit codes with which a worker may end by itself: each has a documented remedy."""
REFUSALS = 3
"""A worker that refuses to run this often, one start after the other, is not started again."""
USERS = tuple(f"u{i}" for i in range(5))


@dataclass
class Outcome:
    """What one seed showed.

    Attributes
    ----------
    violations
        Empty if all promises were kept.
    faults
        Names of the faults that happened, in order.
    refused
        Reasons of the workers that refused to continue.
    covered
        What happened, and how often: faults, ends of workers, ends of seeds.
    """

    seed: int
    violations: list[str]
    faults: list[str]
    refused: list[str]
    covered: Counter[str]
    trace: list[str]


class Machine:
    """A machine with a disk, a wall clock and a supervisor that starts its worker again."""

    def __init__(self, world: Simulation, name: str, checkpoint_seconds: float) -> None:
        self.world = world
        self.name = name
        self.settings = Settings(
            kafka=Kafka(
                events_topic=EVENTS,
                sources_topic=SOURCES,
                alerts_topic=ALERTS,
                dead_letter_topic=DEAD_LETTERS,
                partitions=world.partitions,
            ),
            worker=WorkerSettings(
                app_id=APP,
                data_dir=f"/{name}",
                chunk_events=4,
                checkpoint_seconds=checkpoint_seconds,
                checkpoint_events=8,
            ),
        )
        self.process: Process | None = None
        self.worker: Worker | None = None
        self.starts = 0
        self.refusals: list[str] = []
        self.down = False
        self.ends: list[str] = []
        """How its workers ended."""

    @property
    def refused(self) -> bool:
        """Whether the supervisor has given up: a person has to decide."""
        return len(self.refusals) >= REFUSALS

    def start(self) -> None:
        """Start a worker, unless one runs or the machine is down."""
        if self.down or self.refused or self.process is not None:
            return
        world = self.world
        self.starts += 1
        self.process = process = Process(f"{self.name}{self.starts}", self.name)
        self.worker = Worker(
            self.settings, SimpleNamespace(cache=None, writes=None), world.group, seams.Clock.time
        )
        process.on_death.append(self._died)
        world.net.note(f"start {process.name}")
        world.nemesis.arm(process)
        world.scheduler.start(process, self.worker.run())

    def kill(self) -> None:
        """Kill the worker; its supervisor starts it again."""
        if self.process is not None:
            self.world.net.note(f"kill {self.process.name}")
            self.world.scheduler.kill(self.process)

    def path(self, partition: int) -> str:
        """Directory of a partition's copy."""
        return f"/{self.name}/{APP}/partition-{partition:04d}"

    def _died(self) -> None:
        process, world = self.process, self.world
        assert process is not None
        self.process = self.worker = None
        code = process.exit_code
        if code is not None and code not in ACCEPTED_CODES:
            world.judge.fail(f"{process.name} ended with {code}: {process.reason}")
        self.ends.append("end: killed" if code is None else f"end: {code} {process.error}".rstrip())
        if code == 78:
            self.refusals.append(process.reason)
        elif code is not None:
            self.refusals.clear()
        world.scheduler.outside_later(world.scheduler.random.uniform(0.1, 1.0), self.start)


class Simulation:
    """Builds a world from a seed, runs it, and judges it."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed = seed
        self.scheduler = Scheduler(seed)
        self.random = random = self.scheduler.random
        self.net = Network(self.scheduler, trace=trace)
        self.disk = Disk()
        self.disk.flush = random.choice((0.05, 0.15, 0.6))
        network.activate(self.net)
        disk.activate(self.disk)
        seams.skew.clear()
        seams.passed.clear()
        seams.armed.clear()
        self.net.judge = self.judge = Judge(self.net)
        self.partitions = random.choice((1, 1, 2))
        broker = self.net.broker
        for topic in (EVENTS, CHANGELOG, SOURCES):
            broker.create(topic, self.partitions)
        for topic in (ALERTS, DEAD_LETTERS):
            broker.create(topic, 1)
        self.group = Group(broker, EVENTS, self.partitions, self.scheduler.time, self.judge.group_committed)
        interval = random.choice((0.1, 0.3, 1.0))
        self.machines = [Machine(self, name, interval) for name in ("a", "b")[: random.choice((1, 2, 2))]]
        self.length = random.uniform(2.0, 6.0)
        self._sent = 0
        self.nemesis = Nemesis(self)

    def run(self) -> Outcome:
        """Run to the end, and judge."""
        try:
            return self._run()
        finally:
            self.scheduler.close()

    def _run(self) -> Outcome:
        scheduler, random = self.scheduler, self.random
        for machine in self.machines:
            scheduler.outside_later(random.uniform(0.0, 1.0), machine.start)
        for _ in range(random.randint(5, 25)):
            scheduler.outside_later(random.uniform(0.0, self.length), self._send)
        self.nemesis.plan()
        while scheduler.now < self.length and not self.judge.violations:
            scheduler.run(min(self.length, scheduler.now + 0.5))
        self.nemesis.finish()
        for partition in range(self.partitions):
            self._append(partition, [self._event()])
        scheduler.run(
            scheduler.now + SESSION_SECONDS
        )  # a worker that was frozen finds out that it has no partition
        while not self._settled() and not self.judge.violations:
            if scheduler.now > self.length + LIMIT_SECONDS:
                self.judge.fail(f"still not settled: {self._state()}")
                break
            scheduler.run(scheduler.now + 0.5)
        if not self.judge.violations:
            self._judge()
        return Outcome(
            self.seed,
            self.judge.violations,
            self.net.faults,
            [reason for machine in self.machines if machine.refused for reason in machine.refusals[-1:]],
            self._covered(),
            self.net.trace or [],
        )

    def _covered(self) -> Counter[str]:
        covered = Counter(f"fault: {name}" for name in self.net.faults)
        for machine in self.machines:
            covered.update(machine.ends)
        covered["checkpoints"] = self.judge.checkpoints
        covered["forwarded records"] = self.judge.forwarded
        covered["seeds that end with a refusal"] = int(any(machine.refused for machine in self.machines))
        return covered

    # Events

    def _event(self) -> bytes:
        self._sent += 1
        user = "?" if self.random.random() < 0.05 else self.random.choice(USERS)
        return f"{user} {self._sent}".encode()

    def _send(self) -> None:
        """Append a few events to a partition: plain, or in a transaction that commits or aborts soon."""
        random = self.random
        partition = random.randrange(self.partitions)
        events = [self._event() for _ in range(random.choice((1, 2, 3, 8)))]
        way = random.random()
        if way < 0.7:
            self._append(partition, events)
            return
        transaction = Transaction(None)
        self._append(partition, events, transaction)
        self.scheduler.outside_later(
            random.uniform(0.0, 0.5), lambda: self.finish(transaction, commit=way < 0.85)
        )

    def finish(self, transaction: Transaction, *, commit: bool) -> None:
        """End a transaction of a stranger."""
        if transaction.state == "open":
            self.net.broker.finish(None, transaction, commit=commit)

    def _append(self, partition: int, events: list[bytes], transaction: Transaction | None = None) -> None:
        log = self.net.broker.log(EVENTS, partition)
        if log is not None:
            log.append([(None, event, ()) for event in events], self.net.broker.clock(), transaction)
            self.net.note(f"{len(events)} events in partition {partition}, now up to {log.end}")

    # The end

    def _owner(self, partition: int) -> Any:
        """The restored task of a partition, if it belongs to the present topics."""
        tp, topics = TP(EVENTS, partition), self.net.broker.topics
        present = [topics[name].id for name in (EVENTS, CHANGELOG)]
        for machine in self.machines:
            consumer = machine.worker.consumer if machine.worker is not None else None
            if consumer is None or tp not in consumer.assignment() or tp not in consumer.open:
                continue
            known = consumer._watch.topics
            if [known.source.id, known.changelog_id] == present:
                return consumer.open[tp]
        return None

    def _settled(self) -> bool:
        if all(machine.refused for machine in self.machines):
            return True
        broker = self.net.broker
        for partition in range(self.partitions):
            log, task = broker.log(EVENTS, partition), self._owner(partition)
            if log is None or task is None or task.checkpointed_offset != log.end:
                return False
            if broker.offsets.get((EVENTS, partition)) != log.end:
                return False
        return True

    def _state(self) -> str:
        tasks = [self._owner(partition) for partition in range(self.partitions)]
        reached = [task.checkpointed_offset if task else None for task in tasks]
        return f"checkpoints {reached}, refused {[m.refusals for m in self.machines]}"

    def _judge(self) -> None:
        refused = [machine for machine in self.machines if machine.refused]
        for machine in refused:
            for number, reason in enumerate(machine.refusals, 1):
                if not self.nemesis.explains(reason, last=number == len(machine.refusals)):
                    self.judge.fail(f"{machine.name} refuses without a cause: {reason}")
        if len(refused) < len(self.machines):
            self.judge.finish(range(self.partitions))
        self._stop()

    def _stop(self) -> None:
        """Stop all workers, and compare the copies that they leave."""
        for machine in self.machines:
            machine.down = True
            if machine.worker is not None:
                machine.worker.stop()
        self.scheduler.run(self.scheduler.now + STOP_SECONDS)
        for machine in self.machines:
            if machine.process is not None:
                self.judge.fail(f"{machine.name} does not stop")
            for partition in range(0 if machine.refused else self.partitions):
                if (directory := self.disk.directories.get(machine.path(partition))) is not None:
                    self.judge.copy(machine.name, partition, directory.durable)


def simulate(seed: int, *, trace: bool = False) -> Outcome:
    """Run the simulation of a seed, within `seams.installed`."""
    return Simulation(seed, trace=trace).run()
