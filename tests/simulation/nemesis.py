"""The faults of a simulation: which ones a seed selects, when they happen, and which refusals they explain."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException

from streamguard.agents.task.erase import erase
from streamguard.errors import StreamGuardError
from streamguard.testing.failpoints import POINTS
from tests.simulation import seams
from tests.simulation.broker import Transaction
from tests.simulation.judge import CHANGELOG, EVENTS
from tests.simulation.scheduler import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Machine, Simulation

THAW_SECONDS = 0.4
"""A process that was frozen for this long has to notice it."""
WEEK_SECONDS = 8 * 86_400.0
"""Longer than Kafka keeps the deletion of a user in the changelog."""

_CHANGELOG = r"partition \d of the changelog app-state-changelog"
EXPLAINED = {
    "remake source": (r"the topic events was deleted and created again",),
    "remake changelog": (
        r"changelog app-state-changelog was deleted and created again",
        r"the topic app-state-changelog was deleted and created again",
        r"the group app has committed offset \d+: the changelog was deleted and created again",
        rf"{_CHANGELOG} was deleted and created again",
    ),
    "replace cluster": (
        r"changelog app-state-changelog was deleted and created again .* another Kafka cluster",
    ),
    "copy changelog": (
        r"changelog app-state-changelog was deleted and created again",
        r"the group app has committed offset \d+: the changelog was deleted and created again",
        rf"{_CHANGELOG} (was deleted and created again|contains the state of partition \d)",
    ),
    "trim source": (r"partition \d of events starts at offset \d+, but its state .*: \d+ offsets? expired",),
    "trim changelog": (rf"{_CHANGELOG} starts at offset",),
    "truncate changelog": (
        rf"{_CHANGELOG} ends at offset \d+, but the local state has read it",
        r"the group app has committed offset \d+: the changelog was deleted and created again",
    ),
}
"""Refusals that each fault explains, as a worker that starts after it has to give them; other faults explain none."""

PASSING = {
    "remake source": (
        r"the topic events was deleted while",
        r"no longer has partition \d of events",
        r"partition \d of events ends at offset",
    ),
    "remake changelog": (r"the topic app-state-changelog was deleted while", rf"{_CHANGELOG} ends at offset"),
    "copy changelog": (r"the topic app-state-changelog was deleted", rf"{_CHANGELOG} ends at offset"),
    "trim source": (r"no longer has partition \d of events",),
}
"""Refusals that each fault explains besides, if it happens while a worker runs."""


class Nemesis:
    """Plans and causes faults."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._random = world.random
        self._net = world.net
        self._hanging: list[Transaction] = []
        self._backups: list[tuple[int, Any]] = []
        self._operators = 0
        harmless: list[Callable[[], None]] = [
            self.kill,
            self.kill,
            self.kill_between_steps,
            self.kill_between_steps,
            self.kill_at_failpoint,
            self.freeze,
            self.freeze,
            self.wipe,
            self.back_up,
            self.back_up,
            self.restore_backup,
            self.restore_backup,
            self.exchange_copies,
            self.damage,
            self.fill_disk,
            self.stall,
            self.hang_in_source,
            self.hang_in_changelog,
            self.compact,
            self.compact,
            self.wrong_clock,
            self.lose_answers,
            self.forget_producer,
            self.forget_user,
            self.stop,
        ]
        drastic: list[Callable[[], None]] = [
            self.remake_source,
            self.remake_changelog,
            self.remake_while_frozen,
            self.remake_while_stalled,
            self.trim_source,
            self.trim_changelog,
            self.trim_changelog,
            self.truncate_changelog,
            self.replace_cluster,
            self.copy_changelog,
        ]
        deletion: list[Callable[[], None]] = [
            self.forget_user,
            self.forget_user,
            self.interrupt_restore,
            self.back_up,
            self.restore_backup,
            self.pass_week,
        ]
        draw = self._random.random()
        if draw < 0.08:
            self._kinds = deletion
            world.length = self._random.uniform(5.0, 8.0)
        else:
            self._kinds = self._random.sample(harmless, self._random.randint(1, 6))
            self._kinds += [self._random.choice(drastic)] if draw < 0.4 else []
        self._failpoints = self._random.random() < 0.3

    def plan(self) -> None:
        """Schedule faults of the selected kinds."""
        for kind in self._kinds:
            for _ in range(self._random.choice((1, 1, 2, 3))):
                self._world.scheduler.outside_later(
                    self._random.uniform(0.2, self._world.length), self._guarded(kind)
                )

    def _guarded(self, kind: Callable[[], None]) -> Callable[[], None]:
        def act() -> None:
            if not self._net.calm:
                self._net.happened(kind.__name__.replace("_", " "))
                kind()

        return act

    def finish(self) -> None:
        """End all faults that last."""
        world = self._world
        self._net.note("the faults end")
        self._net.calm = True
        self._net.stalled_until = 0.0
        world.disk.full.clear()
        seams.armed.clear()
        seams.skew.clear()
        if self._random.random() < 0.7:
            for transaction in self._hanging:
                world.finish(transaction, commit=False)
        for machine in world.machines:
            machine.down = False
            machine.start()
            if machine.process is not None:
                machine.process.dies_after = None
                thaw = world.scheduler.now + THAW_SECONDS
                machine.process.frozen_until = min(machine.process.frozen_until, thaw)
        for name in (EVENTS, CHANGELOG):
            if name not in world.net.broker.topics:
                world.net.broker.create(name, world.partitions)

    def explains(self, reason: str, *, last: bool) -> bool:
        """Whether a fault that happened is a cause of this refusal, the last one of a worker or one before."""
        tables = (EXPLAINED,) if last else (EXPLAINED, PASSING)
        patterns = [p for table in tables for name in self._net.faults for p in table.get(name, ())]
        return any(re.search(pattern, reason) for pattern in patterns)

    def arm(self, process: Process) -> None:
        """Choose a failpoint for a process that starts."""
        if self._failpoints and not self._net.calm and self._random.random() < 0.5:
            seams.armed[process.name] = (self._random.choice(POINTS), self._random.choice((1, 1, 2, 4)))

    # Processes

    def _machine(self) -> Machine:
        return self._random.choice(self._world.machines)

    def _partition(self) -> int:
        return self._random.randrange(self._world.partitions)

    def kill(self) -> None:
        self._machine().kill()

    def kill_between_steps(self) -> None:
        machine = self._machine()
        if machine.process is not None:
            machine.process.dies_after = self._random.randint(1, 300)

    def kill_at_failpoint(self) -> None:
        machine = self._machine()
        if machine.process is not None:
            seams.armed[machine.process.name] = (self._random.choice(POINTS), self._random.randint(1, 3))

    def interrupt_restore(self) -> None:
        """Let a worker read a part of the changelog into an empty copy, and start it again after more than a week."""
        machine, scheduler = self._machine(), self._world.scheduler
        self.wipe(machine)
        seams.armed[f"{machine.name}{machine.starts + 1}"] = (
            "restore-batch-written",
            self._random.choice((1, 2)),
        )
        scheduler.outside_later(3.0, self._guarded(self.forget_user))
        scheduler.outside_later(4.0, self._guarded(self.pass_week))

    def freeze(self) -> None:
        process = self._machine().process
        if process is not None:
            self._world.scheduler.freeze(process, self._random.choice((0.15, 0.5, 2.0, 3.0, 8.0)))

    def stop(self) -> None:
        worker, process = (machine := self._machine()).worker, machine.process
        if worker is not None and process is not None:
            worker.stop()

    def stall(self) -> None:
        self._net.stalled_until = self._world.scheduler.now + self._random.choice((0.15, 0.5, 2.0))

    def lose_answers(self) -> None:
        self._net.lost_answers = 0.05

    def forget_producer(self) -> None:
        self._net.broker.forget(f"app-{self._partition()}")

    def forget_user(self) -> None:
        """Run `streamguard forget` for a user."""
        world, user = self._world, self._random.choice(("u0", "u1", "u2"))
        settings = self._machine().settings
        self._world.judge.forgotten.add(user)
        self._operators += 1
        process = Process(f"forget{self._operators}", "operator")

        async def forget() -> None:
            try:
                found = await erase(settings, user)
                self._net.note(f"deleted {user} from {found}")
            except (StreamGuardError, KafkaError, KafkaException) as error:
                self._net.note(f"not deleted: {error}")
            world.scheduler.kill(process)

        world.scheduler.start(process, forget())

    def wrong_clock(self) -> None:
        seams.skew[self._machine().name] = self._random.choice((-10, -2, 2, 10, 400)) * 86_400.0

    def pass_week(self) -> None:
        """Let more time pass than Kafka keeps deletions, while no worker runs."""
        self._pause_all()
        seams.passed.append(WEEK_SECONDS)
        for topic in self._net.broker.topics.values():
            for log in topic.logs if topic.name == CHANGELOG else ():
                log.compact(deletions=True)

    def _pause_all(self) -> None:
        """Kill all workers, and start them again after a moment."""
        machines = self._world.machines
        for machine in machines:
            machine.down = True
            machine.kill()

        def start() -> None:
            for machine in machines:
                machine.down = False
                machine.start()

        self._world.scheduler.outside_later(0.5, start)

    # Disks

    def wipe(self, machine: Machine | None = None) -> None:
        """Delete all copies of a machine."""
        machine = machine or self._machine()
        machine.kill()
        for path in [p for p in self._world.disk.directories if p.startswith(f"/{machine.name}/")]:
            del self._world.disk.directories[path]

    def back_up(self) -> None:
        partition = self._partition()
        directory = self._world.disk.directories.get(self._machine().path(partition))
        if directory is not None:
            self._backups.append((partition, directory.copied()))

    def restore_backup(self) -> None:
        """Replace a copy by a backup of the same partition, from this or another machine."""
        if self._backups:
            partition, copy = self._random.choice(self._backups)
            machine = self._machine()
            machine.kill()
            self._world.disk.directories[machine.path(partition)] = copy.copied()

    def exchange_copies(self) -> None:
        """Exchange the copies of two partitions."""
        machine, directories = self._machine(), self._world.disk.directories
        machine.kill()
        paths = [machine.path(0), machine.path(1)]
        copies = [directories.pop(path, None) for path in paths]
        for path, copy in zip(reversed(paths), copies, strict=True):
            if copy is not None:
                directories[path] = copy

    def damage(self) -> None:
        directory = self._world.disk.directories.get(self._machine().path(self._partition()))
        if directory is not None:
            directory.fault = "Corruption: block checksum mismatch"

    def fill_disk(self) -> None:
        path = f"/{self._machine().name}/"
        self._world.disk.full.add(path)
        self._world.scheduler.outside_later(
            self._random.uniform(0.2, 2.0), lambda: self._world.disk.full.discard(path)
        )

    # Topics

    def _hang(self, topic: str, record: tuple[bytes | None, bytes, Any], *, commit: bool) -> None:
        log = self._net.broker.log(topic, self._partition())
        if log is None:
            return
        transaction = Transaction(None)
        log.append([record], self._net.broker.clock(), transaction)
        self._hanging.append(transaction)
        self._world.scheduler.outside_later(
            self._random.choice((0.5, 2.0, 5.0, 20.0)), lambda: self._world.finish(transaction, commit=commit)
        )

    def hang_in_source(self) -> None:
        self._hang(EVENTS, (None, b"u1 hanging", ()), commit=self._random.random() < 0.5)

    def hang_in_changelog(self) -> None:
        self._hang(CHANGELOG, (b"stranger", b"", ()), commit=False)

    def compact(self) -> None:
        if (log := self._net.broker.log(CHANGELOG, self._partition())) is not None:
            log.compact()

    def trim_source(self) -> None:
        if (log := self._net.broker.log(EVENTS, self._partition())) is not None:
            log.trim(self._random.randint(0, log.stable))

    def trim_changelog(self) -> None:
        if (log := self._net.broker.log(CHANGELOG, self._partition())) is not None:
            log.trim(self._random.randint(0, log.stable))

    def _remake(self, topic: str, gap: float) -> None:
        broker, partitions = self._net.broker, self._world.partitions
        if topic not in broker.topics or self._net.calm:
            return
        broker.delete(topic)

        def create() -> None:
            if topic not in broker.topics:
                broker.create(topic, partitions)
                self._net.note(f"{topic} is created again")
                if topic == EVENTS and self._random.random() < 0.7:
                    for _ in range(self._random.randint(1, 12)):
                        self._world._send()

        if gap:
            self._world.scheduler.outside_later(gap, create)
        else:
            create()

    def remake_source(self) -> None:
        self._remake(EVENTS, self._random.uniform(0.4, 2.0))

    def remake_changelog(self) -> None:
        self._remake(CHANGELOG, self._random.uniform(0.4, 2.0))

    def truncate_changelog(self) -> None:
        """Lose the end of a changelog, at the end of a transaction.

        A copy that another worker has, or a backup, could pass for one of the new end: offsets do not show the
        difference.
        """
        log = self._net.broker.log(CHANGELOG, self._partition())
        if (
            log is None
            or log.stable < log.end
            or len(self._world.machines) > 1
            or self._world.judge.forgotten
        ):
            return
        ends = [e.offset + 1 for e in log.entries if e.marker]
        if ends and log in self._world.judge.views and not log.compacted:
            self._world.machines[0].kill()
            self._backups.clear()
            log.truncate(self._random.choice(ends))
            self._world.judge.truncated(log)

    def replace_cluster(self) -> None:
        """Stop all workers, and start them with their old disks on a new cluster."""
        world = self._world
        self._pause_all()
        for topic in (EVENTS, CHANGELOG):
            if topic in world.net.broker.topics:
                self._remake(topic, 0.0)
        world.group.forget()

    def copy_changelog(self) -> None:
        """Create the changelog again while no worker runs, with the records of the old one, or of another partition."""
        broker, world = self._net.broker, self._world
        old = broker.topics.get(CHANGELOG)
        if old is None:
            return
        self._pause_all()
        broker.delete(CHANGELOG)
        new, shift = broker.create(CHANGELOG, world.partitions), self._random.choice((0, 0, 1))
        for log in old.logs:
            target = new.logs[(log.partition + shift) % world.partitions]
            target.append([(e.key, e.value, ()) for e in log.entries if e.committed], broker.clock())
            world.judge.copied(target)

    def remake_while_frozen(self) -> None:
        """Create a topic again while every worker stands still."""
        topic = self._either_topic()
        for machine in self._world.machines:
            if machine.process is not None:
                self._world.scheduler.freeze(machine.process, self._random.uniform(0.5, 3.0))
        self._world.scheduler.outside_later(0.05, lambda: self._remake(topic, 0.0))

    def remake_while_stalled(self) -> None:
        """Create a topic again while no broker answers."""
        topic = self._either_topic()
        self._net.stalled_until = self._world.scheduler.now + self._random.uniform(0.4, 2.0)
        self._world.scheduler.outside_later(0.05, lambda: self._remake(topic, 0.0))

    def _either_topic(self) -> str:
        topic = self._random.choice((EVENTS, CHANGELOG))
        self._net.happened(f"remake {'source' if topic == EVENTS else 'changelog'}")
        return topic
