"""Runs a job again and again until the process is told to stop; a failed run does not end the series."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


def repeat(once: Callable[[], int], every: float, jitter: float) -> None:
    """Run now, then every so often, until SIGTERM or SIGINT.

    A run that takes longer than the interval delays the next; two never run at once. A stop lets the run that
    is under way end.

    Parameters
    ----------
    once
        One run; what it raises is logged, and the series goes on.
    every
        Seconds from start to start.
    jitter
        Seconds by which a start is put off at the most.
    """
    stopped = threading.Event()
    before = {name: signal.signal(name, lambda *_: stopped.set()) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        due = time.monotonic()
        while not stopped.is_set():
            try:
                _log.info("run ended with %d", once())
            except Exception as error:  # noqa: BLE001 - the next run may do better
                _log.exception("run failed; the next one is due as planned: %s", error)
            due = max(due + every, time.monotonic())
            stopped.wait(due + random.uniform(0.0, jitter) - time.monotonic())
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
