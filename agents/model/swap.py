"""A model swap yields to the scoring of chunks, and what chunks still wait for it is measured."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamguard.metrics import MODEL_SWAP_PAUSE_SECONDS

YIELD_SECONDS = 1.0
"""A swap yields for at most this long in total: a worker that is never idle has to get its forest, too."""
_REST_SECONDS = 0.001
_SWITCH_SECONDS = 0.0005

_log = logging.getLogger(__name__)


class SwapGuard:
    """Keeps a swap in one thread from delaying chunks in another.

    Notes
    -----
    Loading a forest of 300 trees takes 3 to 4 ms of CPU. Most of it is compiled code and hashing, which run without the
    interpreter lock; the rest is a dozen steps of less than a millisecond. Between two steps the loading thread rests
    while a chunk is scored, and a chunk that arrives during a step asks for the lock after half a millisecond instead
    of Python's usual five.

    A chunk is scored in one go. What that takes beyond the CPU time of its thread, and beyond the time in which the
    kernel gave the thread no core, is waiting for the interpreter lock or for a disk. The sum over the chunks that were
    scored during a swap is the pause of the swap: no event has waited longer for it.
    """

    def __init__(self) -> None:
        self._scoring = False
        self._swapping = False
        self._swapped_at: float | None = None
        self._waited = 0.0
        self._schedule: int | None = None

    @contextmanager
    def swap(self) -> Iterator[Callable[[], None]]:
        """Load and swap in this context, in any thread but that of the chunks.

        Yields
        ------
        callable
            To be called between two steps of loading; it returns when no chunk is being scored.
        """
        deadline = time.perf_counter() + YIELD_SECONDS

        def give_way() -> None:
            while self._scoring and time.perf_counter() < deadline:
                time.sleep(_REST_SECONDS)

        interval = sys.getswitchinterval()
        self._waited, self._swapping = 0.0, True
        sys.setswitchinterval(min(interval, _SWITCH_SECONDS))
        try:
            yield give_way
        finally:
            sys.setswitchinterval(interval)
            self._swapped_at = time.perf_counter()
            self._swapping = False

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Score a chunk in this context, always in the same thread."""
        worked = self._worked()
        began = time.perf_counter()
        self._scoring = True
        try:
            yield
        finally:
            self._scoring = False
        swapping, ended = self._swapping, self._swapped_at
        if swapping or (ended is not None and began < ended):
            # In this order: a core lost between the two readings must not look like a wait.
            took = time.perf_counter() - began
            self._waited += max(0.0, took - (self._worked() - worked))
        if ended is not None and not swapping:
            waited_ms = self._waited * 1000
            MODEL_SWAP_PAUSE_SECONDS.observe(self._waited)
            _log.info(
                "a model swap delayed chunks by %.1f ms", waited_ms, extra={"pause_ms": round(waited_ms, 3)}
            )
            self._swapped_at = None

    def close(self) -> None:
        """Close the file that the measurement reads."""
        if self._schedule is not None:
            os.close(self._schedule)
            self._schedule = None

    def _worked(self) -> float:
        """Seconds in which this thread had a core or waited for one; without Linux, in which it had one."""
        if self._schedule is None:
            try:
                self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return time.thread_time()
        return time.thread_time() + int(os.pread(self._schedule, 64, 0).split()[1]) * 1e-9
