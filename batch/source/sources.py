"""Where history is read from: a Kafka topic, its archive, or files laid out as a topic would be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from streamguard.batch.source.offset_range import OffsetRange, PlanError, Records
from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors, metadata

READ_ROWS, READ_BYTES = 4096, 32_000_000
"""In memory at a time, about; a single record may have a megabyte."""
_PORTION = 64
"""Records that are asked for at once, before anybody knows how large they are."""
_PATIENCE = 30.0
"""Seconds that a broker may be silent."""
_PAUSE = 0.2
"""Seconds that a client waits for more before it hands on what it has."""


class Source(Protocol):
    """What can be folded, partition by partition; small enough to be sent to tasks."""

    @property
    def kind(self) -> str:
        """`kafka`, `archive` or `files`."""

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on from an earlier one."""

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Of each partition the first offset there is, and the first that is not there yet."""

    def at_time(self, ms: int) -> dict[int, int]:
        """Of each partition the first offset that is not older; the end where all are."""

    def records(self, offset_range: OffsetRange) -> Records:
        """The records of a offset_range."""

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        """Whether another look confirms that there is no record in a gap."""


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """A topic, read committed."""

    brokers: Brokers
    topic: str
    kind: str = "kafka"

    def identity(self) -> dict[str, Any]:
        """Topic and Kafka's id for it, which a topic made again under the same name does not have."""
        from confluent_kafka import KafkaException, TopicCollection
        from confluent_kafka.admin import AdminClient

        heard = ClientErrors()
        admin = AdminClient(self.brokers.librdkafka(error_cb=heard))
        try:
            metadata(admin, heard, _PATIENCE)
            described = admin.describe_topics(TopicCollection([self.topic]), request_timeout=_PATIENCE)
            return {"topic": self.topic, "topic_id": str(described[self.topic].result().topic_id)}
        except KafkaException as error:
            admin.poll(0)
            raise self._unavailable(error, heard) from None

    def bounds(self) -> dict[int, tuple[int, int]]:
        """First and last stable offsets, as they are now."""
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
        """Of each partition the first offset whose record is not older; the end where all are."""
        from confluent_kafka import TopicPartition

        bounds = self.bounds()
        with self._consumer() as consumer:
            asked = [TopicPartition(self.topic, partition, ms) for partition in bounds]
            found = consumer.offsets_for_times(asked, timeout=_PATIENCE)
        return {tp.partition: tp.offset if tp.offset >= 0 else bounds[tp.partition][1] for tp in found}

    def _unavailable(self, error: Any, heard: ClientErrors) -> UnavailableError:
        from confluent_kafka import KafkaError

        where = f"Kafka at {self.brokers}"
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return UnavailableError(
                f"{where} has no topic {self.topic}: run `streamguard topics create`, or set kafka.events_topic"
            )
        reason, remedy = heard.reason(
            error.args[0], "start one with `streamguard broker`, or set kafka.bootstrap_servers"
        )
        return UnavailableError(f"{where} does not answer for the topic {self.topic} ({reason}): {remedy}")

    def records(self, offset_range: OffsetRange) -> Records:
        """Consume the offset_range; ends where it does, markers and aborted records left out."""
        from confluent_kafka import KafkaError, TopicPartition

        with self._consumer() as consumer:
            consumer.assign([TopicPartition(self.topic, offset_range.partition, offset_range.start)])
            at, heard = offset_range.start, time.monotonic()
            good: list[Any] = []
            size = 0
            while at < offset_range.end:
                # It waits for as many as it is asked for: no more than there are, and not for long.
                messages = consumer.consume(min(_PORTION, offset_range.end - at), timeout=_PAUSE)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() > heard + _PATIENCE:
                    raise PlanError(
                        f"partition {offset_range.partition}: Kafka at {self.brokers} sends nothing more at "
                        f"offset {at}, but the plan goes on to {offset_range.end - 1}"
                    )
                for message in messages:
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise PlanError(
                            f"partition {offset_range.partition}: cannot read on at offset {at}: {error.str()}"
                        )
                    if error is None and message.offset() < offset_range.end:
                        good.append(message)
                        size += len(message)
                    at = max(at, message.offset() + (error is None))
                if good and (at >= offset_range.end or len(good) >= READ_ROWS or size >= READ_BYTES):
                    offsets = np.array([message.offset() for message in good], np.int64)
                    yield offsets, [message.value() for message in good]
                    good, size = [], 0

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        """Whether another look confirms that no committed record is there."""
        return not any(True for _ in self.records(OffsetRange(partition, start, end)))

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        from confluent_kafka import Consumer, KafkaException

        heard = ClientErrors()
        consumer = Consumer(
            self.brokers.librdkafka()
            | {
                "error_cb": heard,
                "group.id": "streamguard-retrain",  # asked for by the client; nothing is ever committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": 4_194_304,
                "queued.max.messages.kbytes": READ_BYTES // 1000,
                "fetch.queue.backoff.ms": 10,  # a full queue is looked at again after a second otherwise
            }
        )
        try:
            yield consumer
        except KafkaException as error:
            consumer.poll(0)
            raise self._unavailable(error, heard) from None
        finally:
            consumer.close()


def rows_at_a_time(metadata: Any) -> int:
    """How many rows of a Parquet file are read at a time, so that even those of its widest part fit."""
    groups = (metadata.row_group(k) for k in range(metadata.num_row_groups))
    width = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return min(READ_BYTES // (width + 1) + 1, READ_ROWS)
