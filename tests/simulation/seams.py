"""Puts the simulated clients, disk and clock in the places where the worker's modules name the real ones."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import confluent_kafka
import confluent_kafka.admin

from streamguard.agents import errors
from streamguard.agents.consumer import chunk_consumer, fetch_thread
from streamguard.agents.output import publisher
from streamguard.agents.task import (
    changelog,
    checkpoint,
    lag,
    local_copy,
    partition_task,
    restore,
    sweep,
    topic_watch,
)
from streamguard.records import reader
from streamguard.state import store
from streamguard.testing import failpoints
from tests.simulation import clients, disk
from tests.simulation.network import network
from tests.simulation.scheduler import EPOCH, DiedError, current
from tests.simulation.state import ChainState, last_active

TIMED = (
    changelog,
    checkpoint,
    chunk_consumer,
    fetch_thread,
    lag,
    local_copy,
    partition_task,
    publisher,
    restore,
    store,
    topic_watch,
)
"""Modules that read the clock."""

skew: dict[str, float] = {}
"""Seconds by which the wall clock of each machine is wrong."""
passed: list[float] = []
"""Seconds that have passed for all machines while no worker ran."""
armed: dict[str, tuple[str, int]] = {}
"""Failpoint of each process and the arrivals before it dies there."""


class Clock:
    """The module `time`, as the worker uses it."""

    strftime = staticmethod(time.strftime)

    @staticmethod
    def monotonic() -> float:
        return network().scheduler.now

    perf_counter = monotonic

    @staticmethod
    def time() -> float:
        return EPOCH + network().scheduler.now + skew.get(current().machine, 0.0) + sum(passed)

    @classmethod
    def time_ns(cls) -> int:
        return int(cls.time() * 1e9)

    @classmethod
    def gmtime(cls) -> time.struct_time:
        return time.gmtime(cls.time())


def _exit(code: int) -> None:
    process = current()
    process.exit_code = int(code)
    network().note(f"exit {int(code)}: {process.reason}")
    network().scheduler.kill(process)
    raise DiedError


def _reported(error: BaseException) -> int:
    """`errors.report`, without its log: keeps the message for the judge."""
    known = errors.translated(error)
    process = current()
    process.error = type(known if known is not None else error).__name__
    process.reason = str(known) if known is not None else f"{process.error}: {error}"
    return _report(error)


_report = errors.report


def _reach(name: str) -> None:
    """`failpoints.reach`, with a failpoint for each process."""
    process = current()
    point = armed.get(process.name)
    if point is None or point[0] != name:
        return
    if point[1] > 1:
        armed[process.name] = (name, point[1] - 1)
        return
    del armed[process.name]
    network().happened(f"killed at {name}")
    network().scheduler.kill(process)
    raise DiedError


async def _restore(number: int, *args: Any) -> Any:
    """`restore`, which also informs the judge."""
    judge = network().judge
    judge.restoring(number)
    task = await _real_restore(number, *args)
    judge.restored(task)
    return task


_real_restore = restore.restore


def _key() -> bytes:
    return network().random.randbytes(16)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Replace clients, disk and clock for the duration of a block; simulations run in it one after the other."""
    clock = Clock()
    quiet = SimpleNamespace(shutdown=lambda: None)
    replaced: list[tuple[Any, str, Any]] = [(module, "time", clock) for module in TIMED]
    replaced += [
        (topic_watch.TopicWatch.__init__, "__defaults__", (clock.monotonic,)),
        (lag.PartitionLag.__init__, "__defaults__", (clock.time,)),
        (changelog, "AIOKafkaProducer", clients.Producer),
        (changelog, "AIOKafkaConsumer", clients.Consumer),
        (publisher, "AIOKafkaProducer", clients.Producer),
        (topic_watch, "AdminClient", clients.AdminClient),
        (confluent_kafka.admin, "AdminClient", clients.AdminClient),
        (confluent_kafka, "Consumer", clients.GroupReader),
        (reader, "install", lambda: None),
        (store, "rocksdict", disk.rocksdict),
        (restore, "Path", disk.SimulatedPath),
        (local_copy, "shutil", SimpleNamespace(rmtree=disk.remove_tree)),
        (restore, "PartitionState", ChainState),
        (restore, "new_key", _key),
        (sweep, "last_active", last_active),
        (sweep, "KEYS", 3),
        (sweep, "LAP_MS", 2),
        (chunk_consumer, "restore", _restore),
        (chunk_consumer.memory_release, "give_back", lambda: None),
        (errors, "report", _reported),
        (errors.Ending, "brokers", None),  # an earlier test of this process may have set it
        (errors, "os", SimpleNamespace(_exit=_exit)),
        (errors, "logging", quiet),
        (failpoints, "reach", _reach),
    ]
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.ExitStack() as stack:
            for target, name, value in replaced:
                stack.enter_context(mock.patch.object(target, name, value))
            yield
    finally:
        logging.disable(disabled)
