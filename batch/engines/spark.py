"""The Spark engine: one task folds the offset range of one partition, in offset order, into its file.

Spark's Kafka connector reads the records of a topic. Tasks themselves read partitions with a batch that a worker
refuses, as the local engine reads them (`streamguard.batch.engines.readable`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamguard.batch.engines.attempts import Work, attempt, keep, remove_others
from streamguard.batch.engines.local import OnFolded, write_file
from streamguard.batch.engines.session import SparkError, root_cause
from streamguard.batch.source.offset_range import OffsetRange, PlanError, RecordChunk, Records
from streamguard.batch.source.partition_files import FileSource
from streamguard.batch.source.sources import KafkaSource, Source
from streamguard.decisions.signing import HEADER, Binding
from streamguard.errors import TemporaryError, UnavailableError
from streamguard.events.ceiling import LOG_APPEND_TIME, UNKNOWN
from streamguard.events.event import Value
from streamguard.records.partition_log import OffsetsGoneError
from streamguard.settings.schema import Settings
from streamguard.state.codec import StateError
from streamguard.text import counted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DONE = pa.schema(
    [pa.field("partition", pa.int32()), pa.field("first", pa.int64()), pa.field("attempt", pa.string())]
)
"""Result of a task: the partition that it folded, the first offset that it received, and the name of its attempt."""

_FIRST = f"get(filter(headers, one -> one.key = '{HEADER}'), 0)"
_DECISION = f"if({_FIRST} is null, null, coalesce({_FIRST}.value, cast('' as binary))) as decision"
"""The first header that makes a record a decision; null if it has none."""

Do = Callable[[OffsetRange, Records], str]

_ERRORS = (PlanError, StateError, UnavailableError, OffsetsGoneError, TemporaryError)
"""Errors of tasks that the driver raises again."""
_RAISED = re.compile(
    rf"^(?:{'|'.join(re.escape(f'{kind.__module__}.{kind.__name__}') for kind in _ERRORS)}): .+$",
    re.MULTILINE,
)


def fold(
    source: Source,
    ranges: Sequence[OffsetRange],
    settings: Settings,
    directory: Path,
    on_folded: OnFolded,
    spark: SparkSession,
    work: Work = write_file,
) -> None:
    """Fold every offset range into its file, or do other work with it, like `streamguard.batch.engines.local.fold`.

    Tasks read and write files themselves. On a cluster, every executor needs access to the directory, to the files of
    an earlier run and to input files.

    Raises
    ------
    PlanError
        If a task did not receive the records of one partition in the planned order, or a partition has two tasks.
    StateError
        If the state of an earlier run has another layout.
    UnavailableError, OffsetsGoneError, TemporaryError
        If a task cannot read the topic.
    SparkError
        If the job failed for another reason.
    """
    directory = directory.resolve()  # executors have other working directories
    planned = {s.partition: _resolved(s) for s in ranges if s.end > s.start}
    do = partial(_do, work, settings, directory)
    spark.sparkContext.setJobDescription(f"streamguard: {counted(len(planned), 'partition')}")
    answers = _run(source, planned, do, spark) if planned else []
    _check_once(planned, answers)
    attempts = {partition: name for partition, _, name in answers}
    for offset_range in ranges:
        # Partitions without a task have no planned offsets, or only markers and aborted records.
        name = attempts.get(offset_range.partition) or do(_resolved(offset_range), ())
        keep(directory, name)
        on_folded(offset_range)
    remove_others(directory)


def _do(work: Work, settings: Settings, directory: Path, offset_range: OffsetRange, records: Records) -> str:
    return attempt(work, offset_range, records, settings, directory)


def _resolved(offset_range: OffsetRange) -> OffsetRange:
    earlier = None if offset_range.earlier is None else str(Path(offset_range.earlier).resolve())
    return replace(offset_range, earlier=earlier)


def reader_options(source: KafkaSource, planned: Mapping[int, OffsetRange]) -> dict[str, str]:
    """Options for the planned offsets; without `minPartitions`, one task reads one partition in order."""
    connection = {f"kafka.{name}": value for name, value in source.brokers.java().items()}
    return connection | {
        "assign": json.dumps({source.topic: list(planned)}),
        "startingOffsets": json.dumps({source.topic: {str(p): s.start for p, s in planned.items()}}),
        "endingOffsets": json.dumps({source.topic: {str(p): s.end for p, s in planned.items()}}),
        "includeHeaders": "true",
        "kafka.isolation.level": "read_committed",
        "failOnDataLoss": "true",
    }


def _run(
    source: Source, planned: Mapping[int, OffsetRange], do: Do, spark: SparkSession
) -> list[tuple[int, int, str]]:
    """Run the tasks; an exception of a task is raised here, without Spark's stack traces."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        tasks = _tasks(source, planned, do, spark)
        return [(row.partition, row.first, row.attempt) for task in tasks for row in task.collect()]
    except (Py4JError, PySparkException) as error:
        raised = _RAISED.search(str(error))
        if raised is None and "Failed to find data source: kafka" in str(error):
            raise SparkError(
                "Spark has no Kafka connector: run spark-submit with "
                f"`--packages org.apache.spark:spark-sql-kafka-0-10_2.13:{spark.version}`"
            ) from None
        if raised is None:
            raise SparkError(f"the Spark job failed: {root_cause(error)}") from error
        name, _, message = raised.group().partition(": ")
        raise next(kind for kind in _ERRORS if name.endswith(f".{kind.__name__}"))(message) from None


def _tasks(
    source: Source, planned: Mapping[int, OffsetRange], do: Do, spark: SparkSession
) -> Iterator[DataFrame]:
    """The tasks, each of which folds a partition: those with the connector, and those that read themselves."""
    from pyspark.sql.pandas.types import from_arrow_schema

    answer = from_arrow_schema(DONE)
    themselves = planned
    if isinstance(source, KafkaSource):
        from streamguard.batch.engines.readable import unreadable_partitions

        unreadable = unreadable_partitions(source, planned, spark)
        themselves = {p: s for p, s in planned.items() if p in unreadable}
        connected = {p: s for p, s in planned.items() if p not in unreadable}
        if connected:
            topic = spark.read.format("kafka").options(**reader_options(source, connected)).load()
            columns = topic.selectExpr(
                "partition", "offset", "value", "timestamp", "timestampType", _DECISION
            )
            yield columns.mapInArrow(partial(_fold_records, connected, do, source.binding()), answer)
    if isinstance(source, FileSource):
        source = replace(source, directory=str(Path(source.directory).resolve()))
    ranges = list(themselves.values())
    if ranges:
        numbers = spark.range(0, len(ranges), 1, len(ranges))
        yield numbers.mapInArrow(partial(_read_and_fold, source, ranges, do), answer)


def _fold_records(
    planned: Mapping[int, OffsetRange], do: Do, binding: Binding, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """A task: fold the received records, which must belong to one partition."""
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return
    partition, offset = first["partition"][0].as_py(), first["offset"][0].as_py()
    if partition not in planned:
        raise PlanError(f"partition {partition}: offset {offset} was read, but the plan has no offsets of it")
    yield _answer(
        partition, offset, do(planned[partition], _of_one(partition, binding, chain([first], filled)))
    )


def _of_one(partition: int, binding: Binding, batches: Iterable[pa.RecordBatch]) -> Records:
    for batch in batches:
        partitions, offsets = batch["partition"].to_numpy(), batch["offset"].to_numpy()
        others = (partitions != partition).nonzero()[0]
        if len(others):
            k = others[0]
            raise PlanError(
                f"partition {partition}: its task also received offset {offsets[k]} of partition {partitions[k]}, "
                "but each partition has its own task"
            )
        values: list[Value] = batch["value"].to_pylist()
        headers = batch["decision"]
        for k in np.flatnonzero(headers.is_valid().to_numpy(zero_copy_only=False)).tolist():
            values[k] = binding.read(headers[k].as_py(), partition, int(offsets[k]), values[k])
        yield RecordChunk(offsets, values, _append_ms(batch))


def _append_ms(batch: pa.RecordBatch) -> NDArray[np.int64]:
    times = batch["timestamp"].cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy()
    return np.where(batch["timestampType"].to_numpy() == LOG_APPEND_TIME, times, UNKNOWN)


def _read_and_fold(
    source: Source, ranges: Sequence[OffsetRange], do: Do, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """A task: read and fold the offset ranges with the received numbers."""
    for batch in batches:
        for number in batch["id"].to_pylist():
            offset_range = ranges[number]
            name = do(offset_range, source.records(offset_range))
            yield _answer(offset_range.partition, offset_range.start, name)


def _answer(partition: int, first: int, name: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"partition": [partition], "first": [first], "attempt": [name]}, schema=DONE
    )


def _check_once(planned: Mapping[int, OffsetRange], answers: Sequence[tuple[int, int, str]]) -> None:
    firsts: dict[int, list[int]] = {}
    for partition, first, _ in answers:
        firsts.setdefault(partition, []).append(first)
    for partition, offsets in sorted(firsts.items()):
        if len(offsets) > 1:
            offset_range = planned[partition]
            raise PlanError(
                f"partition {partition}: {len(offsets)} tasks read it, from offset "
                f"{' and '.join(map(str, sorted(offsets)))} on, but one task must read all offsets from "
                f"{offset_range.start} to {offset_range.end - 1}"
            )
