"""Runs a job again and again until the process is told to stop; a failed run does not end the series."""

from __future__ import annotations

import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime


def repeat(once: Callable[[], int], every: float, jitter: float, say: Callable[[str], None]) -> None:
    """Run now, then every so often, until SIGTERM or SIGINT.

    A run that takes longer than the interval delays the next; two never run at once. A stop lets the run that
    is under way end; a second one does what it did before.

    Parameters
    ----------
    once
        One run; what it raises is told, and the series goes on.
    every
        Seconds from start to start.
    jitter
        Seconds by which a start is put off at the most.
    say
        Hears what each run came to, and when the next one starts.
    """
    stopped = threading.Event()

    def restore() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    def stop(*_: object) -> None:
        stopped.set()
        restore()

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        due = time.monotonic()
        while not stopped.is_set():
            try:
                ended = f"run ended with code {once()}"
            except Exception:  # noqa: BLE001 - the next run may do better
                ended = f"run failed:\n{traceback.format_exc()}"
            due = max(due + every, time.monotonic())
            wait = max(due + random.uniform(0.0, jitter) - time.monotonic(), 0.0)
            then = datetime.fromtimestamp(time.time() + wait, UTC)
            say(
                f"{ended}; {'stopped' if stopped.is_set() else f'the next one starts at {then:%Y-%m-%d %H:%M:%S}Z'}"
            )
            stopped.wait(wait)
    finally:
        restore()
