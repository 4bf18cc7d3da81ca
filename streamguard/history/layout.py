"""Places the rows of files in the partitions of a topic: which partition and offset each row would have there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamguard.events.subject import key_of, topic_key
from streamguard.history.files import Batch
from streamguard.history.partitioner import partition_of


@dataclass(frozen=True, slots=True)
class Placed:
    """The rows of a batch that belong to one partition.

    Attributes
    ----------
    partition
        Number of the partition.
    rows
        int64 (n,): positions in the batch, ascending.
    offsets
        int64 (n,): the offset of each row, continuing those of the partition's earlier rows.
    """

    partition: int
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]


class Layout:
    """The partitions of a topic that is filled with the rows of files, in their order.

    Everything that reads a file as a history uses this class, so that a row has the same partition and offset, and an
    incident the same id, in each. The partition follows from the key that the row would have in the topic, by Kafka's
    default partitioner.

    Parameters
    ----------
    partitions
        Number of partitions.

    Attributes
    ----------
    ends : list of int
        First free offset of each partition.

    Examples
    --------
    >>> from streamguard.events.event import parse
    >>> values = [b'{"timestamp": 1, "event_type": "x", "user": "djones"}', b'{"user": "djones"}', b"?"]
    >>> batch = Batch(1, [1, 2, 3], values, *parse(values), extra={})
    >>> layout = Layout(4)
    >>> [(placed.partition, placed.rows.tolist(), placed.offsets.tolist()) for placed in layout.place(batch)]
    [(1, [2], [0]), (3, [0, 1], [0, 1])]
    >>> layout.ends
    [0, 1, 0, 2]
    """

    def __init__(self, partitions: int) -> None:
        self.ends = [0] * partitions
        self._partition = lru_cache(65_536)(lambda key: partition_of(key.encode(), partitions))

    def place(self, batch: Batch, among: NDArray[np.bool_] | None = None) -> Iterator[Placed]:
        """Place the next rows, partition by partition.

        Parameters
        ----------
        batch
            Rows that follow those of the last call.
        among
            bool, one for each row: the rows to place; None means all rows. Other rows have no offset.
        """
        partition = np.full(len(batch.values), -1)
        for event, row in zip(batch.events, batch.index, strict=True):
            partition[row] = self._partition(key_of(event))
        for refusal in batch.refused:
            partition[refusal.index] = self._partition(topic_key(refusal.user, refusal.source))
        if among is not None:
            partition[~among] = -1
        for number in np.unique(partition[partition >= 0]).tolist():
            rows = np.flatnonzero(partition == number)
            first = self.ends[number]
            self.ends[number] = first + len(rows)
            yield Placed(number, rows, np.arange(first, first + len(rows)))
