"""Forks Spark's Python workers from a process that has already imported the fold and loaded its kernels."""

from __future__ import annotations


def prepare() -> None:
    """Import the modules of a task, and load every kernel, those of the summaries included, by folding one event."""
    import numpy as np

    from streamguard.batch.folding.fold_range import fold_range
    from streamguard.batch.source.offset_range import OffsetRange, RecordChunk
    from streamguard.settings.schema import Detection, Sampling
    from streamguard.state.warmup import EVENT

    records = [RecordChunk(np.arange(2), [EVENT, b"?"])]
    for _ in fold_range(OffsetRange(0, 0, 2), records, Detection(), Sampling()):
        pass


if __name__ == "__main__":
    import pyspark.worker  # noqa: F401  (the first import of a worker)
    from pyspark import daemon

    prepare()
    daemon.manager()
