"""Reads past a batch that the client cannot read, as the worker does: only the damaged batch is left out."""

from __future__ import annotations

from typing import NamedTuple

from streamguard.errors import TemporaryError, UnavailableError
from streamguard.events.event import Withheld
from streamguard.kafka.connection import Brokers
from streamguard.records.partition_log import PartitionLog
from streamguard.serving.log.record import LogRecord

PATIENCE = 10.0
"""Seconds for which a broker may take to send what it should have."""


class Passed(NamedTuple):
    """What was read of a partition, and what was passed over.

    Attributes
    ----------
    records
        Records that can be read.
    position
        Offset of the next record.
    unreadable
        Number of offsets that were passed over.
    reason
        Why; empty if there are none.
    """

    records: list[LogRecord]
    position: int
    unreadable: int
    reason: str


def past(brokers: Brokers, topic: str, partition: int, start: int, end: int, limit: int) -> Passed:
    """Read from an offset to the first batch that cannot be read, and pass it over.

    Parameters
    ----------
    end
        End of the committed records.
    limit
        Records after which the reading ends, too.

    Raises
    ------
    UnavailableError
        If the brokers do not answer, or the end of the batch cannot be found.
    OffsetsGoneError
        If Kafka has deleted the record at the offset.
    """
    found: list[LogRecord] = []
    try:
        with PartitionLog(brokers, topic, partition, PATIENCE) as log:
            for record in log.records(start, end):
                value = record.value
                if isinstance(value, Withheld):
                    return Passed(found, record.offset + 1, value.count, value.detail)
                at = max(record.timestamp, 0)
                found.append(
                    LogRecord(partition, record.offset, at, record.key, value, tuple(record.headers))
                )
                if len(found) >= limit:
                    return Passed(found, record.offset + 1, 0, "")
    except UnavailableError:
        raise
    except TemporaryError as error:
        raise UnavailableError(f"{topic}, partition {partition}: {error}") from None
    return Passed(found, end, 0, "")
