"""Memory release frees unreferenced objects on request, including reference cycles."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from streamguard import memory_release


class _Holder:
    def __init__(self) -> None:
        self.itself = self
        self.large = np.ones(memory_release.LARGE)


def test_reference_cycle_is_freed() -> None:
    memory_release.keep_whole()
    gc.disable()
    try:
        held = weakref.ref(_Holder())
        assert held() is not None
        memory_release.give_back()
        assert held() is None
    finally:
        gc.enable()
