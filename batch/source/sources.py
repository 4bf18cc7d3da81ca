"""Where history is read from: a Kafka topic, its archive, or files laid out as a topic would be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from batch.folding.file import file_of
from batch.folding.stretch import PlanError, Records, Stretch
from batch.source.manifest import File, Manifest
from streamguard.brokers import Brokers, Heard, metadata

READ_ROWS, READ_BYTES = 4096, 32_000_000
"""In memory at a time, about; a single record may have a megabyte."""
_PORTION = 64
"""Records that are asked for at once, before anybody knows how large they are."""
_PATIENCE = 30.0
"""Seconds that a broker may be silent."""
_PAUSE = 0.2
"""Seconds that a client waits for more before it hands on what it has."""


class UnavailableError(RuntimeError):
    """Kafka does not answer as it should; the message says where, and what to do."""


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

    def records(self, stretch: Stretch) -> Records:
        """The records of a stretch."""

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

        heard = Heard()
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

    def _unavailable(self, error: Any, heard: Heard) -> UnavailableError:
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

    def records(self, stretch: Stretch) -> Records:
        """Consume the stretch; ends where it does, markers and aborted records left out."""
        from confluent_kafka import KafkaError, TopicPartition

        with self._consumer() as consumer:
            consumer.assign([TopicPartition(self.topic, stretch.partition, stretch.start)])
            at, heard = stretch.start, time.monotonic()
            good: list[Any] = []
            size = 0
            while at < stretch.end:
                # It waits for as many as it is asked for: no more than there are, and not for long.
                messages = consumer.consume(min(_PORTION, stretch.end - at), timeout=_PAUSE)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() > heard + _PATIENCE:
                    raise PlanError(
                        f"partition {stretch.partition}: Kafka at {self.brokers} sends nothing more at "
                        f"offset {at}, but the plan goes on to {stretch.end - 1}"
                    )
                for message in messages:
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise PlanError(
                            f"partition {stretch.partition}: cannot read on at offset {at}: {error.str()}"
                        )
                    if error is None and message.offset() < stretch.end:
                        good.append(message)
                        size += len(message)
                    at = max(at, message.offset() + (error is None))
                if good and (at >= stretch.end or len(good) >= READ_ROWS or size >= READ_BYTES):
                    offsets = np.array([message.offset() for message in good], np.int64)
                    yield offsets, [message.value() for message in good]
                    good, size = [], 0

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        """Whether another look confirms that no committed record is there."""
        return not any(True for _ in self.records(Stretch(partition, start, end)))

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        from confluent_kafka import Consumer, KafkaException

        heard = Heard()
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


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """A topic's archive, as `batch.archive` writes it: the topic's partitions, offsets and events."""

    directory: str
    manifest: Manifest
    kind: str = "archive"

    def identity(self) -> dict[str, Any]:
        """The topic's: a run goes on from the topic to its archive, and back."""
        return self.manifest.source

    def bounds(self) -> dict[int, tuple[int, int]]:
        """From the first offset ever archived to the first that is not archived yet."""
        if not self.manifest.starts:
            raise PlanError(f"{self.directory}: the archive holds nothing yet: run `streamguard archive`")
        return {p: (start, self.manifest.ends[p]) for p, start in sorted(self.manifest.starts.items())}

    def at_time(self, ms: int) -> dict[int, int]:
        """Of each partition the first offset whose event is not older, by its own time; the end where all are."""
        found = {}
        for partition, (_, end) in self.bounds().items():
            later = (f for f in self.manifest.files if f.partition == partition and (f.last_ms or 0) >= ms)
            file = next(later, None)
            found[partition] = end if file is None else self._first_at(file, ms)
        return found

    def records(self, stretch: Stretch) -> Records:
        """Read the partition's files, row group by row group."""
        from batch.source.decoded import to_values

        for file in self.manifest.of(stretch.partition, stretch.start, stretch.end):
            for batch in self._batches(file, None):
                offsets = batch["offset"].to_numpy()
                a, b = np.searchsorted(offsets, [stretch.start, stretch.end]).tolist()
                if a < b:
                    yield offsets[a:b], to_values(batch.slice(a, b - a))

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        """Whether another look confirms that the archive has no record there."""
        for file in self.manifest.of(partition, start, end):
            for batch in self._batches(file, ["offset"]):
                a, b = np.searchsorted(batch["offset"].to_numpy(), [start, end])
                if a < b:
                    return False
        return True

    def _first_at(self, file: File, ms: int) -> int:
        for batch in self._batches(file, ["offset", "timestamp"]):
            stamps = batch["timestamp"].cast("int64").fill_null(0).to_numpy()
            later = np.flatnonzero(stamps >= ms)
            if len(later):
                return int(batch["offset"][later[0]].as_py())
        return file.end

    def _batches(self, file: File, columns: list[str] | None) -> Iterator[Any]:
        """The file's rows, if it is the one that the manifest names."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(self.directory) / file.path
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as table:
                size, rows = path.stat().st_size, table.metadata.num_rows
                if (size, rows) != (file.bytes, file.rows):
                    raise PlanError(
                        f"{path} has {rows:,} rows in {size:,} bytes, but the manifest says {file.rows:,} in "
                        f"{file.bytes:,}: restore the file"
                    )
                yield from table.iter_batches(_rows_at_a_time(table.metadata), columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise PlanError(
                f"{path} (offsets {file.start} to {file.end - 1} of partition {file.partition}) cannot be read "
                f"({str(error).splitlines()[0]}): restore the file"
            ) from None


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files laid out by `batch.source.spool`, one a partition, with offset and value."""

    directory: str
    ends: tuple[int, ...]
    kind: str = "files"

    def identity(self) -> dict[str, Any]:
        """Files are folded anew each time."""
        return {"directory": self.directory}

    def bounds(self) -> dict[int, tuple[int, int]]:
        """From 0 to the number of rows."""
        return {partition: (0, end) for partition, end in enumerate(self.ends)}

    def at_time(self, ms: int) -> dict[int, int]:  # noqa: ARG002
        """Rows are chosen by time when the files are laid out."""
        raise PlanError("files laid out as a topic have no times")

    def records(self, stretch: Stretch) -> Records:
        """Read the partition's file, row group by row group."""
        return _rows(file_of(self.directory, stretch.partition), stretch)

    def nothing_between(self, partition: int, start: int, end: int) -> bool:  # noqa: ARG002
        """Rows have no gaps."""
        return start == end


def _rows_at_a_time(metadata: Any) -> int:
    """How many rows of a Parquet file are read at a time, so that even those of its widest part fit."""
    groups = (metadata.row_group(k) for k in range(metadata.num_row_groups))
    width = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return min(READ_BYTES // (width + 1) + 1, READ_ROWS)


def _rows(path: Path, stretch: Stretch) -> Iterator[tuple[Any, list[bytes | None]]]:
    import pyarrow.parquet as pq

    if stretch.start == stretch.end:
        return
    table = pq.ParquetFile(path)
    for batch in table.iter_batches(_rows_at_a_time(table.metadata), columns=["offset", "value"]):
        offsets = batch["offset"].to_numpy()
        inside = (offsets >= stretch.start) & (offsets < stretch.end)
        if inside.all():
            yield offsets, batch["value"].to_pylist()
        elif inside.any():
            chosen = np.flatnonzero(inside)
            yield offsets[chosen], batch["value"].take(chosen).to_pylist()
