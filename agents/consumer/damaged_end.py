"""Finds the end of a damaged batch by asking the broker, because the header of such a batch cannot be believed."""

from __future__ import annotations

from typing import Any

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.fetch import FetchRequest

from streamguard.agents.records.batch import HEADER_BYTES
from streamguard.agents.records.reader import DamagedLogError, Fetched, PartitionRecords

BEHIND_BYTES = 32 << 20
"""Bytes that are fetched behind the damaged batch to see the next one; a topic's `max.message.bytes` is smaller."""


async def find(
    fetcher: Any, tp: Any, first: int, error: DamagedLogError
) -> tuple[PartitionRecords, int | None]:
    """Find out how to go on behind a damaged batch at `first`.

    A larger fetch shows the next batch. If there is none, the batch is the last one of a segment or of the log. Then
    the broker answers every offset in the batch with the batch itself, and the first offset behind it with another
    one, or it is the last stable offset. No batch that can be read is passed.

    Returns
    -------
    source
        The larger fetch.
    end
        First offset after the batch; None if `source` shows it, or finds the batch undamaged.

    Raises
    ------
    DamagedLogError
        `error`, if the broker's answers do not show the end either.
    """
    try:
        stable, aborted, data = await _fetched(fetcher, tp, first, len(error.frame) + BEHIND_BYTES)
        level = fetcher._isolation_level
        source = PartitionRecords(tp, Fetched(data), aborted, first, None, None, True, level)
        last = source.stands_at_last()
        if last is None:
            return source, None
        if last and stable > first:
            return source, await _bisected(fetcher, tp, data[:HEADER_BYTES], first, stable)
    except KafkaError:
        raise error from None
    raise error


async def _bisected(fetcher: Any, tp: Any, head: bytes, inside: int, behind: int) -> int:
    """First offset that the broker does not answer with the batch that begins with `head`."""
    while behind - inside > 1:
        middle = (inside + behind) // 2
        _, _, data = await _fetched(fetcher, tp, middle, 1)
        if data[: len(head)] == head:
            inside = middle
        else:
            behind = middle
    return behind


async def _fetched(fetcher: Any, tp: Any, offset: int, size: int) -> tuple[int, Any, bytes]:
    """Last stable offset, aborted transactions, and the bytes from the batch with this offset on.

    The first batch is complete whatever its size.
    """
    topics = [(tp.topic, [(tp.partition, offset, size)])]
    request = FetchRequest(0, 1, size, fetcher._isolation_level, topics)
    answer = await fetcher._client.send(fetcher._client.cluster.leader_for_partition(tp), request)
    ((_, ((_, code, _, stable, *rest),)),) = answer.topics
    if code:
        raise for_code(code)
    return int(stable), rest[-3 if answer.API_VERSION >= 11 else -2], bytes(rest[-1] or b"")
