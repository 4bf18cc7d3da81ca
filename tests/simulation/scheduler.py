"""Runs simulated processes on one event loop with a virtual clock; one seed determines every choice."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

EPOCH = 1_750_000_000.0
"""Unix time at which each simulation starts."""
STEP_SECONDS = 0.00001
"""Simulated time that each callback takes."""


class DiedError(BaseException):
    """The simulated process has ended: raised by each call that its remaining code makes to the outside."""


class Process:
    """A simulated operating-system process: its callbacks, and whether they run.

    Attributes
    ----------
    name
        For the trace; each start has another one.
    machine
        Whose disk and wall clock the process uses.
    alive
        Whether its callbacks run.
    frozen_until
        Simulated time before which no callback runs, as after SIGSTOP.
    dies_after
        Number of callbacks after which the process is killed; None if it is not.
    exit_code, error, reason
        How it ended by itself: code, class and message of the error. None and empty if it was killed or runs.
    """

    def __init__(self, name: str, machine: str) -> None:
        self.name = name
        self.machine = machine
        self.alive = True
        self.frozen_until = 0.0
        self.dies_after: int | None = None
        self.exit_code: int | None = None
        self.error = ""
        self.reason = ""
        self.ready: deque[Call] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.on_death: list[Callable[[], None]] = []


_process: ContextVar[Process] = ContextVar("process")


def current() -> Process:
    """The simulated process whose code runs now."""
    return _process.get()


def require_alive() -> Process:
    """The current process; raises `DiedError` if it has ended."""
    process = _process.get()
    if not process.alive:
        raise DiedError
    return process


class Call:
    """A callback that waits to run; asyncio's `Handle` with less work."""

    __slots__ = ("args", "callback", "context", "stopped")

    def __init__(self, callback: Any, args: tuple[Any, ...], context: Context | None) -> None:
        self.callback = callback
        self.args = args
        self.context = context or copy_context()
        self.stopped = False

    def cancel(self) -> None:
        self.stopped = True

    def cancelled(self) -> bool:
        return self.stopped


class Scheduler(asyncio.AbstractEventLoop):
    """An event loop that runs one callback at a time and moves its clock itself.

    The callbacks of a process run in the order in which asyncio promises to run them. Which of several processes runs
    next is a choice of `random`.

    Attributes
    ----------
    random
        Source of every choice in the simulation.
    now
        Simulated seconds since the start.
    outside
        The process of everything that is no worker: brokers, network, operators. It never ends.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.outside = Process("outside", "")
        _process.set(self.outside)
        self.processes = [self.outside]
        self._timers: list[tuple[float, int, Any]] = []
        self._sequence = 0
        self._dead: list[Process] = []

    # Processes

    def start(self, process: Process, main: Coroutine[Any, Any, Any]) -> None:
        """Run `main` as a process."""
        self.processes.append(process)
        context = Context()
        context.run(_process.set, process)
        context.run(self.create_task, main)

    def kill(self, process: Process) -> None:
        """End a process as SIGKILL does: none of its callbacks runs again."""
        if not process.alive:
            return
        process.alive = False
        process.ready.clear()
        self.processes.remove(process)
        self._dead.append(process)
        for action in process.on_death:
            action()

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process for a time, as SIGSTOP and SIGCONT do; its requests in flight continue."""
        process.frozen_until = max(process.frozen_until, self.now + seconds)
        self.outside_later(process.frozen_until - self.now, lambda: None)

    def outside_later(self, delay: float, action: Callable[[], None]) -> None:
        """Run an action of the outside world after a delay."""
        self._sequence += 1
        heapq.heappush(self._timers, (self.now + delay, self._sequence, action))

    def run(self, until: float) -> None:
        """Run callbacks up to a simulated time; what is outside runs in the caller's context."""
        timers, processes, random = self._timers, self.processes, self.random
        asyncio._set_running_loop(self)
        try:
            while self.now <= until:
                while timers and timers[0][0] <= self.now:
                    due = heapq.heappop(timers)[2]
                    if isinstance(due, Call):
                        if not due.stopped:
                            self._enqueue(due)
                    else:
                        due()
                if self._dead:
                    self._bury()
                now, runnable, process = self.now, 0, None
                for candidate in processes:
                    if candidate.ready and candidate.frozen_until <= now:
                        runnable += 1
                        # Each of n processes is chosen with probability 1/n.
                        if runnable == 1 or random.random() * runnable < 1.0:
                            process = candidate
                if process is not None:
                    self._run_one(process)
                elif timers and timers[0][0] <= until:
                    self.now = timers[0][0]
                else:
                    break
            self.now = max(self.now, until)
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        """Kill all processes and release their coroutines."""
        for process in list(self.processes):
            self.kill(process)
        asyncio._set_running_loop(self)
        self._bury()
        asyncio._set_running_loop(None)

    def _run_one(self, process: Process) -> None:
        call = process.ready.popleft()
        if call.stopped:
            return
        self.now += STEP_SECONDS
        call.context.run(call.callback, *call.args)
        if process.dies_after is not None and process.alive:
            process.dies_after -= 1
            if process.dies_after <= 0:
                self.kill(process)

    def _bury(self) -> None:
        """Close the coroutines of dead processes now: the collector would do so at a time that no seed determines."""
        dead, self._dead = self._dead, []
        for process in dead:
            context = Context()
            context.run(_process.set, process)
            for task in process.tasks:
                if not task.done():
                    task._log_destroy_pending = False
                    context.run(_close, task.get_coro())
            process.tasks.clear()

    # The part of an event loop that asyncio's tasks, locks and timers use

    def _enqueue(self, call: Call) -> None:
        process = call.context.get(_process, self.outside)
        if process.alive:
            process.ready.append(call)

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        call = Call(callback, args, context)
        self._enqueue(call)
        return call

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        call = Call(callback, args, context)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, call))
        return call

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        process = current()
        if not process.alive:
            coro.close()
            raise DiedError
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name or "", context=context)
        tasks = process.tasks
        tasks.append(task)
        if len(tasks) > 64:
            tasks[:] = [task for task in tasks if not task.done()]
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Run a blocking call of a worker's thread: all of it at one moment, after a delay."""
        future = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)

        self.call_later(self.random.uniform(0.001, 0.03), call)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore what a process leaves behind: the simulation judges the logs of the broker and how processes end."""


def _close(coroutine: Any) -> None:
    with contextlib.suppress(BaseException):
        coroutine.close()
