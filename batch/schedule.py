"""Repeats a job until the process receives a stop signal; a failed run does not end the series."""

from __future__ import annotations

import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime


def repeat(once: Callable[[], int], every: float, jitter: float, say: Callable[[str], None]) -> None:
    """Run now, then at a fixed interval, until SIGTERM or SIGINT.

    A run that takes longer than the interval delays the next one; two runs never overlap. After the first signal, the
    current run still completes. A second signal is handled as it was before the series.

    Parameters
    ----------
    once
        One run. An exception is reported, and the series continues.
    every
        Seconds between the starts of two runs.
    jitter
        Maximum delay of a start, in seconds.
    say
        Called with the result of each run and the time of the next start.
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
            except Exception:  # noqa: BLE001 - the next run may succeed
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
