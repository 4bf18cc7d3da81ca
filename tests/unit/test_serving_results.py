"""Runs, archive and models as the server reads them: whole answers, bounded, and a reason where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamguard.batch import archive as archiving
from streamguard.batch import job, planning
from streamguard.batch.planning import Request
from streamguard.events.decision import Decision
from streamguard.events.event import Withheld
from streamguard.events.subject import subject_of_key
from streamguard.fold.features import NAMES
from streamguard.fold.profile import PROFILE
from streamguard.history.incidents import Incidents
from streamguard.models.gate import Check, Judgement
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.runs.directory import FEATURES, REPORT
from streamguard.serving.log.freshness import Position
from streamguard.serving.log.missing import MissingEvent
from streamguard.serving.query.archived import PLACE, ArchivedQueries, UserEvents
from streamguard.serving.results import archive as archive_module
from streamguard.serving.results import batch as batch_module
from streamguard.serving.results import sandbox as sandbox_module
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.archive import ArchivedEvents, ArchivedPage
from streamguard.serving.results.archived_event import ArchivedEvent
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.comparison import (
    BatchCounts,
    Comparison,
    LiveCounts,
    compare,
)
from streamguard.serving.results.models import ModelList, Models
from streamguard.serving.results.run_answers import (
    AnomalyPage,
    BatchRun,
    BatchTotals,
    BatchUserAnswer,
    TotalsOfRun,
)
from streamguard.serving.results.sandbox import ParquetSandbox, UnreadableError
from streamguard.serving.results.totals import BatchPartition, LiveTotals, compare_totals
from streamguard.serving.results.users import MAX_NAME_CHARACTERS
from streamguard.settings.schema import Detection, Settings
from streamguard.settings.schema import Models as ModelSettings
from streamguard.state.codec import unpack
from streamguard.state.in_memory import InMemoryPartition
from tests.streams import DAY, HOUR, START, event, habit
from tests.unit.test_archive import Topic

HOSTILE = (
    "o'brien",
    'a"b',
    "'; DROP TABLE users; --",
    "$user",
    "nul\x00byte",
    "<script>alert(1)</script>",
    "ann\u202egnp",
    "../../etc/passwd",
    "*",
    "u" * 256,
)
TOPIC_ID = "topic-one"


def log(partition: int) -> list[tuple[int, bytes | None]]:
    """Habits, an attack on every user of a partition but one, hostile names, and records that are no events."""
    values: list[bytes | None] = list(habit(600, users=6, step=200_000, seed=partition))
    for name in HOSTILE:
        values += [event(START + DAY, name, source_ip="10.9.9.9", status="success")] * 3
    values += [b"?", None, b"\xff<b>", event(START + DAY, None, source_ip="192.0.2.7")]
    late = START + 2 * DAY
    for k in range(240):
        name = f"user{k % 5}"
        values.append(event(late + 1000 * k, name, source_ip="203.0.113.9", status="failed"))
    return [(k + k // 100, value) for k, value in enumerate(values)]


@pytest.fixture(scope="module")
def topic() -> Topic:
    return Topic({0: log(0), 2: log(2)}, id=TOPIC_ID)


def settings(output: Path) -> Settings:
    return msgspec.convert(
        {"batch": {"engine": "local", "output": str(output)}, "training": {"trees": 20}}, Settings
    )


def retrain(topic: Topic, output: Path, **wanted: Any) -> str:
    """Run a retrain without Spark and without Kafka; return the id of the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_open_source", lambda *_: topic)
        return Path(job.retrain(settings(output), Request(**wanted), lambda _: None).directory).name


@pytest.fixture(scope="module")
def whole(topic: Topic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs with one run, below a directory whose name has quotes and signs of patterns."""
    output = tmp_path_factory.mktemp("runs") / "it's [1]*" / "runs"
    retrain(topic, output)
    return output


@pytest.fixture
def runs(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "runs", symlinks=True))


@pytest.fixture
def results(whole: Path) -> Iterator[BatchResults]:
    results = BatchResults(whole)
    yield results
    results.close()


def frame(directory: Path) -> pd.DataFrame:
    """The users of the latest run as pandas reads them."""
    return pd.read_parquet(directory / "latest" / FEATURES)


def test_latest_run_has_its_report_and_end_offsets(whole: Path, topic: Topic) -> None:
    results = BatchResults(whole, clock=lambda: 4_000_000_000.0)
    found = results.latest()
    assert isinstance(found, BatchRun)
    assert found.report.totals.users == len(frame(whole))
    assert found.as_of.source == found.report.run_id
    ends = {one.partition: one.offset for one in found.as_of.positions}
    assert ends == {p: end for p, (_, end) in topic.bounds().items()}
    assert 0 < found.as_of.staleness_ms < 4_000_000_000_000
    runs = results.runs()
    assert not isinstance(runs, Unavailable)
    assert [(one.run_id, one.latest) for one in runs] == [(found.report.run_id, True)]


def test_anomalies_are_the_users_at_risk_worst_first_on_every_page_size(
    results: BatchResults, whole: Path
) -> None:
    users = frame(whole)
    worst = users[users.is_anomaly].sort_values(
        ["evidence_bits", "user", "partition"], ascending=[False, True, True]
    )
    expected = list(zip(worst.user, worst.partition, worst.evidence_bits, worst.risk, strict=True))
    assert len(expected) >= 8 and len(set(worst.evidence_bits)) > 1
    for limit in (1, 3, len(expected), 1000):
        pages = pages_of(results, limit)
        assert all(page.total == len(expected) and 0 < len(page.users) <= limit for page in pages)
        found = [
            (one.user, one.partition, one.evidence_bits, one.risk) for page in pages for one in page.users
        ]
        assert found == expected


def pages_of(results: BatchResults, limit: int) -> list[AnomalyPage]:
    """All pages; a list that does not end is a failure."""
    pages: list[AnomalyPage] = []
    while not pages or pages[-1].next is not None:
        page = results.anomalies(limit, pages[-1].next if pages else None)
        assert isinstance(page, AnomalyPage) and len(pages) < 100
        pages.append(page)
    return pages


def test_equal_evidence_is_paged_by_name_and_partition(runs: Path) -> None:
    for path in (runs / "latest" / FEATURES).iterdir():
        table = pq.read_table(path)
        for name, value in (("evidence_bits", 12.5), ("is_anomaly", True)):
            table = table.set_column(table.schema.get_field_index(name), name, pa.array([value] * len(table)))
        pq.write_table(table, path)
    found = [(one.user, one.partition) for page in pages_of(BatchResults(runs), 5) for one in page.users]
    users = frame(runs)
    assert found == sorted(
        zip(users.user, users.partition, strict=True), key=lambda key: (key[0].encode(), key[1])
    )


def test_user_has_an_entry_for_each_partition_with_features_and_group(
    results: BatchResults, whole: Path
) -> None:
    users = frame(whole)
    for name in ("user1", *HOSTILE, "source 192.0.2.7"):
        answer = results.user(name)
        assert isinstance(answer, BatchUserAnswer)
        rows = users[users.user == name].set_index("partition")
        assert sorted(one.summary.partition for one in answer.entries) == sorted(rows.index) == [0, 2]
        for one in answer.entries:
            row = rows.loc[one.summary.partition]
            assert one.summary.user == name
            assert one.summary.total_events == row.total_events
            assert one.summary.is_anomaly == row.is_anomaly
            assert pd.Timestamp(one.summary.last_seen) == row.last_seen
            assert [value.name for value in one.features] == list(NAMES)
            assert [value.last for value in one.features] == [row[feature] for feature in NAMES]
            assert [value.mean for value in one.features] == [row[f"mean_{feature}"] for feature in NAMES]
        assert {group.number for group in answer.groups} == set(rows.peer_group)
    attacked = results.user("user1")
    assert isinstance(attacked, BatchUserAnswer) and attacked.why
    assert json.loads(msgspec.json.encode(attacked))["entries"]


@pytest.mark.parametrize(
    "name", ["", "nobody", "' OR 1=1 --", "%", "\x00", "\ud800", "u" * 257, "x" * 1_000_000, "$files"]
)
def test_unknown_or_impossible_name_has_no_entries(results: BatchResults, name: str) -> None:
    answer = results.user(name)
    assert isinstance(answer, BatchUserAnswer) and answer.entries == ()
    counts = results.counts(name, 0)
    assert isinstance(counts, BatchCounts) and counts.events == 0


def test_totals_count_all_users_of_all_partitions(results: BatchResults, whole: Path) -> None:
    totals, users = results.totals(), frame(whole)
    assert isinstance(totals, BatchTotals)
    assert (totals.users, totals.users_at_risk) == (len(users), int(users.is_anomaly.sum()))
    assert totals.events == int(users.total_events.sum())
    assert totals.topic_id == TOPIC_ID
    assert [one.partition for one in totals.partitions] == [0, 2]
    assert sum(one.events for one in totals.partitions) == totals.events


def test_speed_and_batch_agree_at_the_same_offset(results: BatchResults, topic: Topic) -> None:
    """The speed layer is the fold itself: its profiles and the rows of the run count the same events."""
    partition = InMemoryPartition(2, resident=1000, detection=Detection())
    offsets, values = zip(*topic.partitions[2], strict=True)
    incidents = Incidents()
    incidents.follow(partition.state.fold(list(values), np.array(offsets)))
    partition.save()
    profiles = {
        subject_of_key(key): unpack(value, PROFILE, "profile")[0]
        for key, value in partition.saved.items()
        if key[:1] == b"u"
    }
    assert profiles.keys() >= {"user1", *HOSTILE}
    end = topic.bounds()[2][1]
    for user, profile in profiles.items():
        live = LiveCounts(2, end, TOPIC_ID, int(profile["events"]))
        found = results.compare(user, live)
        assert isinstance(found, Comparison) and found.verdict == "agree", (user, found)
        one_less = results.compare(user, msgspec.structs.replace(live, events=live.events - 1))
        assert isinstance(one_less, Comparison) and (one_less.verdict, one_less.events) == ("differ", -1)
    events = sum(
        int(unpack(value, PROFILE, "profile")[0]["events"])
        for key, value in partition.saved.items()
        if key[:1] in (b"u", b"a")
    )
    opened = len(incidents.incidents())
    assert opened == 3
    asked: list[dict[int, tuple[int, int]]] = []

    def published(offsets: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        asked.append(dict(offsets))
        return {2: opened}

    live_totals = LiveTotals(2, end, TOPIC_ID, len(profiles) + 1, events)
    total = results.compare_totals([live_totals], published)
    assert isinstance(total, TotalsOfRun)
    found = total.comparison
    assert (found.verdict, found.batch_only, found.live) == ("agree", (0,), found.batch)
    assert (found.live.events, found.live.users, found.live.incidents) == (events, len(profiles) + 1, opened)
    assert asked == [{0: (0, topic.bounds()[0][1]), 2: (0, end)}]
    for changed in ({"events": events + 1}, {"users": len(profiles)}):
        other = results.compare_totals([msgspec.structs.replace(live_totals, **changed)], published)
        assert isinstance(other, TotalsOfRun) and other.comparison.verdict == "differ"


@pytest.mark.parametrize(
    ("live", "batch", "verdict", "newer", "offsets"),
    [
        ((100, 10), (100, 10), "agree", "same", 0),
        ((100, 10), (100, 11), "differ", "same", 0),
        ((130, 12), (100, 10), "age", "live", 30),
        ((130, 10), (100, 10), "age", "live", 30),
        ((130, 41), (100, 10), "unexplained", "live", 30),
        ((130, 1), (100, 10), "age", "live", 30),
        ((100, 10), (130, 12), "age", "batch", 30),
        ((100, 10), (130, 41), "unexplained", "batch", 30),
    ],
)
def test_verdict_follows_offsets_and_events(
    live: tuple[int, int], batch: tuple[int, int], verdict: str, newer: str, offsets: int
) -> None:
    found = compare(LiveCounts(3, live[0], "t", live[1]), BatchCounts("run", 3, batch[0], "t", batch[1]))
    assert (found.verdict, found.newer, found.offsets) == (verdict, newer, offsets)
    assert found.events == live[1] - batch[1]
    assert ("fault" in found.message) == (verdict in ("differ", "unexplained"))


@pytest.mark.parametrize("topic_id", [None, "other"])
def test_other_topics_are_not_compared(topic_id: str | None) -> None:
    found = compare(LiveCounts(3, 5, "t", 5), BatchCounts("run", 3, 5, topic_id, 5))
    assert (found.verdict, found.newer, found.events) == ("not_comparable", None, None)
    assert compare_totals(
        [LiveTotals(3, 5, "t", 1, 5)], [BatchPartition(3, 5, 1, 0, 5)], topic_id, {}
    ).verdict == ("not_comparable")


@pytest.mark.parametrize(
    ("live", "batch", "model", "verdicts"),
    [
        ({}, {}, False, ("agree", "agree", "agree")),
        ({"offset": 130, "events": 52, "users": 5}, {}, False, ("age", "age", "agree")),
        ({"offset": 90, "events": 40, "users": 3}, {"incidents": 9}, False, ("age", "age", "age")),
        ({"users": 3}, {}, False, ("agree", "differ", "agree")),
        ({"users": 3, "may_have_aged_out": True}, {}, False, ("agree", "age", "agree")),
        ({"users": 5, "may_have_aged_out": True}, {}, False, ("agree", "differ", "agree")),
        ({"users": None}, {}, False, ("agree", "not_comparable", "agree")),
        ({}, {"incidents": 9}, False, ("agree", "agree", "differ")),
        ({}, {"incidents": 5}, False, ("agree", "agree", "differ")),
        ({}, {"incidents": 9}, True, ("agree", "agree", "explained")),
        ({}, {"incidents": None}, False, ("agree", "agree", "not_comparable")),
        ({"topic_id": "other"}, {}, False, ("not_comparable", "not_comparable", "not_comparable")),
        ({"events": 51}, {"start": 20}, False, ("not_comparable", "not_comparable", "not_comparable")),
        ({"events": 49}, {"start": 20}, False, ("differ", "agree", "agree")),
    ],
)  # fmt: skip
def test_every_difference_of_totals_is_age_or_a_fault(
    live: dict[str, Any], batch: dict[str, Any], model: bool, verdicts: tuple[str, str, str]
) -> None:
    ours = msgspec.structs.replace(LiveTotals(1, 100, "t", users=4, events=50), **live)
    theirs = msgspec.structs.replace(BatchPartition(1, 100, 4, 0, 50, incidents=7), **batch)
    found = compare_totals([ours], [theirs], "t", {1: 7}, model=model, continued=False)
    (one,) = found.partitions
    assert (one.events.verdict, one.users.verdict, one.incidents.verdict) == verdicts
    order = ["differ", "unexplained", "not_comparable", "age", "explained", "agree"]
    assert found.verdict == min(verdicts, key=order.index)
    for part in (one.events, one.users, one.incidents):
        assert ("fault" in part.message) == (part.verdict == "differ"), part
    assert found.live.incidents == 7 and found.batch.incidents == theirs.incidents


def test_counts_of_different_partitions_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="nothing in common"):
        compare(LiveCounts(1, 5, "t", 5), BatchCounts("run", 2, 5, "t", 5))


def test_new_run_is_picked_up_and_a_cursor_stays_with_its_run(topic: Topic, runs: Path) -> None:
    results = BatchResults(runs)
    page = results.anomalies(2)
    assert isinstance(page, AnomalyPage) and page.next is not None
    second = retrain(Topic(topic.partitions, id="other"), runs, algorithm="kmeans")
    latest = results.latest()
    assert isinstance(latest, BatchRun) and latest.as_of.source == second != page.as_of.source
    rest = results.anomalies(1000, page.next)
    assert isinstance(rest, AnomalyPage)
    assert rest.as_of.source == page.as_of.source
    assert len(rest.users) == page.total - 2
    shutil.rmtree(runs / page.as_of.source)
    assert _why(results.anomalies(1000, page.next)) == "gone"
    newest = results.anomalies(2)
    assert isinstance(newest, AnomalyPage) and newest.as_of.source == second
    listed = results.runs()
    assert not isinstance(listed, Unavailable) and [one.run_id for one in listed] == [second]


def _why(answer: object) -> str:
    assert isinstance(answer, Unavailable), answer
    assert answer.message
    return answer.why


def answers(results: BatchResults) -> list[object]:
    return [
        results.latest(),
        results.anomalies(10),
        results.user("user1"),
        results.totals(),
        results.counts("user1", 0),
        results.compare("user1", LiveCounts(0, 1, TOPIC_ID)),
        results.compare_totals([], lambda _: {}),
    ]


def test_missing_runs_are_answers(tmp_path: Path) -> None:
    assert [_why(one) for one in answers(BatchResults(None))] == ["not_configured"] * 7
    assert _why(BatchResults(None).runs()) == "not_configured"
    for directory in (tmp_path, tmp_path / "missing"):
        assert [_why(one) for one in answers(BatchResults(directory))] == ["none"] * 7
        assert BatchResults(directory).runs() == ()
    (tmp_path / ".20260101T000000000000Z-abcd.partial").mkdir()
    assert {_why(one) for one in answers(BatchResults(tmp_path))} == {"none"}


@pytest.mark.parametrize(
    "report",
    [
        None,
        b"",
        b"{",
        b"[]",
        b'{"format": 2}',
        b'{"format": 99}',
        b"\xff",
        b'{"format": 2, "x": ' + b"[" * 100_000,
        b"x" * 5000,
    ],
)
def test_broken_report_is_an_answer(
    runs: Path, report: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = runs / "latest" / REPORT
    path.unlink()
    if report is not None:
        path.write_bytes(report)
    if report == b"x" * 5000:
        monkeypatch.setattr(batch_module, "MAX_REPORT_BYTES", 4999)
    found = answers(BatchResults(runs))
    assert [_why(one) for one in found] == ["unreadable"] * 7
    assert isinstance(found[0], Unavailable) and REPORT in found[0].message
    assert ("4,999" in found[0].message) == (report == b"x" * 5000)


def test_report_with_an_impossible_time_is_an_answer(runs: Path) -> None:
    path = runs / "latest" / REPORT
    body = json.loads(path.read_bytes())
    for moment in ("", "yesterday", "9" * 1000):
        path.write_text(json.dumps(body | {"finished": moment}))
        assert _why(BatchResults(runs).latest()) == "unreadable"


def test_broken_user_files_are_an_answer_and_the_report_stays_readable(runs: Path) -> None:
    features = runs / "latest" / FEATURES
    file = features / "part-0.parquet"
    data = file.read_bytes()
    for broken in (b"", b"PAR1", data[: len(data) // 2], data[:-20] + b"\x00" * 20):
        file.write_bytes(broken)
        results = BatchResults(runs)
        assert isinstance(results.latest(), BatchRun)
        assert [_why(one) for one in answers(results)[1:]] == ["unreadable"] * 6
    file.unlink()
    pq.write_table(pa.table({"user": ["user1"], "evidence_bits": ["?"]}), file)
    assert _why(BatchResults(runs).user("user1")) == "unreadable"
    shutil.rmtree(features)
    assert [_why(one) for one in answers(BatchResults(runs))] == ["unreadable"] * 7
    file.parent.mkdir()
    assert _why(BatchResults(runs).latest()) == "unreadable"


def test_row_that_no_retrain_writes_is_an_answer(runs: Path) -> None:
    file = runs / "latest" / FEATURES / "part-0.parquet"
    table = pq.read_table(file)
    for name, value in (("first_seen", None), ("total_events", None), ("user", None)):
        place = table.schema.get_field_index(name)
        empty = pa.array([value] * len(table), table.schema.field(name).type)
        pq.write_table(table.set_column(place, name, empty), file)
        assert _why(BatchResults(runs).anomalies(1000)) == "unreadable"


def test_run_that_is_deleted_while_it_is_asked_is_replaced_by_the_next_latest(
    topic: Topic, runs: Path
) -> None:
    results = BatchResults(runs)
    first = results.latest()
    assert isinstance(first, BatchRun)
    second = retrain(Topic(topic.partitions, id="other"), runs, algorithm="kmeans")
    (runs / "latest").unlink()
    (runs / "latest").symlink_to(first.report.run_id)
    assert isinstance(results.user("user1"), BatchUserAnswer)
    opened = results._open[first.report.run_id]
    ask = opened.users.named

    def deleted(name: str) -> Any:
        shutil.rmtree(runs / first.report.run_id, ignore_errors=True)
        return ask(name)

    opened.users.named = deleted  # type: ignore[method-assign]
    answer = results.user("user1")
    assert isinstance(answer, BatchUserAnswer) and answer.as_of.source == second
    assert list(results._open) == [second]


def test_impossible_names_are_not_looked_for(results: BatchResults, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(results.user("u" * MAX_NAME_CHARACTERS), BatchUserAnswer)
    asked: list[object] = []
    monkeypatch.setattr(ParquetSandbox, "rows", lambda *arguments: asked.append(arguments) or [])
    for name in ("u" * (MAX_NAME_CHARACTERS + 1), "\ud800"):
        answer = results.user(name)
        assert isinstance(answer, BatchUserAnswer) and answer.entries == ()
    assert asked == []
    results.user("u" * MAX_NAME_CHARACTERS)
    assert len(asked) == 1


def test_threads_ask_at_the_same_time(results: BatchResults) -> None:
    expected = results.user("user1")
    found: Counter[bool] = Counter()

    def ask() -> None:
        for _ in range(10):
            answer = results.user("user1")
            found[isinstance(answer, BatchUserAnswer) and answer.entries == expected.entries] += 1  # type: ignore[union-attr]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {True: 40}


@pytest.fixture
def box(whole: Path) -> Iterator[ParquetSandbox]:
    box = ParquetSandbox(whole / "latest")
    yield box
    box.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '/tmp/streamguard-serving-results.csv'",
        "ATTACH '/tmp/streamguard-serving-results.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/etc']",
        "SET lock_configuration = false",
        "SET memory_limit = '10GB'",
        "RESET memory_limit",
    ],
)
def test_database_opens_no_other_file_and_keeps_its_settings(box: ParquetSandbox, sql: str) -> None:
    with pytest.raises(
        UnreadableError, match=r"Permission Error|Cannot change|does not exist|disabled|locked"
    ):
        box.rows(sql, {})
    ((limit,),) = [row.values() for row in box.rows("SELECT current_setting('memory_limit')", {})]
    assert str(limit).endswith("MiB")


def test_paths_and_links_that_leave_the_directory_are_refused(box: ParquetSandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    inside = box.directory / FEATURES / "part-0.parquet"
    assert box.rows("SELECT count(*) AS n FROM read_parquet($file)", {"file": str(inside)})[0]["n"] > 0
    link = box.directory / "link.txt"
    link.symlink_to(secret)
    try:
        for path in (secret, link, box.directory / ".." / ".." / ".." / "secret.txt", Path("/etc/passwd")):
            with pytest.raises(UnreadableError, match="Permission Error"):
                box.rows("SELECT * FROM read_text($file)", {"file": str(path)})
    finally:
        link.unlink()


def test_query_that_needs_too_much_is_stopped(box: ParquetSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableError, match="more than 128MB of memory") as raised:
        box.rows("SELECT list(n) FROM range(100000000) AS t(n)", {})
    assert raised.value.busy
    monkeypatch.setattr(sandbox_module, "QUERY_SECONDS", 0.2)
    with pytest.raises(UnreadableError, match="took more than") as raised:
        box.rows(
            "SELECT count(*) FROM range(100000000000) AS t(n) WHERE md5(n::VARCHAR) = 'x'",
            {},
        )
    assert raised.value.busy
    assert len(box.rows("SELECT * FROM range(1000000)", {})) == sandbox_module.MAX_ROWS


def test_busy_database_is_an_answer(results: BatchResults, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(results.totals(), BatchTotals)

    def busy(*_: object) -> Any:
        raise UnreadableError("too much", busy=True)

    monkeypatch.setattr(ParquetSandbox, "rows", busy)
    assert _why(results.user("user1")) == _why(results.anomalies(1)) == "busy"


@pytest.fixture(scope="module")
def archived(topic: Topic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the topic, written in three parts."""
    directory = tmp_path_factory.mktemp("archive") / "it's [1]"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archiving.KafkaSource, "of", lambda _: topic)
        for limit in (300, 300, None):
            archiving.archive(settings(directory), directory, lambda _: None, max_records=limit)
    return directory


def test_every_archived_offset_is_found_and_every_other_one_explained(archived: Path, topic: Topic) -> None:
    archive = ArchivedEvents(archived)
    forms: Counter[str] = Counter()
    for partition, rows in topic.partitions.items():
        by_offset = dict(rows)
        for offset in (*range(60), *range(600, 720)):
            found = archive.at(partition, offset, TOPIC_ID)
            if offset not in by_offset:
                assert isinstance(found, MissingEvent) and found.reason == "not_committed"
                forms["missing"] += 1
                continue
            assert isinstance(found, ArchivedEvent), found
            assert (found.partition, found.offset, found.cut) == (partition, offset, False)
            forms[found.form] += 1
            value = by_offset[offset]
            if found.form == "event":
                sent = {k: v for k, v in json.loads(value or b"").items() if v is not None}
                assert found.document == sent
                assert found.timestamp_ms == sent["timestamp"]
            elif found.form == "record":
                assert (found.document, found.text) == (
                    None,
                    {b"?": "?", b"\xff<b>": "\ufffd<b>"}[value or b""],
                )
            else:
                assert (value, found.document, found.text) == (None, None, None)
    assert forms.keys() == {"event", "record", "empty", "missing"}


def test_offsets_outside_of_the_archive_are_explained(archived: Path) -> None:
    archive = ArchivedEvents(archived)
    for partition, offset in ((0, 10**9), (0, -1), (1, 0), (99, 5), (-1, 0), (0, 2**70)):
        found = archive.at(partition, offset)
        assert isinstance(found, MissingEvent) and found.reason == "not_archived"
    found = archive.at(0, 1, "the topic after it was created again")
    assert isinstance(found, MissingEvent) and found.reason == "another_topic"


def times(page: ArchivedPage | Unavailable) -> list[tuple[int, int, int]]:
    assert isinstance(page, ArchivedPage)
    return [(-(one.timestamp_ms or 0), one.partition, -one.offset) for one in page.events]


def test_events_of_a_user_are_the_newest_in_the_range(archived: Path, topic: Topic) -> None:
    archive = ArchivedEvents(archived)
    sent = sorted(
        (-document["timestamp"], partition, -offset)
        for partition, rows in topic.partitions.items()
        for offset, value in rows
        if value and value[:1] == b"{" and (document := json.loads(value))["user"] == "user3"
    )
    assert len(sent) > 200
    since, until = START, START + 30 * DAY
    assert times(archive.of_user("user3", since, until, 50)) == sent[:50]
    page = archive.of_user("user3", since, until, 1000)
    assert isinstance(page, ArchivedPage) and (len(page.events), page.more) == (100, True)
    middle = [one for one in sent if START + 10 * HOUR <= -one[0] < START + 20 * HOUR]
    assert times(archive.of_user("user3", START + 10 * HOUR, START + 20 * HOUR, 100)) == middle != []
    of_two = [one for one in sent if one[1] == 2]
    assert times(archive.of_user("user3", since, until, 20, partition=2)) == of_two[:20]
    for name in HOSTILE:
        page = archive.of_user(name, since, until, 100)
        assert isinstance(page, ArchivedPage) and len(page.events) == 6 and not page.more
        assert {one.document["user"] for one in page.events if one.document} == {name}


def test_pages_of_archived_events_are_the_list_in_parts(archived: Path, topic: Topic) -> None:
    """Hostile users have three events of one time in each partition, so pages end between equal times."""
    queries = ArchivedQueries(Unpublished(), ArchivedEvents(archived))  # type: ignore[arg-type]
    for user, limit in (("user3", 7), (HOSTILE[0], 1), (HOSTILE[1], 2), (HOSTILE[2], 4)):
        expected = []
        for partition, records in topic.partitions.items():
            for offset, value in records:
                found = parsed(value)
                if found is not None and found.get("user") == user:
                    expected.append((-found["timestamp"], partition, -offset))
        shown: list[tuple[int, int, int]] = []
        after: str | None = None
        while True:
            page = queries.of_user(user, None, None, limit, after)
            assert isinstance(page, UserEvents) and len(page.events) <= limit and not page.incomplete
            assert page.as_of[0].positions == tuple(
                Position(partition, records[-1][0] + 1) for partition, records in topic.partitions.items()
            )
            events = [one.event for one in page.events]
            shown += [(-(one.timestamp_ms or 0), one.partition, -one.offset) for one in events]
            assert all(one.incidents == (f"of {one.event.offset}",) for one in page.events)
            if page.next is None:
                break
            assert re.fullmatch(PLACE, page.next)
            after = page.next
        assert shown == sorted(expected), user


class Unpublished:
    """Answers which incidents were published for events."""

    def published_for(
        self, topic: str, events: Sequence[tuple[int, int, str]]
    ) -> dict[tuple[int, int], tuple[str, ...]]:
        assert topic == "events"
        return {(partition, offset): (f"of {offset}",) for partition, offset, _ in events}


def parsed(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(value or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) and "user" in found else None


@pytest.mark.parametrize("user", ["", "nobody", "' OR true --", "\ud800", "x" * 1_000_000])
def test_nobody_has_no_archived_events(archived: Path, user: str) -> None:
    assert ArchivedEvents(archived).of_user(user, -(10**30), 10**30, 10) == ArchivedPage((), False)


def test_few_files_at_a_time_give_the_same_events(archived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = ArchivedEvents(archived)
    expected = times(archive.of_user("user3", 0, START + 30 * DAY, 100))
    monkeypatch.setattr(archive_module, "FILES_AT_A_TIME", 1)
    assert times(archive.of_user("user3", 0, START + 30 * DAY, 100)) == expected
    asked: list[object] = []
    ask = ParquetSandbox.rows

    def counted(box: ParquetSandbox, sql: str, parameters: Any) -> Any:
        asked.extend(parameters["files"])
        return ask(box, sql, parameters)

    monkeypatch.setattr(ParquetSandbox, "rows", counted)
    assert times(archive.of_user("user3", 0, START + 30 * DAY, 5)) == expected[:5]
    assert 0 < len(asked) < len(list(archived.rglob("*.parquet"))) / 2
    monkeypatch.setattr(archive_module, "MAX_FILES", 1)
    few = archive.of_user("user3", 0, START + 30 * DAY, 100, partition=2)
    assert isinstance(few, ArchivedPage) and few.more
    assert times(few)[0] == next(one for one in expected if one[1] == 2)


def test_archive_that_grows_is_read_again(
    topic: Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving.KafkaSource, "of", lambda _: topic)
    archive = ArchivedEvents(tmp_path / "a")
    assert _why(archive.at(0, 500)) == "none"
    archiving.archive(settings(tmp_path), tmp_path / "a", lambda _: None, max_records=100)
    found = archive.at(0, 500)
    assert isinstance(found, MissingEvent) and found.reason == "not_archived"
    archiving.archive(settings(tmp_path), tmp_path / "a", lambda _: None)
    assert isinstance(archive.at(0, 500), ArchivedEvent)


def test_missing_or_broken_archive_is_an_answer(archived: Path, tmp_path: Path) -> None:
    def both(directory: Path | None) -> set[str]:
        archive = ArchivedEvents(directory)
        return {_why(archive.at(0, 1)), _why(archive.of_user("user1", 0, START + 30 * DAY, 1))}

    assert both(None) == {"not_configured"}
    assert both(tmp_path) == both(tmp_path / "missing") == {"none"}
    copy = Path(shutil.copytree(archived, tmp_path / "copy"))
    archive = ArchivedEvents(copy)
    assert isinstance(archive.at(0, 1), ArchivedEvent)
    for file in copy.rglob("*.parquet"):
        file.write_bytes(b"PAR1")
    assert both(copy) == {"unreadable"}
    manifest = copy / "_manifest.json"
    for text in ("[]", '{"format": "streamguard-archive-2"}', "{" * 100_000):
        manifest.write_text(text)
        assert _why(archive.at(0, 1)) == "unreadable"
    manifest.unlink()
    assert both(copy) == {"none"}


def test_large_refused_record_is_cut(archived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = b'{"user": "ann", "x": "' + b"\x1b" * 300_000 + b'"}'
    made = Topic({0: [(0, large)]}, id="large")
    monkeypatch.setattr(archiving.KafkaSource, "of", lambda _: made)
    archiving.archive(settings(tmp_path), tmp_path / "a", lambda _: None)
    found = ArchivedEvents(tmp_path / "a").at(0, 0)
    assert isinstance(found, ArchivedEvent)
    assert (found.form, found.document, found.cut) == ("record", None, True)
    assert found.text is not None and len(found.text) == archive_module.MAX_DOCUMENT_BYTES
    assert "\x1b" not in found.text


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", feature_names=NAMES)


def models(registry: Registry) -> ModelList | Unavailable:
    return Models(Settings(models=ModelSettings(registry=str(registry.directory)))).versions()


def test_models_have_roles_and_judgements(registry: Registry) -> None:
    assert _why(models(registry)) == "none"
    rows = [
        np.random.default_rng(k).gamma(2.0, 0.5 + k, (400, len(NAMES))).astype(np.float32) for k in range(3)
    ]
    versions = [registry.publish(train(some, trees=5)) for some in rows]
    for k, version in enumerate(versions):
        path = registry.directory / "versions" / version / "manifest.json"
        os.utime(path, (1000 + k, 1000 + k))
    judgement = Judgement(False, [Check("drift", 3.0, 2.0, False, "burst moved")], versions[1])
    registry.judge(versions[2], judgement)
    registry.promote(versions[0])
    registry.promote(versions[1])
    found = models(registry)
    assert isinstance(found, ModelList)
    assert (found.champion, found.challenger, found.problem) == (versions[1], versions[2], None)
    assert [(one.version, one.role, one.judgement) for one in found.versions] == [
        (versions[2], "challenger", judgement),
        (versions[1], "champion", None),
        (versions[0], "previous", None),
    ]
    registry.rollback()
    found = models(registry)
    assert isinstance(found, ModelList) and found.champion == versions[0]
    assert [one.withdrawn for one in found.versions] == [False, True, False]
    for version in versions[1:]:
        (registry.directory / "versions" / version / "manifest.json").write_text("{")
    found = models(registry)
    assert isinstance(found, ModelList)
    assert (found.champion, found.challenger) == (versions[0], None)
    (registry.directory / "current").write_text("x\n")
    found = models(registry)
    assert isinstance(found, ModelList) and found.champion is None and found.problem
    assert {one.version for one in found.versions if one.damaged} == set(versions[1:])


def test_models_are_those_of_a_retrain_without_a_configured_registry(whole: Path, tmp_path: Path) -> None:
    found = Models(settings(whole)).versions()
    assert isinstance(found, ModelList)
    assert found.versions[0].judgement is not None and found.versions[0].rows
    (tmp_path / "registry").write_text("a file")
    assert _why(Models(settings(tmp_path)).versions()) == "none"


@pytest.fixture
def special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of an event, a batch that could not be read (offsets 1 to 4), a decision and an event."""
    batch = Withheld("unreadable_batch", "it cannot be unpacked", b"\x00bad\x1b", 900, "ab" * 32, 1, 4)
    decision = Decision(1, "0-" + "a" * 24, "expected", "ann", "source", "10.0.0.1", until=START)
    values: list[Any] = [event(START, "ann", source_ip="10.0.0.1"), batch, decision, event(START + 1, "ann")]
    made = Topic({0: list(zip((0, 4, 5, 7), values, strict=True))}, id=TOPIC_ID)
    monkeypatch.setattr(archiving.KafkaSource, "of", lambda _: made)
    archiving.archive(settings(tmp_path), tmp_path / "special", lambda _: None)
    return tmp_path / "special"


def test_unreadable_batches_and_decisions_are_shown_as_such(special: Path) -> None:
    archive = ArchivedEvents(special)
    for offset in range(1, 5):
        found = archive.at(0, offset)
        assert isinstance(found, ArchivedEvent)
        assert (found.offset, found.form, found.cut) == (4, "unreadable_batch", True)
        assert found.document is not None and found.document["first"] == 1
        assert found.text == "\ufffdbad\ufffd"
    decision = archive.at(0, 5)
    assert isinstance(decision, ArchivedEvent) and decision.form == "decision"
    assert decision.document is not None and decision.document["user"] == "ann"
    gap = archive.at(0, 6)
    assert isinstance(gap, MissingEvent) and gap.reason == "not_committed"
    page = archive.of_user("ann", START, START + DAY, 10)
    assert isinstance(page, ArchivedPage) and [one.offset for one in page.events] == [7, 0]


def test_archive_of_an_earlier_version_lacks_columns(archived: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(archived, tmp_path / "copy"))
    files = sorted(copy.rglob("*.parquet"))
    for file in files[::2]:
        table = pq.read_table(file, partitioning=None)
        pq.write_table(table.drop_columns(["appended", "withheld", "decision"]), file)
    archive, before = ArchivedEvents(copy), ArchivedEvents(archived)
    assert [archive.at(p, k) for p in (0, 2) for k in range(0, 600, 7)] == [
        before.at(p, k) for p in (0, 2) for k in range(0, 600, 7)
    ]
    assert archive.of_user("user3", 0, START + DAY, 100) == before.of_user("user3", 0, START + DAY, 100)


def test_user_is_found_in_every_row_group(runs: Path) -> None:
    results, users = BatchResults(runs), frame(runs)
    before = {name: results.user(name) for name in sorted(set(users.user))}
    for path in (runs / "latest" / FEATURES).iterdir():
        pq.write_table(pq.read_table(path), path, row_group_size=3)
    again = BatchResults(runs)
    for name, answer in before.items():
        found = again.user(name)
        assert isinstance(answer, BatchUserAnswer) and isinstance(found, BatchUserAnswer)
        assert found.entries == answer.entries and len(found.entries) == 2
        assert list(found.entries) == sorted(found.entries, key=lambda one: -one.summary.evidence_bits)
