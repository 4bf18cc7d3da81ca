"""Planning: offsets of each partition, and an error if the requested records do not exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamguard.batch.folding.resume import ResumePoint, newest, of_topic, write_about
from streamguard.batch.source.offset_plan import check_read, plan
from streamguard.batch.source.offset_range import Counts, OffsetRange, PlanError, Records
from streamguard.events.hashing import FILES_KEY
from streamguard.settings.schema import Detection, Sampling, Settings


@dataclass
class Topic:
    """A source that has only bounds."""

    ranges: dict[int, tuple[int, int]]
    id: str = "a"
    kind: str = "kafka"
    times: dict[int, dict[int, int]] = field(default_factory=dict)
    keys: dict[int, bytes] = field(default_factory=dict)
    records_between: set[tuple[int, int, int]] = field(default_factory=set)

    def identity(self) -> dict[str, Any]:
        return {"topic": "t", "topic_id": self.id}

    def hash_keys(self) -> dict[int, bytes]:
        return self.keys

    def bounds(self) -> dict[int, tuple[int, int]]:
        return self.ranges

    def at_time(self, ms: int) -> dict[int, int]:
        return self.times[ms]

    def records(self, offset_range: OffsetRange) -> Records:
        return ()

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        return (partition, start, end) not in self.records_between


def after(topic: Topic, directory: Path, **limits: Any) -> ResumePoint:
    """Resume point after an earlier run over the offsets of a topic."""
    write_about(directory, topic, Settings(), plan(topic, None, **limits), None)
    found = newest([directory], topic, Settings())
    assert isinstance(found, ResumePoint), found
    return found


def spans(ranges: list[OffsetRange]) -> dict[int, tuple[int, int]]:
    return {s.partition: (s.start, s.end) for s in ranges}


def test_all_offsets_are_planned_by_default() -> None:
    assert spans(plan(Topic({0: (5, 9), 1: (0, 0)}), None)) == {0: (5, 9), 1: (0, 0)}


def test_time_limits_are_converted_by_the_source() -> None:
    topic = Topic({0: (5, 9), 1: (0, 7)}, times={1000: {0: 7, 1: 0}, 2000: {0: 9, 1: 4}})

    assert spans(plan(topic, None, since=1000, until=2000)) == {0: (7, 9), 1: (0, 4)}


def test_offset_limits_cut_both_ends() -> None:
    topic = Topic({0: (5, 9), 1: (0, 7)})

    assert spans(plan(topic, None, since={0: 6}, until={1: 3})) == {0: (6, 9), 1: (0, 3)}


def test_limits_that_exclude_each_other_leave_an_empty_range() -> None:
    topic = Topic({0: (5, 90), 1: (0, 7)})

    assert spans(plan(topic, None, since={0: 30}, until={0: 10})) == {0: (30, 30), 1: (0, 7)}


def test_small_partitions_are_read_whole_and_the_rest_share_the_limit() -> None:
    topic = Topic({0: (0, 10), 1: (0, 100), 2: (0, 300)})

    assert spans(plan(topic, None, max_records=200)) == {0: (0, 10), 1: (0, 95), 2: (0, 95)}
    assert spans(plan(topic, None, max_records=10**9)) == topic.ranges


def test_run_resumes_where_the_earlier_run_ended(tmp_path: Path) -> None:
    before = after(Topic({0: (0, 100)}), tmp_path, max_records=40)
    (offset_range, other) = plan(Topic({0: (20, 130), 1: (0, 5)}), before)

    assert (offset_range.start, offset_range.end, offset_range.earlier) == (
        40,
        130,
        str(tmp_path / "partition-0000.parquet"),
    )
    assert (other.start, other.end, other.earlier) == (0, 5, None)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ((60, 130), "partition 0: the earlier run ended at offset 40, but the topic begins at 60 now: 20 rec"),
        ((0, 30), "partition 0: the earlier run ended at offset 40, but the topic ends at 30"),
    ],
)  # fmt: skip
def test_expired_or_lost_records_stop_the_run(now: tuple[int, int], message: str, tmp_path: Path) -> None:
    before = after(Topic({0: (0, 40)}), tmp_path)

    with pytest.raises(PlanError, match=message) as raised:
        plan(Topic({0: now}), before)
    assert "--fresh" in str(raised.value)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({3: 1}, "partition 3 does not exist; the partitions are 0, 1"),
        ({0: 12}, "partition 0: offset 12 does not exist; the limits are 5 to 9"),
    ],
)
def test_limits_that_do_not_exist_are_refused(limit: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(Topic({0: (5, 9), 1: (0, 7)}), None, since=limit)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (Topic({}, id="b"), Settings(), "read another source"),
        (Topic({}), Settings(detection=Detection(alert_risk=80)), r"other settings of \[detection\]"),
        (Topic({}), Settings(sampling=Sampling(rows=500)), "another sampling.rows"),
    ],
)
def test_other_source_or_settings_start_from_the_beginning(
    source: Topic, settings: Settings, message: str, tmp_path: Path
) -> None:
    after(Topic({0: (0, 40)}), tmp_path)
    found = newest([tmp_path], source, settings)

    assert isinstance(found, str)
    assert message.replace("\\", "") in found


def test_another_floor_or_budget_continues_the_history(tmp_path: Path) -> None:
    """They select what is raised, and change nothing that is folded."""
    after(Topic({0: (0, 40)}), tmp_path)
    settings = Settings(detection=Detection(floor_bits=25.0, incidents_per_day=1.0))
    assert not isinstance(newest([tmp_path], Topic({0: (0, 40)}), settings), str)


def test_other_layout_or_damaged_file_starts_from_the_beginning(tmp_path: Path) -> None:
    topic = Topic({0: (0, 40)})
    assert newest([tmp_path], topic, Settings()) == "there is no earlier run"
    after(topic, tmp_path)
    path = tmp_path / "history.json"
    about = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(about | {"layout": "0"}))
    assert "written by another version" in str(newest([tmp_path], topic, Settings()))
    path.write_bytes(b"{")
    assert "cannot be read" in str(newest([tmp_path], topic, Settings()))


def test_run_resumes_from_the_newest_compatible_run(tmp_path: Path) -> None:
    topic, directories = Topic({0: (0, 40)}), [tmp_path / name for name in "abc"]
    for directory, source in zip(directories, (Topic({}, id="b"), topic, topic), strict=True):
        directory.mkdir()
        after(source, directory)

    found = newest([tmp_path / "missing", *directories], topic, Settings())
    assert isinstance(found, ResumePoint) and found.directory == directories[1]
    assert newest([], topic, Settings()) == "there is no earlier run"
    assert "read another source" in str(newest([directories[0], tmp_path / "missing"], topic, Settings()))
    assert [of_topic(directory) for directory in (directories[0], tmp_path / "missing")] == [True, False]


def test_each_range_has_the_key_of_its_partition() -> None:
    ranges = plan(Topic({0: (0, 5), 1: (0, 5)}, keys={1: b"b" * 16}), None)
    assert [s.hash_key for s in ranges] == [FILES_KEY, b"b" * 16]


def test_a_history_with_other_keys_of_hashes_is_not_continued(tmp_path: Path) -> None:
    topic = Topic({0: (0, 5)})
    after(topic, tmp_path)
    topic.keys = {0: b"k" * 16}
    found = newest([tmp_path], topic, Settings())
    assert isinstance(found, str)
    assert "other keys of the hashes" in found


def test_archive_that_ends_before_the_earlier_run_names_the_command_that_extends_it(tmp_path: Path) -> None:
    earlier = after(Topic({0: (0, 9)}, kind="archive"), tmp_path)
    with pytest.raises(PlanError, match="run `streamguard archive` first"):
        plan(Topic({0: (0, 7)}, kind="archive"), earlier)


def test_every_planned_offset_is_a_record_or_known_to_have_none() -> None:
    topic = Topic({0: (0, 9)}, records_between={(0, 4, 6)})
    check_read(topic, [Counts(0, 0, 9, records=8, missing=1, gaps=[(3, 4)])])
    with pytest.raises(PlanError, match="but 9 offsets were planned"):
        check_read(topic, [Counts(0, 0, 9, records=8)])
    with pytest.raises(PlanError, match="offsets 4 to 5 were planned and have records"):
        check_read(topic, [Counts(0, 0, 9, records=7, missing=2, gaps=[(4, 6)])])
