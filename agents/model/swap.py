"""A swap gives way to the handling of chunks, and what chunks wait for it all the same is measured."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from streamguard.metrics import MODEL_SWAP_PAUSE_SECONDS

PATIENCE_SECONDS = 1.0
"""For this long a swap gives way; a worker that is never idle must get its forest too."""
_REST_SECONDS = 0.001
_SWITCH_SECONDS = 0.0005

_log = logging.getLogger(__name__)


class SwapGuard:
    """Keeps a swap in one thread from holding up chunks in another.

    Notes
    -----
    Loading a forest of 300 trees takes 8 ms of CPU, in steps of at most half a millisecond. Left alone, the two
    threads would take the interpreter from each other every 5 ms, and on a busy machine the kernel would take the
    core from the one that holds the interpreter: chunks were seen to wait for 22 ms. So the loading thread rests
    while a chunk is handled, which a profile hook makes it do between any two of its calls, and a chunk that comes
    in the middle of a call asks for the interpreter after half a millisecond.

    A chunk is handled in one go. So what that takes beyond its thread's CPU time, and beyond the time in which the
    kernel gave it no core, went into waiting for the interpreter, or for a disk. The sum over the chunks handled
    during a swap is its pause: no event has waited longer for it.
    """

    def __init__(self) -> None:
        self._handling = False
        self._swapping = False
        self._swapped_at: float | None = None
        self._waited = 0.0
        self._schedule: int | None = None

    @contextmanager
    def of_swap(self) -> Iterator[None]:
        """Load and swap in this context, in any thread but that of the chunks."""
        patience = time.perf_counter() + PATIENCE_SECONDS

        def give_way(*_: object) -> None:
            while self._handling and time.perf_counter() < patience:
                time.sleep(_REST_SECONDS)

        interval, hook = sys.getswitchinterval(), sys.getprofile()
        self._waited, self._swapping = 0.0, True
        sys.setswitchinterval(min(interval, _SWITCH_SECONDS))
        sys.setprofile(give_way)
        try:
            yield
        finally:
            sys.setprofile(hook)
            sys.setswitchinterval(interval)
            self._swapped_at = time.perf_counter()
            self._swapping = False

    @contextmanager
    def of_chunk(self) -> Iterator[None]:
        """Handle a chunk in this context, always in the same thread."""
        worked = self._worked()
        began = time.perf_counter()
        self._handling = True
        try:
            yield
        finally:
            self._handling = False
        swapping, ended = self._swapping, self._swapped_at
        if swapping or (ended is not None and began < ended):
            # In this order: a core lost between two readings must not look like a wait.
            took = time.perf_counter() - began
            self._waited += max(0.0, took - (self._worked() - worked))
        if ended is not None and not swapping:
            waited_ms = self._waited * 1000
            MODEL_SWAP_PAUSE_SECONDS.observe(self._waited)
            _log.info("chunks waited %.1f ms for a swap", waited_ms, extra={"pause_ms": round(waited_ms, 3)})
            self._swapped_at = None

    def close(self) -> None:
        """Close what the measuring needs."""
        if self._schedule is not None:
            os.close(self._schedule)
            self._schedule = None

    def _worked(self) -> float:
        """Seconds in which this thread had a core, or wanted one; without Linux, in which it had one."""
        if self._schedule is None:
            try:
                self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return time.thread_time()
        return time.thread_time() + int(os.pread(self._schedule, 64, 0).split()[1]) * 1e-9
