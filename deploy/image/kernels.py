"""Compiles all kernels of a worker and of a server into `NUMBA_CACHE_DIR` while an image is built."""

from __future__ import annotations

from streamguard.records.scan import compile_scan
from streamguard.serving.replica.lookup import compile_kernels
from streamguard.state.warmup import compile_fold, compile_forest

if __name__ == "__main__":
    compile_fold()
    compile_forest()
    compile_scan()
    compile_kernels()
