"""A file is one history: replay, evaluate and retrain place its rows alike, bad rows included."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from streamguard.batch import job
from streamguard.batch.planning import Request
from streamguard.events.refusals import lines, merged
from streamguard.history import understood
from streamguard.history.evaluate import judge
from streamguard.history.files import read
from streamguard.history.layout import Layout
from streamguard.history.replay import Replay
from streamguard.runs import report as batch_report
from streamguard.runs.directory import REPORT
from streamguard.settings.schema import Settings
from tests.streams import START, event, habit

PARTITIONS = 4
ATTACKED = ("user3", "user8", "user11")
BAD: list[bytes] = [
    b"?",
    b'{"user": "user3"}',
    b'{"user": "user8", "timestamp": "yesterday", "event_type": "auth_attempt"}',
    b'{"user": 5, "timestamp": 1700000000000, "event_type": "auth_attempt"}',
    b'{"timestamp": 1700000000000, "event_type": "auth_attempt", "user": "' + b"u" * 300 + b'"}',
    b"[" * 2000,
    b"\xff\xfe",
    b'"user3"',
    b'{"user": "user11", "status": "fai',
    event(START + 20_000_000, "user5", status="pending", source_ip="host-7"),
    event(START + 20_000_000, "user6", status="pending", metadata={"geo_location": "Atlantis"}),
]
"""Rows with faults, some of which name a user."""
REFUSED = 7
"""Number of these rows that are refused; of the others, two are repaired, and two are not understood."""


def history() -> list[bytes]:
    """Habits and attacks on three users of different partitions, with refused rows before and inside the attacks."""
    values = habit(1500)
    late = START + 1500 * 20_000
    for k in range(180):
        values.append(
            event(late + 1000 * k, ATTACKED[k % 3], source_ip=f"203.0.113.{k % 3}", status="failed")
        )
    for k, bad in enumerate(BAD * 3):
        values.insert(200 + 55 * k, bad)
    return values


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("layout") / "events.jsonl"
    path.write_bytes(b"\n".join(history()) + b"\n")
    return str(path)


def test_same_file_gives_the_same_incidents_and_refusals_everywhere(file: str, tmp_path: Path) -> None:
    replay = Replay(PARTITIONS)
    for batch in read(file):
        replay.feed(batch)
    expected = [(one.id, one.count, one.evidence_bits, one.risk) for one in replay.incidents()]
    assert len(expected) >= 3 and replay.refused.total() == 3 * REFUSED

    settings = msgspec.convert(
        {
            "batch": {"engine": "local", "output": str(tmp_path / "runs")},
            "kafka": {"partitions": PARTITIONS},
        },
        Settings,
    )
    said: list[str] = []
    outcome = job.retrain(settings, Request(input=file, algorithm="kmeans"), said.append)
    report = batch_report.decode((Path(outcome.directory) / REPORT).read_bytes())
    assert [(one.id, one.count, one.evidence_bits, one.risk) for one in report.incidents] == expected
    assert Counter(report.totals.refused_by_reason) == replay.refused
    totals = report.totals
    assert totals.understood == outcome.understood == understood.merged([replay.understood])
    assert totals.understood.not_understood == {"status": 6, "address": 3, "location": 3}
    assert totals.understood.words == {"pending": 6}
    assert totals.repaired == outcome.repaired == 6
    assert totals.repairs == outcome.repairs == {"user: converted": 3, "user: too_long": 3}
    assert totals.refusals == outcome.refusals == merged([replay.refusals])
    assert f"      {replay.understood.message()}" in said
    assert [line.strip() for line in said if "refused as" in line] == lines(replay.refusals) != []
    page = (Path(outcome.directory) / "report.html").read_text()
    assert replay.understood.message() in page and "6 events repaired" in page

    nothing = lambda batch: ([False] * len(batch.events), [None] * len(batch.events))  # noqa: E731
    judged = judge(read(file), nothing, Replay(PARTITIONS))
    numbers = set(judged.scored.incident[judged.scored.incident >= 0].tolist())
    ids = {f"{number % PARTITIONS}-{number // PARTITIONS}" for number in numbers}
    assert ids == {id.rpartition("-")[0] for id, *_ in expected}
    assert judged.refusals == merged([replay.refusals])


@pytest.mark.parametrize("rows", [1, 7, 5000])
def test_place_of_a_row_does_not_depend_on_batches(file: str, rows: int) -> None:
    layout, places = Layout(PARTITIONS), {}
    for batch in read(file, rows=rows):
        for placed in layout.place(batch):
            for row, offset in zip(placed.rows.tolist(), placed.offsets.tolist(), strict=True):
                places[batch.first + row] = placed.partition, offset
    by_partition: dict[int, list[int]] = {}
    for _, (partition, offset) in sorted(places.items()):
        by_partition.setdefault(partition, []).append(offset)
    assert len(places) == len(history())
    for partition, offsets in by_partition.items():
        assert offsets == list(range(layout.ends[partition]))


def test_refused_row_is_in_the_partition_of_the_user_whom_it_names() -> None:
    def partition(value: bytes) -> int:
        from streamguard.events.event import parse
        from streamguard.history.files import Batch

        (placed,) = Layout(1000).place(Batch(1, [1], [value], *parse([value]), {}))
        return placed.partition

    for user in ATTACKED:
        named = json.dumps({"user": user}).encode()
        assert partition(named) == partition(event(START, user)) != partition(b"?")
    assert partition(b'{"user": 5}') == partition(event(START, "5")) == partition(b'{"user": "5", "x": ')
    assert partition(b"[" * 2000) == partition(b'{"user": "-"}') == partition(b"?")
