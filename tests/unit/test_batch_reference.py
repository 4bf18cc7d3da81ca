"""A retrain, run after run, gives the numbers that plain Python gives: exported columns, users, sample and totals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from streamguard.batch import job, planning
from streamguard.batch.folding.bottom_k import BottomKSample
from streamguard.batch.planning import Request
from streamguard.batch.source.offset_range import OffsetRange, RecordChunk, Records
from streamguard.models.registry import Registry, registry_settings
from streamguard.runs import report as batch_report
from streamguard.runs.directory import REPORT
from streamguard.settings.schema import Settings
from tests.reference_batch import ReferenceBatch
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event

Log = dict[int, dict[int, bytes | None]]
"""Values by partition and offset."""


@dataclass(frozen=True)
class MemorySource:
    """A topic in memory, up to the given ends."""

    log: Log
    ends: Mapping[int, int]
    kind: str = "kafka"

    def identity(self) -> dict[str, Any]:
        return {"topic": "events", "topic_id": "1"}

    def hash_keys(self) -> dict[int, bytes]:
        return {}

    def bounds(self) -> dict[int, tuple[int, int]]:
        return {partition: (0, end) for partition, end in self.ends.items()}

    def at_time(self, ms: int) -> dict[int, int]:
        raise NotImplementedError

    def records(self, offset_range: OffsetRange) -> Records:
        own = self.within(offset_range.partition, offset_range.start, offset_range.end)
        for a in range(0, len(own), 211):
            part = own[a : a + 211]
            yield RecordChunk(np.array([offset for offset, _ in part]), [value for _, value in part])

    def nothing_between(self, partition: int, start: int, end: int) -> bool:
        return not self.within(partition, start, end)

    def within(self, partition: int, start: int, end: int) -> list[tuple[int, bytes | None]]:
        return sorted((o, v) for o, v in self.log[partition].items() if start <= o < end)


def history(partition: int) -> dict[int, bytes | None]:
    """Events of a partition: shuffled within hours, some days late, with bad records and offsets without a record."""
    random = np.random.default_rng(partition)
    values: list[bytes | None] = []
    for k in range(900):
        user = int(random.integers(12))
        late = int(random.choice([0, 0, 0, 5 * MINUTE, 3 * HOUR, 2 * DAY]))
        kind = str(random.choice(["auth_attempt", "dns_query", "file_access"], p=[0.6, 0.3, 0.1]))
        fields: dict[str, Any] = {"source_ip": f"10.{user}.0.{int(random.integers(3))}"}
        if random.random() < 0.7:
            fields["threat_score"] = round(float(random.random()), 3)
        if random.random() < 0.5:
            fields["metadata"] = {"geo_location": f"DE-{int(random.integers(4))}"}
        if kind == "auth_attempt":
            fields["status"] = "failed" if random.random() < 0.1 else "success"
        stamp = START + k * 12 * MINUTE + int(random.integers(HOUR)) - late
        values.append(event(stamp, f"user{user}", kind, **fields))
    for many, user in ((63, "few"), (64, "more"), (150, "many")):
        for k in range(many):
            values.append(event(START + 5 * DAY + k * MINUTE, user, source_ip=f"172.16.{many}.{k}"))
            values.append(event(START + 6 * DAY + k * MINUTE, user, source_ip=f"172.16.{many}.{k // 2}"))
    late_attack = START + 7 * DAY
    for k in range(80):
        values.append(
            event(late_attack + 1000 * k, f"user{partition}", source_ip="203.0.113.9", status="failed")
        )
    values += [b"?", None, b"{}", b"[1]", event(1, "ann")]
    for k, status in enumerate(("pending", "pending", "odd\x1b[2J", None, 7)):
        values.append(
            event(
                START + DAY,
                "odd",
                status=status,
                source_ip=f"host-{k}",
                metadata={"geo_location": "Atlantis"},
            )
        )
    for k in range(40):  # sources of events without a user, one of them with a login that its type fails
        kind = "login_failed" if k == 0 else "dns_query"
        values.append(
            event(START + 3 * DAY + k * HOUR, "-" if k % 2 else None, kind, source_ip=f"192.0.2.{k % 3}")
        )
    ordered = [values[k] for k in np.argsort(np.arange(len(values)) + random.integers(0, 120, len(values)))]
    return {offset + offset // 50: value for offset, value in enumerate(ordered)}


@pytest.fixture(scope="module")
def log() -> Log:
    return {partition: history(partition) for partition in (0, 1, 4)}


def settings(output: Path, **sampling: int) -> Settings:
    return msgspec.convert(
        {
            "batch": {"engine": "local", "output": str(output)},
            "sampling": sampling,
            "training": {"trees": 40},
        },
        Settings,
    )


RUNS = (0.1, 0.35, 0.35, 1.0)
"""The share of the log that each run has read; the third finds nothing new."""


@pytest.mark.parametrize(
    ("algorithm", "sampling"),
    [
        ("both", {"rows": 400, "alerts": 20, "rows_per_user": 30}),
        ("isolation_forest", {"rows": 100_000, "alerts": 10_000}),
        ("kmeans", {"rows": 256, "alerts": 1}),
    ],
)
def test_retrains_equal_the_reference(
    algorithm: Any, sampling: dict[str, int], log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(tmp_path / "runs", **sampling)
    reference = ReferenceBatch(chosen.sampling, chosen.detection)
    read = dict.fromkeys(log, 0)
    for share in RUNS:
        ends = {partition: int(share * (max(values) + 1)) for partition, values in log.items()}
        source = MemorySource(log, ends)
        monkeypatch.setattr(planning, "_open_source", lambda *_, source=source: source)
        outcome = job.retrain(chosen, Request(algorithm=algorithm), lambda _: None)
        reference.run({p: dict(source.within(p, read[p], ends[p])) for p in log})
        read = ends

        run = Path(outcome.directory)
        report = batch_report.decode((run / REPORT).read_bytes())
        forest = None
        if outcome.version is not None:
            forest = Registry.of(registry_settings(chosen)).load(outcome.version)
        else:
            assert algorithm == "kmeans" or share == RUNS[0]
        check_training_data(run, reference.training_rows(forest))
        peer_bits = check_users(run, reference, forest)
        totals = msgspec.to_builtins(report.totals)
        expected = reference.totals(forest, peer_bits)
        assert totals.pop("trimmed_share") == pytest.approx(expected.pop("trimmed_share"), abs=1e-12)
        if forest is None:
            del totals["training_rows"], expected["training_rows"]
        assert totals == expected
        check_report(report, reference, forest, peer_bits)


def check_training_data(run: Path, expected: list[dict[str, Any]]) -> None:
    frame = pd.read_parquet(run / "training_data").sort_values(["partition", "offset"], ignore_index=True)
    assert frame.pop("anomaly").astype(int).tolist() == [row["is_anomaly"] for row in expected]
    check_rows(rows(frame), expected)


def check_users(run: Path, reference: ReferenceBatch, forest: Any) -> dict[tuple[int, str], float]:
    """Compare the exported users, and return their bits of peer groups."""
    frame = pd.read_parquet(run / "features").sort_values(["partition", "user"], ignore_index=True)
    peers = frame[["peer_group", "peer_distance", "peer_bits", "small_group"]]
    frame = frame.drop(columns=list(peers.columns))
    bits = {
        (partition, user): 0.0 if math.isnan(value) else value
        for partition, user, value in zip(
            frame["partition"].tolist(), frame["user"].tolist(), peers["peer_bits"].tolist(), strict=True
        )
    }
    check_rows(rows(frame), reference.user_rows(forest, bits))
    return bits


def check_rows(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare row by row and name the first difference; pytest would compare the whole tables for minutes."""
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs)
        differences = [(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]]
        assert not differences, (ours["partition"], ours.get("offset", ours["user"]), differences[:3])


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as Python values; times are epoch milliseconds."""
    columns = {}
    for name in frame.columns:
        cells = frame[name]
        if isinstance(cells.dtype, pd.DatetimeTZDtype):
            cells = cells.astype("datetime64[ms, UTC]").astype("int64")
        columns[name] = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells.tolist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_report(report: Any, reference: ReferenceBatch, forest: Any, bits: Mapping[Any, float]) -> None:
    users = [row for row in reference.user_rows(forest, bits) if row["evidence_bits"] > 0]
    users.sort(key=lambda row: (-row["evidence_bits"], row["partition"], row["user"]))
    assert [
        (u.user, u.partition, u.risk, u.evidence_bits, u.at_risk, u.total_events, u.unique_ips, u.failed_auth_rate)
        for u in report.users
    ] == [
        (
            row["user"], row["partition"], row["risk"], round(row["evidence_bits"], 2), row["is_anomaly"],
            row["total_events"], row["unique_ips"], row["failed_auth_rate"],
        )
        for row in users[:50]
    ]  # fmt: skip
    for part in report.ranges:
        new = [reference.events[place] for place in reference.new if place[0] == part.partition]
        assert (part.events, part.alerted) == (len(new), sum(seen.alerted for seen in new))
        assert part.end - part.start == part.records + part.missing
    sampled = [row["evidence_bits"] for row in reference.training_rows(forest) if row["is_sampled"]]
    width = report.distribution.width
    counts = [0] * len(report.distribution.events)
    for evidence in sampled:
        counts[int(evidence // width)] += 1
    assert report.distribution.events == counts


@pytest.mark.parametrize("chunk", [1, 3, 40])
@pytest.mark.parametrize("limit", [1, 7, 25])
def test_sample_keeps_the_smallest_keys_and_of_equal_keys_the_smaller_offsets(chunk: int, limit: int) -> None:
    values = [event(START + k * MINUTE, f"user{k % 3}", source_ip=f"10.0.0.{k}") for k in range(40)]
    keys = np.random.default_rng(limit).integers(0, 4, 40).astype(float)
    parts = [BottomKSample(limit), BottomKSample(limit)]
    for number, folded in enumerate(Partition().chunks(values, chunk=chunk)):
        offsets = np.arange(number * chunk, number * chunk + folded.count)
        half = parts[int(offsets[0] >= 20)]
        half.offer(keys[offsets], offsets, folded, np.arange(folded.count))
    merged = BottomKSample(limit)
    for part in parts:
        merged.restore(*part.rows())
    kept, texts = merged.rows()
    expected = sorted(sorted(range(40), key=lambda k: (keys[k], k))[:limit])
    assert kept["offset"].tolist() == expected
    assert kept["key"].tolist() == keys[expected].tolist()
    assert texts[:, 0].tolist() == [f"user{k % 3}" for k in expected]
    assert texts[:, 2].tolist() == [f"10.0.0.{k}" for k in expected]
