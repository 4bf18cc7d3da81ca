"""Compiles every kernel that a worker uses into `NUMBA_CACHE_DIR`, when an image is built."""

from __future__ import annotations

from streamguard.state.warmup import compile_fold, compile_forest

if __name__ == "__main__":
    compile_fold()
    compile_forest()
