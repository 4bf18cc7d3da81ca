"""Memory goes back to the system when partitions are closed, and not when Python and glibc come to it.

A closed partition is in reference cycles: its profiles stay until the next full collection, which is far. And what is
freed leaves holes in glibc's heap. On other C libraries holes stay.
"""

from __future__ import annotations

import ctypes
import gc

LARGE = 512 << 10
"""Bytes from which memory is taken from the system and given back by itself. Unless told, glibc raises this to 32 MB
as soon as something large is freed, and cuts partitions out of the heap from then on."""

_M_MMAP_THRESHOLD = -3


def keep_whole() -> None:
    """Keep large memory out of the heap from now on."""
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)


def give_back() -> None:
    """Collect what nobody has any more, and give free pages back; all threads stand still meanwhile."""
    gc.collect()
    if (malloc_trim := _function("malloc_trim")) is not None:
        malloc_trim(0)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None)
