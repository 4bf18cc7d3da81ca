"""Compiles every kernel that a worker uses into `NUMBA_CACHE_DIR`, when an image is built."""

from __future__ import annotations

import numpy as np

from streamguard.features import FEATURES
from streamguard.forest import BLOCK, Forest
from streamguard.settings import Detection
from streamguard.state import PartitionState
from streamguard.tail import Tail
from streamguard.trees import Trees

EVENT = b'{"timestamp": 1700000000000, "event_type": "auth_attempt", "source_ip": "192.0.2.1", "user": "-"}'


def main() -> None:
    """Fold one event over nothing, and take a block of rows and a single one through a tree of one leaf."""
    state = PartitionState(0, lambda keys: [None] * len(keys), resident=1024, detection=Detection())
    state.fold([EVENT], np.zeros(1, np.int64))
    state.changes()
    leaf, rows = np.full(1, -1, np.int32), np.zeros((BLOCK + 1, len(FEATURES)), np.float32)
    trees = Trees(
        len(FEATURES), 1.0, np.zeros(1, np.int32), leaf, np.zeros(1, np.float32), leaf, leaf, np.ones(1)
    )
    Forest(trees, Tail(np.ones(1), np.zeros(1), 1.0), rows[:1], np.zeros(1)).bits(rows)


if __name__ == "__main__":
    main()
