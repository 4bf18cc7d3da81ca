"""Compiles all kernels, or loads the compiled ones, before they are needed, so that no event waits for it."""

from __future__ import annotations

import numpy as np

from streamguard.fold.features import NAMES
from streamguard.models.forest import BLOCK, Forest
from streamguard.models.tail import Tail
from streamguard.models.trees import Trees
from streamguard.settings.schema import Detection
from streamguard.state.partition import PartitionState

EVENT = b'{"timestamp": 1700000000000, "event_type": "auth_attempt", "source_ip": "192.0.2.1", "user": "-"}'
"""An artificial event, for which all kernels are compiled."""
ODD_EVENT = EVENT.replace(b'"-"', b"7")
"""The same event, to be repaired."""


def compile_fold() -> None:
    """Compile the fold: fold two events, of which one is repaired, into an empty state."""
    state = PartitionState(0, lambda keys: [None] * len(keys), resident=1024, detection=Detection())
    state.fold([EVENT, ODD_EVENT], np.arange(2))


def compile_forest() -> None:
    """Compile the forest's kernels: score a block of rows and a single row with a tree of one leaf."""
    no_child, rows = np.full(1, -1, np.int32), np.zeros((BLOCK + 1, len(NAMES)), np.float32)
    leaf = Trees(
        features=len(NAMES),
        normaliser=1.0,
        roots=np.zeros(1, np.int32),
        feature=no_child,
        threshold=np.zeros(1, np.float32),
        left=no_child,
        right=no_child,
        path=np.ones(1),
    )
    Forest(leaf, Tail(np.ones(1), np.zeros(1), 1.0), rows[:1], np.zeros(1)).bits(rows)
