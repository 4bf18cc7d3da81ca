"""Forks Spark's Python workers from a process that has imported and loaded the fold, so that none has to."""

from __future__ import annotations


def prepare() -> None:
    """Import what a task needs and load every kernel, the summaries' too, by folding one event."""
    import numpy as np

    from streamguard.batch.folding.fold_range import fold_range
    from streamguard.batch.source.offset_range import OffsetRange, Records
    from streamguard.settings.schema import Detection, Sampling
    from streamguard.state.warmup import EVENT

    records: Records = [(np.arange(2), [EVENT, b"?"])]
    for _ in fold_range(OffsetRange(0, 0, 2), records, Detection(), Sampling()):
        pass


if __name__ == "__main__":
    import pyspark.worker  # noqa: F401  (what a worker imports first)
    from pyspark import daemon

    prepare()
    daemon.manager()
