"""What nobody has any more is gone when a worker says so, cycles included."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from streamguard.agents.task import memory_release


class _Holder:
    def __init__(self) -> None:
        self.itself = self
        self.large = np.ones(memory_release.LARGE)


def test_what_only_refers_to_itself_is_given_back() -> None:
    memory_release.keep_whole()
    gc.disable()
    try:
        held = weakref.ref(_Holder())
        assert held() is not None
        memory_release.give_back()
        assert held() is None
    finally:
        gc.enable()
