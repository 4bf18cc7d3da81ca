"""Folding an offset range: records in, a partition file out, equal to the fold of the whole topic."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamguard.alerts.incident import Entity, encode
from streamguard.batch.folding.bottom_k import SAMPLED
from streamguard.batch.folding.fold_file import PEAKS, SCHEMA, batches
from streamguard.batch.folding.fold_range import fold_range
from streamguard.batch.folding.fold_result import FoldResult, UserTable
from streamguard.batch.folding.loading import load
from streamguard.batch.source.offset_range import Counts, OffsetRange, PlanError, RecordChunk
from streamguard.fold.features import NAMES
from streamguard.history.incidents import Incidents, worst_first
from streamguard.risk import risk
from streamguard.settings.schema import Detection, Sampling
from tests.batches import incident
from tests.streams import DAY, HOUR, START, Partition, event, habit

SAMPLING = Sampling(rows=256, alerts=50)
ALWAYS = Detection()


def stream() -> list[bytes | None]:
    """Ordinary logins, an attack from one address, and records that are not events."""
    values: list[bytes | None] = list(habit(1500))
    late = START + 1500 * 20_000
    values += [
        event(late + 1000 * k, "user3", source_ip="203.0.113.9", status="failed", threat_score=0.5)
        for k in range(60)
    ]
    values[200:200] = [b"?", None, b"{}"]
    return values


def fold(
    values: list[bytes | None], *, start: int = 0, chunk: int = 500, offsets: np.ndarray | None = None,
    end: int | None = None, earlier: str | None = None, sampling: Sampling = SAMPLING,
    detection: Detection = ALWAYS,
) -> pa.Table:  # fmt: skip
    offsets = np.arange(start, start + len(values)) if offsets is None else offsets
    offset_range = OffsetRange(3, start, start + len(values) if end is None else end, earlier)
    records = (
        RecordChunk(offsets[a : a + chunk], values[a : a + chunk]) for a in range(0, len(values), chunk)
    )
    return pa.Table.from_batches(fold_range(offset_range, records, detection, sampling), SCHEMA)


def loaded(table: pa.Table, path: Path, rows: int = 256) -> FoldResult:
    pq.write_table(table, path / "partition-0003.parquet")
    return load([path / "partition-0003.parquet"], rows, 1000)


def users_of(result: FoldResult) -> UserTable:
    (table,) = result.users[3]
    return table


def of_kind(table: pa.Table, *kinds: str) -> pa.Table:
    return (
        table.filter(pa.compute.is_in(table["kind"], pa.array(kinds)))
        .drop_columns(list(PEAKS))
        .combine_chunks()
    )


@pytest.mark.parametrize("chunk", [1, 7])
def test_rows_do_not_depend_on_chunks(chunk: int) -> None:
    values = stream()[:600] + stream()[-60:]

    assert fold(values, chunk=chunk).equals(fold(values, chunk=500))


def test_three_runs_equal_one_pass(tmp_path: Path) -> None:
    values = stream()
    whole = fold(values)

    earlier = None
    for a, b in ((0, 100), (100, 1200), (1200, len(values))):
        part = fold(values[a:b], start=a, earlier=earlier, chunk=97)
        earlier = str(tmp_path / f"{b}.parquet")
        pq.write_table(part, earlier)

    for kind in ("sample", "user", "state"):
        assert of_kind(part, kind).equals(of_kind(whole, kind)), kind
    assert of_kind(whole, "sample").num_rows == SAMPLING.rows


FORGETFUL = Detection(forget_after_days=2.0)


def comings_and_goings() -> list[bytes | None]:
    """Users of one day, some of whom return after a week, among colleagues who work every day."""
    visitors = [
        event(START + day * DAY + k * 1000, f"visitor{k}")
        for day, users in ((0, 20), (7, 10))
        for k in range(users)
    ]
    work = [event(START + hour * HOUR, name) for hour in range(12 * 24) for name in ("ann", "bob")]
    return [*sorted(visitors + work, key=lambda value: int(msgspec.json.decode(value)["timestamp"]))]


@pytest.mark.parametrize("cuts", [(200,), (30, 100, 300), (50, 51, 400)])
def test_runs_that_forget_users_equal_one_pass(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    """The end of a run deletes profiles and summaries at another moment than the fold of all events does."""
    values = comings_and_goings()
    whole = fold(values, detection=FORGETFUL)
    assert fold(values, chunk=3, detection=FORGETFUL).equals(whole)

    earlier = None
    for a, b in pairwise((0, *cuts, len(values))):
        part = fold(values[a:b], start=a, earlier=earlier, chunk=7, detection=FORGETFUL)
        earlier = str(tmp_path / f"{b}.parquet")
        pq.write_table(part, earlier)

    for kind in ("sample", "user", "state"):
        assert of_kind(part, kind).equals(of_kind(whole, kind)), kind
    assert of_kind(whole, "user")["user"].to_pylist() == ["ann", "bob"]


def test_a_user_who_returns_after_being_forgotten_is_summarised_anew(tmp_path: Path) -> None:
    values = comings_and_goings()
    until = next(
        i
        for i, value in enumerate(values)
        if value and msgspec.json.decode(value)["timestamp"] > START + 8 * DAY
    )
    result = loaded(fold(values[:until], detection=FORGETFUL), tmp_path)
    users = users_of(result)
    total = dict(zip(users.user.tolist(), users.summary["total_events"].tolist(), strict=True))
    assert {user: n for user, n in total.items() if user.startswith("visitor")} == {
        f"visitor{k}": 1 for k in range(10)
    }
    (counts,) = result.counts
    assert (counts.users, counts.events_ever) == (12, until)


def test_state_equals_that_of_a_worker() -> None:
    values = [value for value in stream() if value is not None]
    worker = Partition()
    worker.state.partition = 3
    worker.run(values)

    state = of_kind(fold(list(values)), "state")

    assert dict(zip(state["key"].to_pylist(), state["value"].to_pylist(), strict=True)) == worker.saved


def test_records_read_are_counted(tmp_path: Path) -> None:
    values = stream()
    (counts,) = loaded(fold(values), tmp_path).counts

    assert (counts.records, counts.events) == (len(values), len(values) - 3)
    assert {reason: entry.number for reason, entry in counts.refusals.items()} == {
        "not_json": 1,
        "empty": 1,
        "missing_field": 1,
    }
    assert [(offset, reason) for offset, reason, _ in counts.refused_first] == [
        (200, "not_json"), (201, "empty"), (202, "missing_field")
    ]  # fmt: skip
    assert counts.first_ms == START
    assert counts.missing == 0


def test_attack_is_alerted_and_becomes_an_incident(tmp_path: Path) -> None:
    values = stream()
    result = loaded(fold(values), tmp_path)
    attack = range(len(values) - 60, len(values))

    assert result.counts[0].alerted > len(result.alerts) == result.alerts.alerted.sum() == SAMPLING.alerts
    assert set(result.alerts.offset[result.alerts.strength > 15]) <= set(attack)
    assert result.incidents[0].entity == Entity("user", "user3")
    assert result.incidents[0].event["source_ip"] == "203.0.113.9"
    users = users_of(result)
    worst = users.user[np.argmax(users.event_bits)]
    assert worst == "user3"


def test_users_have_the_evidence_of_their_worst_incident(tmp_path: Path) -> None:
    """Alerts that were not published one by one count, too."""
    result = loaded(fold(stream()), tmp_path)
    users = users_of(result)
    about = [one for one in result.incidents if one.entity.kind == "user"]
    worst = {one.entity.value: one for one in reversed(worst_first(about))}
    assert "user3" in worst and max(one.count for one in about) > 16
    found = dict(zip(users.user.tolist(), users.incident_bits.tolist(), strict=True))
    for name, bits in found.items():
        assert (round(bits, 2), risk(bits)) == (
            (worst[name].evidence_bits, worst[name].risk) if name in worst else (0.0, 0.0)
        )


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_sample_of_users_is_exact_if_a_name_is_in_two_partitions(most: int, tmp_path: Path) -> None:
    table = fold(stream()[:600])
    files = [tmp_path / "partition-0003.parquet", tmp_path / "partition-0004.parquet"]
    for file in files:
        pq.write_table(table, file)
    assert len(load(files, 100, most).usual) == most


def test_incidents_of_a_user_are_counted_with_the_highest_risk(tmp_path: Path) -> None:
    risks = {"ann": [75.0, 90.0, 80.0], "bob": [85.0]}
    values = [
        encode(msgspec.structs.replace(incident(user, k), risk=risk))
        for user, some in risks.items()
        for k, risk in enumerate(some)
    ]
    rows = pa.Table.from_batches(batches(3, "incident", value=values))
    result = loaded(pa.concat_tables([fold([]), rows]), tmp_path)
    assert {user: (found.number, found.worst) for (_, user), found in result.incident_risks.items()} == {
        "ann": (3, 90.0),
        "bob": (1, 85.0),
    }


def test_summaries_equal_those_in_plain_python(tmp_path: Path) -> None:
    values = [
        event(START, "ann", source_ip="10.0.0.1", status="failed", threat_score=0.2),
        event(START + HOUR, "ann", source_ip="10.0.0.2", status="success", threat_score=0.6),
        event(START + 2 * HOUR, "ann", "dns_query", source_ip="10.0.0.1", metadata={"geo_location": "DE"}),
        event(START + 3 * HOUR, "bob", "dns_query"),
    ]
    users = users_of(loaded(fold(list(values)), tmp_path))

    assert users.user.tolist() == ["ann", "bob"]
    ann, bob = users.summary
    assert (ann["total_events"], ann["unique_ips"], ann["unique_locations"]) == (3, 2, 1)
    assert (ann["avg_threat_score"], ann["max_threat_score"]) == (pytest.approx(0.4), 0.6)
    assert (ann["failed_auth_rate"], bob["failed_auth_rate"]) == (0.5, 0.0)
    assert (ann["first_seen"], ann["last_seen"]) == (START, START + 2 * HOUR)
    worker = Partition()
    (folded,) = worker.chunks(values)
    assert np.array_equal(users.features, folded.features[[2, 3]])
    assert np.allclose(users.usual[0], folded.features[:3].astype(float).mean(axis=0))
    assert users.usual.shape == (2, len(NAMES))


@pytest.mark.parametrize("count", [1, 40, 63, 64, 65, 5000])
def test_distinct_addresses_are_exact_below_64(count: int, tmp_path: Path) -> None:
    values = [event(START + k, "ann", source_ip=f"10.{k // 250}.{k % 250}.1") for k in range(count)]
    (found,) = users_of(loaded(fold(values + values[: count // 2]), tmp_path)).summary["unique_ips"]

    assert found == count if count < 64 else abs(found / count - 1) < 0.4


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 1, 1, 3], "partition 3: offset 1 came after 1, but the plan is to read the offsets from 0 to 3"),
        ([0, 1, 2, 4], "partition 3: offset 4 came after 2"),
        ([-1, 1, 2, 3], "partition 3: offset -1 came after -1"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 500])
def test_unplanned_offsets_are_refused(offsets: list[int], message: str, chunk: int) -> None:
    with pytest.raises(PlanError, match=message):
        fold(list(habit(4)), offsets=np.array(offsets), chunk=chunk)


def test_offsets_without_a_record_are_counted_as_gaps(tmp_path: Path) -> None:
    values = list(habit(6))
    (counts,) = loaded(fold(values, offsets=np.array([2, 3, 5, 6, 7, 8]), end=12, chunk=2), tmp_path).counts

    assert counts.gaps == [(0, 2), (4, 5), (9, 12)]
    assert counts.missing == 6
    assert counts.records == 6


def test_no_records_and_a_single_record_are_folded(tmp_path: Path) -> None:
    empty = loaded(fold([]), tmp_path)
    assert (len(empty.sample), list(empty.users[3]), empty.incidents) == (0, [], [])
    one = loaded(fold([event(START, None, source_ip="10.0.0.1")]), tmp_path)

    assert empty.counts == [Counts(3, 0, 0)]
    assert (len(one.sample), users_of(one).user.tolist()) == (1, ["\0a10.0.0.1"])
    assert one.sample.source.tolist() == ["10.0.0.1"]


def test_empty_offset_range_keeps_the_earlier_state(tmp_path: Path) -> None:
    first = fold(stream())
    pq.write_table(first, tmp_path / "first.parquet")
    n = len(stream())
    second = fold([], start=n, end=n, earlier=str(tmp_path / "first.parquet"))

    assert of_kind(second, "sample", "user", "state").equals(of_kind(first, "sample", "user", "state"))
    assert of_kind(second, "alert", "incident").num_rows == 0


def test_sample_is_uniform_over_the_offsets_and_compact(tmp_path: Path) -> None:
    sample = loaded(fold(stream(), sampling=Sampling(rows=256)), tmp_path).sample

    assert len(sample) == 256
    assert 500 < sample.offset.mean() < 1060
    assert np.all(np.diff(sample.offset) > 0)
    assert SAMPLED.itemsize < 256


def test_long_texts_are_truncated(tmp_path: Path) -> None:
    values = [
        event(
            START + k,
            "ann",
            chr(97 + k) * 900_000,
            source_ip="203.0.113.9",
            status="failed",
            threat_score=1.0,
        )
        for k in range(20)
    ]
    table = fold(list(values))
    sample = loaded(table, tmp_path).sample

    assert {len(text) for text in sample.event_type} == {256}
    assert of_kind(table, "sample", "alert").nbytes < 100_000
    assert table.nbytes < 3_000_000


def test_only_the_worst_incidents_are_kept() -> None:
    values = list(habit(400))
    for k in range(40):
        late = START + DAY + k * 300_000
        values += [
            event(late + 1000 * j, f"user{k % 20}", source_ip=f"203.0.113.{k}", status="failed")
            for j in range(30 + k)
        ]
    whole, few = Incidents(), Incidents(5)
    for folded in Partition().chunks(values):
        whole.follow(folded)
        few.follow(folded)
        assert len(few.incidents()) <= 10

    assert len(whole.incidents()) > 10
    assert worst_first(few.incidents())[:5] == worst_first(whole.incidents())[:5]


@pytest.mark.parametrize("damaged", [b"", b"?" * 500, None])
def test_damaged_file_of_the_earlier_run_is_reported(damaged: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "earlier.parquet"
    if damaged is None:
        pq.write_table(pa.table({"kind": ["sample"], "value": [b"?"]}), path)
    else:
        path.write_bytes(damaged)

    with pytest.raises(PlanError, match=r"earlier\.parquet, a file of the earlier run, .* --fresh"):
        fold([], earlier=str(path))
