"""A bounded memory of what a function makes of a text: statuses, types, addresses and places repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

MAX_CHARACTERS = 200
"""A longer text is not kept."""

T = TypeVar("T")


class Readings(dict[str, T], Generic[T]):
    """What a function makes of each text; a dictionary, because a hit must cost nothing.

    Parameters
    ----------
    read
        The function. It must bound its work, because a text can be long.
    size
        Maximum number of texts; then all of them are forgotten.

    Examples
    --------
    >>> lengths = Readings(len, size=2)
    >>> lengths["ab"], lengths["c" * 1000], dict(lengths)
    (2, 1000, {'ab': 2})
    """

    def __init__(self, read: Callable[[str], T], size: int) -> None:
        super().__init__()
        self._read = read
        self._size = size

    def __missing__(self, text: str) -> T:
        value = self._read(text)
        if len(text) <= MAX_CHARACTERS:
            if len(self) >= self._size:
                self.clear()
            self[text] = value
        return value
