"""Finds the end of a damaged batch by asking the broker, because the header of such a batch cannot be believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

from streamguard.records.batch import HEADER_BYTES
from streamguard.records.fetch import Answer
from streamguard.records.reader import DamagedLogError, PartitionRecords

BEHIND_BYTES = 32 << 20
"""Bytes that are fetched behind the damaged batch to see the next one; a topic's `max.message.bytes` is smaller."""

Fetch = Callable[[int, int], Awaitable[Answer]]
"""Fetches from the partition: offset and size."""


async def find(
    fetch: Fetch, records_of: Callable[[Answer], PartitionRecords], first: int, error: DamagedLogError
) -> tuple[PartitionRecords, int | None]:
    """Find out how to go on behind a damaged batch at `first`.

    A larger fetch shows the next batch. If there is none, the batch is the last one of a segment or of the log. Then
    the broker answers every offset in the batch with the batch itself, and the first offset behind it with another
    one, or it is the last stable offset. No batch that can be read is passed.

    Parameters
    ----------
    fetch
        Asks the broker.
    records_of
        Makes a reader, which begins at `first`, of an answer.
    first
        Position of the reader that found the damage.
    error
        What it has found.

    Returns
    -------
    source
        The reader of the larger fetch.
    end
        First offset after the batch; None if `source` shows it, or finds the batch undamaged.

    Raises
    ------
    DamagedLogError
        `error`, if the broker's answers do not show the end either.
    """
    try:
        answer = await fetch(first, len(error.frame) + BEHIND_BYTES)
        source = records_of(answer)
        last = source.stands_at_last()
        if last is None:
            return source, None
        if last and answer.stable > first:
            return source, await _bisected(fetch, answer.data[:HEADER_BYTES], first, answer.stable)
    except KafkaError:
        raise error from None
    raise error


async def _bisected(fetch: Fetch, head: bytes, inside: int, behind: int) -> int:
    """First offset that the broker does not answer with the batch that begins with `head`."""
    while behind - inside > 1:
        middle = (inside + behind) // 2
        if (await fetch(middle, 1)).data[: len(head)] == head:
            inside = middle
        else:
            behind = middle
    return behind
