"""Forks Spark's Python workers from a process that has imported and loaded the fold, so that none has to."""

from __future__ import annotations


def prepare() -> None:
    """Import what a task needs and load every kernel of the fold by folding one event."""
    import numpy as np

    from batch.stretch import Records, Stretch, fold_stretch
    from streamguard.settings import Detection, Sampling

    event = (
        b'{"timestamp": 1700000000000, "user": "a", "event_type": "auth_attempt", "source_ip": "192.0.2.1"}'
    )
    records: Records = [(np.arange(2), [event, b"?"])]
    for _ in fold_stretch(Stretch(0, 0, 2), records, Detection(), Sampling()):
        pass


if __name__ == "__main__":
    import pyspark.worker  # noqa: F401  (what a worker imports first)
    from pyspark import daemon

    prepare()
    daemon.manager()
