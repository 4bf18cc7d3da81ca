"""Waiting for a condition of another process, which can only be asked again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def poll_until(probe: Callable[[], T], timeout: float, interval: float = 0.05) -> T:
    """The first truthy answer of a probe.

    Parameters
    ----------
    probe
        Asked at once, and again after each interval. What it raises ends the wait.
    timeout, interval
        Seconds.

    Raises
    ------
    TimeoutError
        If there is no such answer in time.

    Examples
    --------
    >>> answers = iter([0, 0, 7])
    >>> poll_until(lambda: next(answers), timeout=5.0, interval=0.0)
    7
    """
    deadline = time.monotonic() + timeout
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(interval)
    return answer
