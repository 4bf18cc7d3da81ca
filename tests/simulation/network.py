"""The simulated network: carries requests to the broker and answers back, late, and notes them in the trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.simulation.broker import Broker
from tests.simulation.scheduler import EPOCH, Process, Scheduler, current

T = TypeVar("T")


class Network:
    """Delays, faults of answers, and the trace.

    Attributes
    ----------
    broker
        Where requests go.
    calm
        Whether faults are over: answers come, and come soon.
    stalled_until
        Simulated time before which the broker answers nothing.
    faults
        Names of the faults so far, in order.
    trace
        Lines of the trace; None if none is written.
    """

    def __init__(self, scheduler: Scheduler, *, trace: bool) -> None:
        self.scheduler = scheduler
        self.random = scheduler.random
        self.calm = False
        self.judge: Any = None
        self.faults: list[str] = []
        self.slow = self.random.random() < 0.3
        self.stalled_until = 0.0
        self.lost_answers = 0.0
        self.trace: list[str] | None = [] if trace else None
        self.broker = Broker(lambda: int((EPOCH + scheduler.now) * 1000), scheduler.outside_later)
        self.broker.marker_delay = self._marker_delay

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.scheduler.now:10.5f} {current().name:9} {text}")

    def happened(self, fault: str) -> None:
        """Write a fault into the trace, and remember it."""
        self.note(f"fault: {fault}")
        self.faults.append(fault)

    def chance(self, what: str, probability: float) -> bool:
        """Whether a fault happens."""
        happens = not self.calm and self.random.random() < probability
        if happens:
            self.happened(what)
        return happens

    def choose(self, what: str, choices: Sequence[T]) -> T:
        """One of several possibilities."""
        return self.random.choice(choices)

    def lost(self, what: str) -> str:
        """What is lost for so long that the client gives up: `request`, `answer` or nothing (empty)."""
        if not self.chance(f"lost {what}", self.lost_answers):
            return ""
        return self.random.choice(("request", "answer"))

    def latency(self) -> float:
        """Seconds of one way of a request."""
        draw = self.random.random()
        if self.calm or draw < 0.9:
            return 0.0005 + 0.004 * draw
        if draw < 0.99 or not self.slow:
            return self.random.uniform(0.005, 0.08)
        return self.random.uniform(0.1, 1.5)

    def send(
        self, process: Process, name: str, act: Callable[[], T], not_before: float
    ) -> tuple[asyncio.Future[T], float]:
        """Carry a request to the broker; return its answer, and when it arrives.

        A request arrives also if its sender dies meanwhile.
        """
        scheduler = self.scheduler
        answer: asyncio.Future[T] = scheduler.create_future()
        arrival = max(scheduler.now + self.latency(), not_before, self.stalled_until)

        def arrive() -> None:
            error: Exception | None = None
            result: Any = None
            try:
                result = act()
            except Exception as raised:  # noqa: BLE001 - the client gets it
                error = raised
            if self.trace is not None:
                outcome = type(error).__name__ if error else _short(result)
                self.note(f"<- {process.name}: {name}{outcome}")

            def settle() -> None:
                if answer.done() or not process.alive:
                    return
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(result)

            scheduler.outside_later(self.latency(), settle)

        scheduler.outside_later(arrival - scheduler.now, arrive)
        return answer, arrival

    def _marker_delay(self) -> float:
        return self.random.uniform(0.01, 0.5) if self.chance("late markers", 0.1) else 0.0


def _short(result: Any) -> str:
    if isinstance(result, (int, float)):
        return f" = {result}"
    if isinstance(result, tuple) and result and isinstance(result[-1], int):
        return f" up to {result[-1]}"
    return ""


_active: list[Network] = []


def network() -> Network:
    """The network of the running simulation."""
    return _active[-1]


def activate(net: Network) -> None:
    """Make a network the one that new clients use."""
    _active[:] = [net]
