"""Events kept with their features while a partition is folded, in bounded memory: those with the smallest keys."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.features import NAMES
from streamguard.state.partition import Folded

KEPT = np.dtype(
    [
        ("key", "<f8"),
        ("offset", "<i8"),
        ("timestamp", "<i8"),  # ms
        ("features", "<f4", len(NAMES)),
        ("score", "<f8"),
        ("tail", "<f8"),
        ("strength", "<f8"),
        ("patterns", "<u8"),
        ("alerted", "?"),
    ]
)
TEXTS = ("user", "event_type", "source")
MAX_CHARACTERS = 256
"""Of a text; longer ones are cut."""


class BottomKSample:
    """The events with the smallest keys, ties to the smaller offset.

    Parameters
    ----------
    most
        Events kept at the most.

    Notes
    -----
    Keys do not depend on what else is there, so what is kept of two ranges, offered again, is what would
    have been kept of both in one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = np.inf
        self._rows: list[NDArray[Any]] = []
        self._texts: list[NDArray[np.object_]] = []
        self._count = 0

    def offer(
        self, keys: NDArray[np.float64], offsets: NDArray[np.int64], folded: Folded, among: NDArray[np.int64]
    ) -> None:
        """Consider events of a chunk.

        Parameters
        ----------
        keys
            float64 (n,), of all events of the chunk.
        offsets
            int64 (n,), likewise.
        among
            Indices of those to consider.
        """
        chosen = among[keys[among] <= self._limit]
        if not len(chosen):
            return
        rows = np.empty(len(chosen), KEPT)
        rows["key"] = keys[chosen]
        rows["offset"] = offsets[chosen]
        rows["timestamp"] = folded.columns.timestamp[chosen]
        rows["features"] = folded.features[chosen]
        rows["score"] = folded.score[chosen]
        rows["tail"] = folded.tail[chosen]
        rows["strength"] = folded.evidence[chosen]
        rows["patterns"] = folded.patterns[chosen]
        rows["alerted"] = folded.kind[chosen] != 0
        columns = folded.columns
        texts = np.empty((len(chosen), len(TEXTS)), object)
        for k, told in enumerate((columns.users, columns.text("type"), columns.text("source"))):
            texts[:, k] = [told[i][:MAX_CHARACTERS] for i in chosen.tolist()]
        self.restore(rows, texts)

    def restore(self, rows: NDArray[Any], texts: NDArray[np.object_]) -> None:
        """Consider rows kept elsewhere: `KEPT` (n,), and `TEXTS` (n, 3)."""
        self._rows.append(rows)
        self._texts.append(texts)
        self._count += len(rows)
        if self._count >= 2 * self._most:
            rows, texts = self.rows()
            self._rows, self._texts, self._count = [rows], [texts], len(rows)
            self._limit = float(rows["key"].max())

    def rows(self) -> tuple[NDArray[Any], NDArray[np.object_]]:
        """What is kept, sorted by offset: `KEPT` (n,), and `TEXTS` (n, 3)."""
        rows = np.concatenate([np.empty(0, KEPT), *self._rows])
        texts = np.concatenate([np.empty((0, len(TEXTS)), object), *self._texts])
        chosen = np.argsort(rows["offset"], kind="stable")
        keys = rows["key"][chosen]
        if len(keys) > self._most:
            limit = np.partition(keys, self._most - 1)[self._most - 1]
            inside = keys < limit
            inside[np.flatnonzero(keys == limit)[: self._most - np.count_nonzero(inside)]] = True
            chosen = chosen[inside]
        return rows[chosen], texts[chosen]
