"""Compilation of kernels: without reordering of arithmetic, and cached under a digest of their sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from streamguard.files.caches import cache_directory

_PACKAGE = Path(__file__).parents[1]
_USES_COMPILER = b"from streamguard.compute"


def kernel_sources() -> list[Path]:
    """Modules that make compiled kernels stale when they change: all modules of each package that compiles kernels.

    numba detects a change in a kernel's own file, but not in the modules from which it imports constants and parts.
    """
    found: list[Path] = []
    for directory, _, names in os.walk(_PACKAGE, followlinks=True):
        modules = [Path(directory, name) for name in names if name.endswith(".py")]
        if any(_USES_COMPILER in module.read_bytes() for module in modules):
            found += modules
    return sorted(found)


def _kernel_cache() -> str:
    """Directory of compiled kernels, named after the digest of their sources."""
    digest = hashlib.sha256()
    for path in kernel_sources():
        digest.update(path.read_bytes())
    return str(cache_directory("kernels") / digest.hexdigest()[:16])


if not numba.config.CACHE_DIR:
    numba.config.CACHE_DIR = _kernel_cache()

kernel: Callable[..., Any] = numba.njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
"""Compiles a function that is called from Python."""

_unwrapped: dict[str, Any] = {
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
"""Options of functions that only kernels call. Without wrappers for Python, the fold is compiled in half the time."""

inline: Callable[..., Any] = numba.njit(**_unwrapped)
"""Compiles a part of a kernel; LLVM inlines it where this is faster. Python calls it as `function.py_func`."""

part: Callable[..., Any] = numba.njit(**_unwrapped, forceinline=True)
"""Compiles a part of a kernel that is called in one place; LLVM always inlines it."""
