"""One fetch request for one partition, without a consumer."""

from __future__ import annotations

from typing import Any, NamedTuple

from aiokafka.errors import LeaderNotAvailableError, for_code
from aiokafka.protocol.fetch import FetchRequest


class Answer(NamedTuple):
    """A broker's answer for one partition.

    Attributes
    ----------
    stable
        Last stable offset.
    aborted
        Aborted transactions, as `PartitionRecords` takes them.
    data
        Bytes from the batch with the requested offset on; the first batch is complete whatever its size.
    """

    stable: int
    aborted: Any
    data: bytes


async def fetch(
    client: Any, tp: Any, offset: int, size: int, isolation_level: int, wait_ms: int = 0
) -> Answer:
    """Fetch about `size` bytes from the leader of the partition.

    Raises
    ------
    KafkaError
        If the broker answers with an error, or does not answer.
    """
    topics = [(tp.topic, [(tp.partition, offset, size)])]
    request = FetchRequest(wait_ms, 1, size, isolation_level, topics)
    leader = client.cluster.leader_for_partition(tp)
    if leader is None or leader < 0:
        raise LeaderNotAvailableError
    answer = await client.send(leader, request)
    ((_, ((_, code, _, stable, *rest),)),) = answer.topics
    if code:
        raise for_code(code)
    return Answer(int(stable), rest[-3 if answer.API_VERSION >= 11 else -2], bytes(rest[-1] or b""))
