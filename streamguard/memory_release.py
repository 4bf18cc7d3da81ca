"""Returns memory to the system when partitions are closed, instead of waiting for Python's collector and for malloc.

A closed partition is part of reference cycles, so its profiles stay in memory until the next full collection, which
may be far away. Freed memory then leaves holes in the heap; glibc can return them, other C libraries keep them.
"""

from __future__ import annotations

import ctypes
import gc

LARGE = 512 << 10
"""Size in bytes from which glibc maps each allocation separately and returns it to the system when it is freed. Without
this setting, glibc raises the threshold to as much as 32 MB when a large block is freed, and then takes the memory of
partitions from the heap."""

ARENAS = 2
"""Number of heaps that glibc shares out to threads. By default it is eight for each processor, and each keeps the
memory that its threads free."""

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def keep_whole() -> None:
    """Keep large allocations out of the heap from now on, and threads that start from now on in few heaps."""
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)
        mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Collect unreachable objects and return free pages to the system; all other threads wait until it is done."""
    gc.collect()
    if (malloc_trim := _function("malloc_trim")) is not None:
        malloc_trim(0)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None)
