"""An answer that takes long and that many ask for: one of them computes it, and the others have it for some seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

FRESH_SECONDS = 5.0
"""How long an answer is given again: people look at it, and it counts what has happened within weeks."""
OLD_SECONDS = 60.0
"""How old an answer may be that is given while the next one is computed."""


class Shared(Generic[T]):
    """Gives an answer to any number of threads, of which one at a time computes it, and none waits for another.

    Parameters
    ----------
    compute
        Computes the answer.
    busy
        What is answered while another thread computes it, and no earlier answer is young enough.

    Examples
    --------
    >>> numbers = iter(range(9))
    >>> shared = Shared(lambda: next(numbers), -1)
    >>> shared(), shared()
    (0, 0)
    """

    def __init__(self, compute: Callable[[], T], busy: T) -> None:
        self._compute = compute
        self._busy = busy
        self._lock = threading.Lock()
        self._found: tuple[float, T] | None = None
        """When the last answer was computed, and the answer."""

    def __call__(self) -> T:
        """The answer."""
        if (found := self._younger(FRESH_SECONDS)) is not None:
            return found[1]
        if not self._lock.acquire(blocking=False):
            found = self._younger(OLD_SECONDS)
            return self._busy if found is None else found[1]
        try:
            if (found := self._younger(FRESH_SECONDS)) is None:
                found = time.monotonic(), self._compute()
                self._found = found
            return found[1]
        finally:
            self._lock.release()

    def _younger(self, seconds: float) -> tuple[float, T] | None:
        found = self._found
        return found if found is not None and time.monotonic() - found[0] < seconds else None
