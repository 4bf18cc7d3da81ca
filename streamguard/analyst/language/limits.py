"""Limits on the use of a language model: calls an hour, tokens a day, a breaker after failures, and a cache."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from streamguard.analyst.language.check import RejectedError

FAILURES = 5
"""Failures in a row after which no model is asked."""
OPEN_SECONDS = 60.0
"""Seconds until one trial is made."""
MAX_CACHED = 512
"""Answers that are kept."""
MAX_CALLS = 100_000
"""Calls of a day whose tokens are added up one by one."""

T = TypeVar("T")


class Limits:
    """Decides whether a model may be asked now.

    Parameters
    ----------
    calls_per_hour, tokens_per_day
        Most of each, over the last hour and the last day.
    clock
        Seconds; replaced in tests.
    """

    def __init__(
        self, calls_per_hour: int, tokens_per_day: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calls_per_hour, self._tokens_per_day, self._clock = calls_per_hour, tokens_per_day, clock
        self._calls: deque[float] = deque()
        self._tokens: deque[tuple[float, int]] = deque(maxlen=MAX_CALLS)
        self._failures = 0
        self._opened = 0.0
        self._trying = False

    def begin(self) -> None:
        """Count a call; every call ends with `end`.

        Raises
        ------
        RejectedError
            If a limit is reached; nothing is counted then.
        """
        now = self._clock()
        while self._calls and now - self._calls[0] >= 3600.0:
            self._calls.popleft()
        while self._tokens and now - self._tokens[0][0] >= 86_400.0:
            self._tokens.popleft()
        if self.open and (self._trying or now - self._opened < OPEN_SECONDS):
            raise RejectedError("breaker")
        if len(self._calls) >= self._calls_per_hour:
            raise RejectedError("calls_per_hour")
        if sum(tokens for _, tokens in self._tokens) >= self._tokens_per_day:
            raise RejectedError("tokens_per_day")
        self._calls.append(now)
        self._trying = self.open

    def end(self, tokens: int, *, answered: bool) -> None:
        """Count the tokens of a call, and whether the server has answered; what it answered does not matter here."""
        now = self._clock()
        self._tokens.append((now, tokens))
        self._trying = False
        self._failures = 0 if answered else self._failures + 1
        if self.open:
            self._opened = now

    @property
    def open(self) -> bool:
        """Whether failures have opened the breaker."""
        return self._failures >= FAILURES


class Cache(Generic[T]):
    """Values by key, of which the least recently used are forgotten."""

    def __init__(self, size: int = MAX_CACHED) -> None:
        self._size = size
        self._held: OrderedDict[bytes, T] = OrderedDict()

    def get(self, key: bytes) -> T | None:
        """The value of a key, which is now the most recently used."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: bytes, value: T) -> None:
        """Keep a value."""
        self._held[key] = value
        self._held.move_to_end(key)
        if len(self._held) > self._size:
            self._held.popitem(last=False)
