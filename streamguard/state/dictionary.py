"""The dictionary of a partition: a bounded set of the texts behind hashes in sketches, so that alerts can name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from streamguard.fold.dimensions import TEXT_CHARACTERS

SIZE = 65_536
PER_PAGE = 256
_decode = msgspec.msgpack.Decoder(tuple[list[int], list[str]]).decode


class Dictionary:
    """Hash -> text, for values with enough weight in a user's sketch.

    Each value has two possible places; a later value replaces an earlier one.

    Parameters
    ----------
    read
        Reads saved pages: keys -> value or None.
    """

    def __init__(self, read: Callable[[list[bytes]], list[bytes | None]]) -> None:
        self.hashes = np.zeros(SIZE, np.uint64)
        """uint64 (65536,): hash at each place, set by the fold. It is ahead of the texts while alerts are explained."""
        self._values = [0] * SIZE
        self._texts = [""] * SIZE
        self._dirty: set[int] = set()
        for page, saved in enumerate(read([_key(page) for page in range(SIZE // PER_PAGE)])):
            if saved is not None:
                place = slice(page * PER_PAGE, (page + 1) * PER_PAGE)
                self._values[place], self._texts[place] = _decode(saved)
                self.hashes[place] = self._values[place]

    def remember(self, place: int, value: int, text: str) -> None:
        """Store the text of a hash at the place that the fold has chosen."""
        self._values[place] = value
        self._texts[place] = text[:TEXT_CHARACTERS]
        self._dirty.add(place // PER_PAGE)

    def texts(self, value: int) -> str | None:
        """Return the text of a hash, or None if it is not stored."""
        for place in _places(value):
            if self._values[place] == value:
                return self._texts[place]
        return None

    def changes(self) -> list[tuple[bytes, bytes]]:
        """Return (key, value) of each page that differs from the last checkpoint."""
        out = []
        for page in sorted(self._dirty):
            place = slice(page * PER_PAGE, (page + 1) * PER_PAGE)
            out.append((_key(page), msgspec.msgpack.encode((self._values[place], self._texts[place]))))
        return out

    def clean(self) -> None:
        """Mark all changes as saved."""
        self._dirty.clear()


def texts_of(read: Callable[[list[bytes]], list[bytes | None]], values: Iterable[int]) -> dict[int, str]:
    """The texts of some hashes, from the saved pages that may contain them; a hash without a text is left out.

    Parameters
    ----------
    read
        Reads saved pages: keys -> value or None.
    values
        Hashes.
    """
    wanted = set(values)
    numbers = sorted({place // PER_PAGE for value in wanted for place in _places(value)})
    found: dict[int, str] = {}
    for saved in read([_key(page) for page in numbers]) if numbers else ():
        if saved is not None:
            found.update(
                (value, text) for value, text in zip(*_decode(saved), strict=True) if value in wanted
            )
    return found


def _places(value: int) -> tuple[int, int]:
    """The two places that a hash may have."""
    return value % SIZE, (value >> 32) % SIZE


def _key(page: int) -> bytes:
    return b"w" + page.to_bytes(2, "big")
