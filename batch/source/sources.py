"""The interface of a source of history, and its implementation for a Kafka topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from streamguard.batch.source.offset_range import OffsetRange, RecordChunk, Records
from streamguard.decisions.signing import UNBOUND, Binding, has_header, values_of
from streamguard.errors import StreamGuardError, UnavailableError
from streamguard.events.event import Withheld
from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.kafka.topics import TopicsMismatchError, names
from streamguard.models.key import key_of
from streamguard.records.partition_log import PartitionLog
from streamguard.records.record import Record
from streamguard.settings.schema import Settings

READ_ROWS, READ_BYTES = 4096, 32_000_000
"""Approximate limits of the rows in memory at a time; a single record may have a megabyte."""
_PATIENCE = 30.0
"""Seconds to wait for an answer or a record of a broker."""


class Source(Protocol):
    """Records that can be folded partition by partition; the object itself is small and is sent to tasks."""

    @property
    def kind(self) -> str:
        """`kafka`, `archive` or `files`."""

    def identity(self) -> dict[str, Any]:
        """Identity of the source; a run continues only a history with the same identity."""

    def hash_keys(self) -> dict[int, bytes]:
        """Keys of the hashes of the worker's state, by partition; a partition that no worker has folded is left out."""

    def bounds(self) -> dict[int, tuple[int, int]]:
        """First available offset of each partition, and the first offset after its last record."""

    def at_time(self, ms: int) -> dict[int, int]:
        """First offset of each partition that is not earlier than the time; the end if all records are earlier."""

    def records(self, offset_range: OffsetRange) -> Records:
        """Records of an offset range."""

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        """Read a gap again; True if it has no record."""


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """A Kafka topic, of which only committed records are read."""

    brokers: Brokers
    topic: str
    changelog: str = ""
    """The workers' changelog, which holds the keys of the hashes; empty: the topic has no workers."""
    kind: str = "kafka"
    key: bytes | None = field(default=None, repr=False)
    """Key of the signatures of decisions; None: decisions are refused, as by a worker without it."""

    @classmethod
    def of(cls, settings: Settings) -> KafkaSource:
        """The events topic of the settings."""
        topics = names(settings)
        return cls(Brokers.of(settings), topics["events"], topics["changelog"], key=key_of(settings.models))

    def identity(self) -> dict[str, Any]:
        """Name of the topic and Kafka's id of it; a topic created again under the same name has another id."""
        from confluent_kafka import KafkaException, TopicCollection
        from confluent_kafka.admin import AdminClient

        errors = ClientErrors()
        admin = AdminClient(self.brokers.librdkafka(error_cb=errors))
        try:
            metadata(self.brokers, admin, errors, _PATIENCE)
            described = admin.describe_topics(TopicCollection([self.topic]), request_timeout=_PATIENCE)
            return {"topic": self.topic, "topic_id": str(described[self.topic].result().topic_id)}
        except KafkaException as error:
            admin.poll(0)
            raise self._explained(error, errors) from None

    def binding(self) -> Binding:
        """What signatures of decisions are valid for; Kafka is asked for the topic's id."""
        if self.key is None:
            return UNBOUND
        return Binding(self.topic, str(self.identity()["topic_id"]), self.key)

    def hash_keys(self) -> dict[int, bytes]:
        """Read the keys from the beginnings of the changelog's partitions, where workers write them first."""
        from streamguard.batch.source.hash_keys import read_hash_keys

        if not self.changelog:
            return {}
        with self._consumer() as consumer:
            return read_hash_keys(consumer, self.changelog)

    def bounds(self) -> dict[int, tuple[int, int]]:
        """First offset and last stable offset of each partition at this moment."""
        from confluent_kafka import TopicPartition

        with self._consumer() as consumer:
            partitions = consumer.list_topics(self.topic, timeout=_PATIENCE).topics[self.topic].partitions
            return {
                partition: consumer.get_watermark_offsets(
                    TopicPartition(self.topic, partition), timeout=_PATIENCE
                )
                for partition in sorted(partitions)
            }

    def at_time(self, ms: int) -> dict[int, int]:
        """First offset of each partition whose record time is not earlier; the end if all records are earlier."""
        from confluent_kafka import TopicPartition

        bounds = self.bounds()
        with self._consumer() as consumer:
            times = [TopicPartition(self.topic, partition, ms) for partition in bounds]
            found = consumer.offsets_for_times(times, timeout=_PATIENCE)
        return {tp.partition: tp.offset if tp.offset >= 0 else bounds[tp.partition][1] for tp in found}

    def _explained(self, error: Any, errors: ClientErrors) -> StreamGuardError:
        from confluent_kafka import KafkaError

        where = f"Kafka at {self.brokers}"
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return TopicsMismatchError(
                f"{where} has no topic {self.topic}: run `streamguard topics create`, or set kafka.events_topic"
            )
        reason, remedy = errors.reason(
            error.args[0], "start one with `streamguard broker`, or set kafka.bootstrap_servers"
        )
        return UnavailableError(
            f"{where} does not answer requests for the topic {self.topic} ({reason}): {remedy}"
        )

    def records(self, offset_range: OffsetRange) -> Records:
        """Read the offset range as a worker does: without transaction markers and aborted records."""
        binding = None
        with self._log(offset_range.partition) as log:
            records = log.records(offset_range.start, offset_range.end)
            for part in _portions(records):
                if binding is None and any(has_header(record.headers) for record in part):
                    binding = self.binding()
                yield RecordChunk(
                    np.array([record.offset for record in part], np.int64),
                    values_of(part, binding) if binding is not None else [record.value for record in part],
                    np.array([record.append_ms for record in part], np.int64),
                )

    def is_readable(self, offset_range: OffsetRange) -> bool:
        """Whether a worker can read every batch of the offset range; each is checked, and no record is unpacked."""
        with self._log(offset_range.partition) as log:
            return next(log.unreadable(offset_range.start, offset_range.end), None) is None

    def _log(self, partition: int) -> PartitionLog:
        return PartitionLog(self.brokers, self.topic, partition, _PATIENCE)

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        """Read the gap again; True if it has no committed record."""
        return not any(True for _ in self.records(OffsetRange(partition, start, end)))

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        from confluent_kafka import Consumer, KafkaException

        errors = ClientErrors()
        consumer = Consumer(
            self.brokers.librdkafka()
            | {
                "error_cb": errors,
                "group.id": "streamguard-retrain",  # required by the client; no offset is ever committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": 4_194_304,
                "queued.max.messages.kbytes": READ_BYTES // 1000,
                "fetch.queue.backoff.ms": 10,  # by default, a full queue is checked again only after a second
            }
        )
        try:
            yield consumer
        except KafkaException as error:
            consumer.poll(0)
            raise self._explained(error, errors) from None
        finally:
            consumer.close()


def _portions(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in lists that exceed neither `READ_ROWS` nor, by more than one record, `READ_BYTES`."""
    part: list[Record] = []
    size = 0
    for record in records:
        part.append(record)
        value = record.value
        size += len(value.head) if isinstance(value, Withheld) else len(value or b"")
        if len(part) == READ_ROWS or size > READ_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def rows_at_a_time(metadata: Any) -> int:
    """Number of rows of a Parquet file to read at a time, so that rows of its widest row group fit `READ_BYTES`."""
    groups = (metadata.row_group(k) for k in range(metadata.num_row_groups))
    width = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return min(READ_BYTES // (width + 1) + 1, READ_ROWS)
