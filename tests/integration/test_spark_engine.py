"""The Spark engine writes the same files as the local engine, and stops if the records differ from the plan."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamguard.batch.engines import local
from streamguard.batch.engines import spark as engine
from streamguard.batch.engines.session import SparkError
from streamguard.batch.folding.fold_file import PEAKS
from streamguard.batch.folding.resume import ResumePoint, newest, write_about
from streamguard.batch.source.offset_plan import plan
from streamguard.batch.source.offset_range import Counts, OffsetRange, PlanError
from streamguard.batch.source.partition_files import FileSource
from streamguard.batch.source.sources import KafkaSource
from streamguard.decisions.signing import UNBOUND
from streamguard.errors import ExitCode
from streamguard.records.partition_log import OffsetsGoneError
from streamguard.settings.schema import Settings
from tests.harness import Site, events
from tests.streams import event

pytestmark = pytest.mark.integration

PARTITIONS = 4
EMPTY = 3


class Topic:
    """A topic with bad records, tombstones, transactions and an empty partition, and a method that folds it."""

    def __init__(self, kafka: str, directory: Path) -> None:
        self.site = Site(kafka, directory / "site", partitions=PARTITIONS)
        self.source = KafkaSource.of(self.site.settings)
        self._directory = directory
        self._folded = 0
        made = [(partition % 3, value) for partition, value in events(6000, PARTITIONS, users=60)]
        self.site.produce(made[:2000])
        self.site.produce([(0, None), (1, b"\xff\xfe"), (2, b"")])
        self.site.produce([(1, event(4_000_000_000_000, "mallory"))])
        parts = [made[a : a + 100] for a in range(2000, 4000, 100)]
        self.site.produce_in_transactions([(k % 3 != 1, part) for k, part in enumerate(parts)])
        self.site.produce(made[4000:])
        self.site.produce_in_transactions(
            [(True, made[:30]), (False, made[:30])]
        )  # the partitions end with aborted records

    def fold(self, ranges: list[OffsetRange], spark: Any = None, **settings: Any) -> Path:
        """Fold into a new directory, with the local engine or with the given Spark session; return the directory."""
        self._folded += 1
        directory = self._directory / f"folded-{self._folded}"
        directory.mkdir()
        chosen, finished = Settings(**settings), []
        if spark is None:
            local.fold(self.source, ranges, chosen, directory, finished.append)
        else:
            engine.fold(self.source, ranges, chosen, directory, finished.append, spark)
        assert sorted(s.partition for s in finished) == [s.partition for s in ranges]
        return directory


@pytest.fixture(scope="module")
def topic(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Topic:
    return Topic(kafka, tmp_path_factory.mktemp("topic"))


@pytest.fixture
def batch_rows(spark: Any) -> Iterator[Any]:
    """Function that sets the batch size of the shared session for one test."""
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(name)
    yield lambda rows: spark.conf.set(name, str(rows))
    spark.conf.set(name, before)


def tables(directory: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted(directory.glob("partition-*.parquet"))}


def counts(directory: Path, partition: int) -> Counts:
    table = tables(directory)[f"partition-{partition:04d}.parquet"]
    return msgspec.json.decode(table["value"][0].as_py(), type=Counts)


def rows_of_kinds(directory: Path, *kinds: str) -> dict[str, pa.Table]:
    return {
        name: table.filter(pa.compute.is_in(table["kind"], pa.array(kinds)))
        for name, table in tables(directory).items()
    }


@pytest.mark.parametrize("rows", [7, 1000, 4096])
def test_spark_and_local_engine_write_the_same_files(
    topic: Topic, spark: Any, batch_rows: Any, rows: int
) -> None:
    ranges = plan(topic.source, None)
    batch_rows(rows)
    ours, theirs = tables(topic.fold(ranges)), tables(topic.fold(ranges, spark))
    assert list(theirs) == [f"partition-{p:04d}.parquet" for p in range(PARTITIONS)]
    for name, table in ours.items():
        assert theirs[name].equals(table), name


def test_records_gaps_and_refusals_are_counted(topic: Topic, spark: Any) -> None:
    ranges = plan(topic.source, None)
    folded = topic.fold(ranges, spark)
    for offset_range in ranges:
        count = counts(folded, offset_range.partition)
        assert (count.start, count.end) == (offset_range.start, offset_range.end)
        assert count.records + count.missing == offset_range.end - offset_range.start
        assert count.events + count.refused == count.records
        assert (count.records > 1000) == (count.missing > 0) == (offset_range.partition != EMPTY)
    assert all(counts(folded, partition).refused for partition in range(3))
    assert [counts(folded, partition).clamped for partition in range(3)] == [0, 1, 0]


def test_three_consecutive_runs_equal_one_run(topic: Topic, spark: Any) -> None:
    whole = plan(topic.source, None)
    before: Path | None = None
    for share in (0.21, 0.5, 1.0):
        part = []
        for offset_range in whole:
            end = int(offset_range.end * share)
            start, file = 0, None
            if before is not None:
                start = counts(before, offset_range.partition).end
                file = str(before / f"partition-{offset_range.partition:04d}.parquet")
            part.append(OffsetRange(offset_range.partition, start, end, file))
        before = topic.fold(part, spark)
    assert before is not None
    once = topic.fold(whole)
    for kinds in (("state",), ("sample",)):
        assert rows_of_kinds(before, *kinds) == rows_of_kinds(once, *kinds)
    users = [
        {
            name: table.drop(list(PEAKS)) for name, table in rows_of_kinds(d, "user").items()
        }  # these belong to one run only
        for d in (before, once)
    ]
    assert users[0] == users[1]


def test_partition_split_over_several_tasks_stops_the_run(
    topic: Topic, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine.reader_options
    monkeypatch.setattr(engine, "reader_options", lambda *given: {**original(*given), "minPartitions": "8"})
    with pytest.raises(
        PlanError, match=r"^partition \d: \d tasks read it, from offset 0( and \d+)+ on, but"
    ) as raised:
        topic.fold(plan(topic.source, None), spark)
    assert "\n" not in str(raised.value)


def test_offsets_before_the_plan_stop_the_run(
    topic: Topic, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan(topic.source, None)
    original = engine.reader_options
    monkeypatch.setattr(
        engine,
        "reader_options",
        lambda source, planned: original(source, {s.partition: s for s in whole if s.end > s.start}),
    )
    with pytest.raises(
        PlanError, match=r"^partition [012]: offset 0 came after 9, but the plan is"
    ) as raised:
        topic.fold([replace(s, start=10) for s in whole if s.partition != EMPTY], spark)
    assert "\n" not in str(raised.value)


def test_task_with_several_partitions_stops_the_run(topic: Topic, spark: Any) -> None:
    records = (
        spark.read.format("kafka")
        .options(**engine.reader_options(topic.source, {s.partition: s for s in plan(topic.source, None)}))
        .load()
        .select("partition", "offset", "value")
        .coalesce(1)
    )
    batches = records.toArrow().to_batches()
    with pytest.raises(PlanError, match=r"^partition \d: its task also received offset 0 of partition \d"):
        for _ in engine._of_one(batches[0]["partition"][0].as_py(), UNBOUND, batches):
            pass


def test_records_that_expired_after_the_plan_stop_the_run(kafka: str, tmp_path: Path, spark: Any) -> None:
    topic = Topic(kafka, tmp_path)
    ranges = plan(topic.source, None)
    topic.site.expire("events", 1)
    with pytest.raises(
        OffsetsGoneError, match=f"partition 1 of {topic.source.topic} has no offset 0"
    ) as raised:
        topic.fold(ranges, spark)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == ExitCode.DATA_ERROR


def test_failure_of_the_connector_is_an_error_in_one_line(
    topic: Topic, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine.reader_options
    monkeypatch.setattr(
        engine, "reader_options", lambda *given: {**original(*given), "kafka.fetch.max.bytes": "x"}
    )
    with pytest.raises(SparkError, match=r"^the Spark job failed: .*fetch\.max\.bytes") as raised:
        topic.fold(plan(topic.source, None), spark)
    assert "\n" not in str(raised.value)


def test_spark_and_local_engine_fold_files_to_the_same_result(
    topic: Topic, tmp_path: Path, spark: Any
) -> None:
    files = tmp_path / "input"
    files.mkdir()
    made = [value for _, value in events(900, 1, users=30)]
    ends = (500, 0, 400)
    for partition, values in enumerate((made[:500], [], made[500:])):
        rows = {"offset": pa.array(range(len(values)), pa.int64()), "value": pa.array(values, pa.binary())}
        pq.write_table(pa.table(rows), files / f"partition-{partition:04d}.parquet", row_group_size=128)
    source = FileSource(str(files), ends)
    folded = []
    for fold in (local.fold, partial(engine.fold, spark=spark)):
        folded.append(tmp_path / f"folded-{len(folded)}")
        folded[-1].mkdir()
        fold(source, plan(source, None), Settings(), folded[-1], lambda _: None)
    assert tables(folded[0]) == tables(folded[1])
    assert [counts(folded[1], p).records for p in range(3)] == [500, 0, 400]


def test_second_run_continues_the_first(kafka: str, tmp_path: Path, spark: Any) -> None:
    topic = Topic(kafka, tmp_path)
    first = plan(topic.source, None)
    folded = topic.fold(first, spark)
    write_about(folded, topic.source, Settings(), first, None)
    topic.site.produce([(EMPTY, value) for _, value in events(50, 1, start=6000)])
    before = newest([folded], topic.source, Settings())
    assert isinstance(before, ResumePoint)
    second = plan(topic.source, before)
    assert [(s.start, s.end) for s in second] == [(s.end, s.end + 50 * (s.partition == EMPTY)) for s in first]
    again = topic.fold(second, spark)
    assert [counts(again, p).records for p in range(PARTITIONS)] == [0, 0, 0, 50]
    assert (
        rows_of_kinds(again, "sample")["partition-0000.parquet"]
        == rows_of_kinds(folded, "sample")["partition-0000.parquet"]
    )


def test_spark_session_keeps_the_ctrl_c_handler_of_python(spark: Any) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_spark_starts_on_a_machine_whose_own_name_does_not_resolve(tmp_path: Path) -> None:
    # Java then finds names in this file only, so the name of this machine is unknown, as on many cloud machines.
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from streamguard.batch.engines.session import opened\n"
        "from streamguard.settings.schema import Spark\n"
        "flags = [f'-Djdk.net.hosts.file={sys.argv[1]}/hosts']\n"
        "with opened(Spark(master='local[1]'), Path(sys.argv[1]), java_flags=flags) as spark:\n"
        "    print(spark.range(3).count())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr
