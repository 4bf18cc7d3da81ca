"""Keeps the events with the smallest keys, with their features, while a partition is folded; memory is bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.fold.features import NAMES
from streamguard.state.partition import Folded

STORED = np.dtype(
    [
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
"""An event as it is stored; its key is a column of its own."""
SAMPLED = np.dtype([("key", "<f8"), *((name, STORED[name]) for name in STORED.names or ())])
TEXTS = ("user", "event_type", "source")
MAX_CHARACTERS = 256
"""Maximum number of characters of a text; longer texts are cut."""


class BottomKSample:
    """The events with the smallest keys; of equal keys, those with the smaller offsets.

    Parameters
    ----------
    max_events
        Maximum number of events.

    Notes
    -----
    A key does not depend on the other events. Therefore the events kept of two offset ranges, offered to a third
    sample, give the same sample as both ranges read as one.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
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
            float64 (n,): keys of all events of the chunk.
        offsets
            int64 (n,): offsets of all events of the chunk.
        among
            Indices of the events to consider.
        """
        selected = among[keys[among] <= self._limit]
        if not len(selected):
            return
        rows = np.empty(len(selected), SAMPLED)
        rows["key"] = keys[selected]
        rows["offset"] = offsets[selected]
        rows["timestamp"] = folded.columns.timestamp[selected]
        rows["features"] = folded.features[selected]
        rows["score"] = folded.score[selected]
        rows["tail"] = folded.tail[selected]
        rows["strength"] = folded.evidence[selected]
        rows["patterns"] = folded.patterns[selected]
        rows["alerted"] = folded.kind[selected] != 0
        columns = folded.columns
        texts = np.empty((len(selected), len(TEXTS)), object)
        for k, values in enumerate((columns.subjects, columns.text("type"), columns.text("source"))):
            texts[:, k] = [values[i][:MAX_CHARACTERS] for i in selected.tolist()]
        self.restore(rows, texts)

    def restore(self, rows: NDArray[Any], texts: NDArray[np.object_]) -> None:
        """Consider rows that another sample kept: `SAMPLED` (n,), and `TEXTS` (n, 3)."""
        self._rows.append(rows)
        self._texts.append(texts)
        self._count += len(rows)
        if self._count >= 2 * self._max_events:
            rows, texts = self.rows()
            self._rows, self._texts, self._count = [rows], [texts], len(rows)
            self._limit = float(rows["key"].max())

    def rows(self) -> tuple[NDArray[Any], NDArray[np.object_]]:
        """The kept events, sorted by offset: `SAMPLED` (n,), and `TEXTS` (n, 3)."""
        rows = np.concatenate([np.empty(0, SAMPLED), *self._rows])
        texts = np.concatenate([np.empty((0, len(TEXTS)), object), *self._texts])
        selected = np.argsort(rows["offset"], kind="stable")
        keys = rows["key"][selected]
        if len(keys) > self._max_events:
            limit = np.partition(keys, self._max_events - 1)[self._max_events - 1]
            inside = keys < limit
            inside[np.flatnonzero(keys == limit)[: self._max_events - np.count_nonzero(inside)]] = True
            selected = selected[inside]
        return rows[selected], texts[selected]
