"""Takes fetched records out of aiokafka's fetcher, a bounded amount at a time.

aiokafka would return everything that was fetched from every partition. Unpacked, that may be much more than fits in
memory. What is left stays packed in the fetcher until the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import ConsumerStoppedError

from streamguard.records import damaged_end
from streamguard.records.fetch import Answer, fetch
from streamguard.records.reader import DamagedLogError, Fetched, PartitionRecords
from streamguard.records.record import Record

FETCH_COST = 8 << 20
"""Approximate memory of the records of one call, in bytes; up to four fetches are in memory at the same time."""


async def take(fetcher: Any, partitions: set[Any], timeout: float) -> dict[Any, list[Record]]:
    """Return records of the partitions, and wait up to `timeout` seconds if there are none.

    The method `fetched_records` of aiokafka's fetcher does the same without a bound.
    """
    if fetcher._subscriptions.reassignment_in_progress:
        await fetcher._subscriptions.wait_for_assignment()
    if taken := await _taken(fetcher, partitions):
        return taken
    waiter = fetcher._create_fetch_waiter()
    done, _ = await asyncio.wait([waiter], timeout=timeout)
    if not done or fetcher._closed:
        waiter.cancel()
        return {}
    waiter.result()  # raises if the group rejects this worker
    return await _taken(fetcher, partitions)


async def _taken(fetcher: Any, partitions: set[Any]) -> dict[Any, list[Record]]:
    if fetcher._closed:
        raise ConsumerStoppedError
    taken: dict[Any, list[Record]] = {}
    left = FETCH_COST
    for tp in list(fetcher._records):
        if tp not in partitions:
            if not fetcher._subscriptions.is_assigned(tp):
                del fetcher._records[tp]
            continue
        result = fetcher._records[tp]
        if not isinstance(result, FetchResult):
            if taken:
                break  # the next call raises the error
            _drop(fetcher, tp)
            result.check_raise()
            continue
        try:
            records, cost = _records(result, tp, left)
        except DamagedLogError as error:
            if taken:
                _drop(fetcher, tp)  # it is fetched and found again when what was taken is delivered
                break
            return await _passed(fetcher, tp, result, error)
        left -= cost
        if not result.has_more():
            _drop(fetcher, tp)
        if records:
            taken[tp] = records
        if left <= 0:
            break
    return taken


def _records(result: Any, tp: Any, limit: int) -> tuple[list[Record], int]:
    """Records of one partition up to a cost, and their cost; as `FetchResult.getall`."""
    if not result.check_assignment(tp) or not result.has_more():
        return [], 0
    source, records = result._partition_records, []
    before = source.cost
    try:
        for record in source:
            records.append(record)
            if source.cost - before >= limit:
                result._update_position()
                return records, source.cost - before
    except DamagedLogError:
        result._update_position()
        if not records:
            raise
    result._update_position()
    result._partition_records = None
    return records, source.cost - before


async def _passed(fetcher: Any, tp: Any, result: Any, error: DamagedLogError) -> dict[Any, list[Record]]:
    """The record for a damaged batch whose end only the broker can show; nothing if the next call reads it."""
    first, level = result._partition_records.next_fetch_offset, fetcher._isolation_level

    def fetched(offset: int, size: int) -> Awaitable[Answer]:
        return fetch(fetcher._client, tp, offset, size, level)

    def records_of(answer: Answer) -> PartitionRecords:
        return PartitionRecords(tp, Fetched(answer.data), answer.aborted, first, None, None, True, level)

    source, end = await damaged_end.find(fetched, records_of, first, error)
    if fetcher._records.get(tp) is not result:
        return {}
    if not result.check_assignment(tp):
        _drop(fetcher, tp)
        return {}
    result._partition_records = source
    if end is None:
        return {}
    record = source.passed(error.frame, error.reason, end)
    result._update_position()
    _drop(fetcher, tp)
    return {tp: [record]}


def _drop(fetcher: Any, tp: Any) -> None:
    """Forget what was fetched, so that the fetcher continues with this partition."""
    del fetcher._records[tp]
    fetcher._notify(fetcher._wait_consume_future)
