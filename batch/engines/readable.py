"""Finds the partitions that Spark's Kafka connector must not read, because a batch in them cannot be read by a worker.

The connector has no limit for the unpacked size of a batch, fails at a wrong checksum, and accepts some batches that a
worker refuses, such as a second gzip stream. So every batch is checked first, by the tasks of a Spark job and with the
worker's own reader, which neither folds nor creates records. Partitions with such a batch are then read by that reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from streamguard.batch.source.offset_range import OffsetRange
from streamguard.batch.source.sources import KafkaSource

_FOUND = pa.schema([pa.field("partition", pa.int32())])


def unreadable_partitions(
    source: KafkaSource, planned: Mapping[int, OffsetRange], spark: SparkSession
) -> set[int]:
    """Partitions that have a batch in the planned offsets that a worker refuses as a whole."""
    ranges = list(planned.values())
    numbers = spark.range(0, len(ranges), 1, len(ranges))
    found = numbers.mapInArrow(partial(_check, source, ranges), from_arrow_schema(_FOUND))
    return {row.partition for row in found.collect()}


def _check(
    source: KafkaSource, ranges: Sequence[OffsetRange], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """A task: check the offset ranges with the received numbers."""
    for batch in batches:
        for number in batch["id"].to_pylist():
            if not source.is_readable(ranges[number]):
                yield pa.RecordBatch.from_pydict({"partition": [ranges[number].partition]}, schema=_FOUND)
