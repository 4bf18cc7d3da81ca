"""Changes over time: a new laptop, phone or office, a new address at home, the next browser version."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000


class Thing(IntEnum):
    """Things that are replaced from time to time."""

    LAPTOP = 0
    PHONE = 1
    OFFICE = 2
    HOME = 3
    BROWSER = 4


LIFE_DAYS = (400, 330, 700, 30, 28)
"""Days after which each `Thing` is replaced."""


class Drift:
    """Computes which laptop, phone, office, home address and browser a user has at a time.

    The result depends on absolute time, so that a back-fill and the live run after it agree.

    Parameters
    ----------
    count
        Number of accounts.
    seed
        Seed of the phases, so that things of different accounts are replaced on different days.
    """

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self._life = np.array(LIFE_DAYS, dtype=np.int64) * DAY_MS
        self._phase = (rng.random((count, len(Thing))) * self._life).astype(np.int64)

    def generation(
        self, things: NDArray[np.int64], users: NDArray[np.int64], times: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the serial number of each thing in use, from arrays of one length; 0 for a negative thing, which never
        changes.
        """
        life = self._life[things]
        number = (times + self._phase[users, things]) // life
        out: NDArray[np.int64] = np.where(things < 0, 0, number)
        return out
