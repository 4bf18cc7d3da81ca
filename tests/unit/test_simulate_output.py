"""Output of the simulator: files of events and labels, the pace of live events, and the command."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner, Result

from streamguard.cli.main import main
from streamguard.simulate import SCENARIOS, SimulatedEvent, Simulation
from streamguard.simulate.output import EVENT_FIELDS, open_file
from streamguard.simulate.pace import paced

DAYS = ["--days", "6", "--seed", "2", "--attack", "dns_tunnel", "--attack", "brute_force"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def body_of(row: dict[str, Any]) -> dict[str, Any]:
    """The event that a Parquet row holds."""
    return {name: value for name, value in row.items() if value is not None}


def test_json_lines_hold_the_event_bytes_and_are_reproducible(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        assert invoke(*DAYS, "--output", tmp_path / name).exit_code == 0
    written = (tmp_path / "a.jsonl").read_bytes()
    assert written == (tmp_path / "b.jsonl").read_bytes()
    simulation = Simulation(seed=2, duration_ms=6 * 86_400_000, scenarios=["dns_tunnel", "brute_force"])
    assert written.splitlines() == [event.value for event in simulation]


def test_parquet_holds_the_same_events(tmp_path: Path) -> None:
    invoke(*DAYS, "--output", tmp_path / "events.jsonl")
    invoke(*DAYS, "--output", tmp_path / "events.parquet")
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    rows = parquet.read_table(tmp_path / "events.parquet").to_pylist()
    assert list(rows[0]) == list(EVENT_FIELDS)
    assert [body_of(row) for row in rows] == [msgspec.json.decode(line) for line in lines]


def test_labels_are_written_beside_the_events(tmp_path: Path) -> None:
    invoke(
        *DAYS, "--output", tmp_path / "events.parquet", "--with-labels", "--labels", tmp_path / "labels.jsonl"
    )
    labels = [msgspec.json.decode(line) for line in (tmp_path / "labels.jsonl").read_bytes().splitlines()]
    rows = parquet.read_table(
        tmp_path / "events.parquet", columns=["event_id", "is_attack", "attack_id"]
    ).to_pylist()
    assert {label["campaign"] for label in labels} == {"dns_tunnel-1", "brute_force-1"}
    assert [(label["event_id"], label["campaign"]) for label in labels] == [
        (row["event_id"], row["attack_id"]) for row in rows if row["is_attack"]
    ]
    for label in labels:
        assert label["technique"] == SCENARIOS[label["scenario"]].technique


def test_csv_has_a_column_for_each_field(tmp_path: Path) -> None:
    invoke("--events", 300, "--output", tmp_path / "events.csv", "--with-labels")
    with (tmp_path / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    for row, event in zip(rows, Simulation(events=300), strict=True):
        body = msgspec.json.decode(event.value)
        assert row["event_id"] == event.event_id
        assert row["hostname"] == body["metadata"]["hostname"]
        assert row["is_attack"] == "0"
        assert row["bytes_sent"] == str(body.get("network_details", {}).get("bytes_sent", ""))


def test_events_and_start_options_are_applied(tmp_path: Path) -> None:
    result = invoke("--events", 50, "--start", "2024-02-29T12:00:00+01:00", "--output", tmp_path / "e.jsonl")
    assert "50 events" in result.output
    (line, *others) = (tmp_path / "e.jsonl").read_bytes().splitlines()
    assert len(others) == 49
    assert 0 <= msgspec.json.decode(line)["timestamp"] - 1_709_204_400_000 < 3_600_000


def test_attack_all_adds_one_campaign_of_each_scenario(tmp_path: Path) -> None:
    result = invoke("--days", 30, "--events-per-day", 5, "--attack", "all", "--output", tmp_path / "e.jsonl")
    assert result.exit_code == 0
    for name in SCENARIOS:
        assert f"{name}-1 ({SCENARIOS[name].technique}): " in result.output


def test_list_shows_every_scenario() -> None:
    result = invoke("--list")
    for scenario in SCENARIOS.values():
        assert f"{scenario.name} " in result.output
        assert scenario.description in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.jsonl"], "give --events, --duration or --days"),
        (["--output", "x.txt", "--events", "1"], "must end in .jsonl, .parquet or .csv"),
        (["--output", "x.jsonl", "--events", "1", "--with-labels"], "JSON lines hold no labels"),
        (["--output", "missing/x.jsonl", "--events", "1"], "cannot write missing/x.jsonl"),
        (["--events", "1", "--with-labels"], "--with-labels needs --output"),
        (["--days", "1", "--duration", "5m"], "--days and --duration contradict each other"),
        (["--duration", "soon"], "'soon' is not a duration: write 90s, 15m, 2h or 30d"),
        (["--start", "monday"], "'monday' is not a time"),
        (["--attack", "x", "--events", "1", "--output", "x.jsonl"], "unknown scenario 'x'"),
    ],
)
def test_invalid_options_are_explained(arguments: list[str], message: str) -> None:
    runner = CliRunner()
    with runner.isolated_filesystem():
        result = runner.invoke(main, ["simulate", *arguments])
    assert result.exit_code in (2, 73)
    assert message in result.output
    assert "Traceback" not in result.output


def test_unknown_file_suffix_is_refused_by_the_library(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in"):
        open_file(tmp_path / "x.avro")


class FakeTime:
    """A clock that advances only by sleeping; drawing a block takes time, too."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds

    def slowly(
        self, blocks: Iterator[list[SimulatedEvent]], seconds: float
    ) -> Iterator[list[SimulatedEvent]]:
        for block in blocks:
            self.seconds += seconds
            yield block


@pytest.mark.parametrize("rate", [20.0, 1000.0, 20_000.0])
def test_live_events_are_sent_on_time_in_small_slices(rate: float) -> None:
    simulation = Simulation(users=50, rate=rate, duration_ms=2000)
    clock = FakeTime(simulation.start_ms / 1000)
    sent = []
    for slice_ in paced(clock.slowly(simulation.blocks(), 0.0005), now=clock.now, sleep=clock.sleep):
        for event in slice_:
            late = clock.seconds * 1000 - event.timestamp
            assert 0 <= late <= 5
            sent.append(event)
    assert sent == list(simulation)


def test_time_shift_keeps_the_pace_of_past_events() -> None:
    simulation = Simulation(users=50, rate=500.0, duration_ms=1000)
    clock = FakeTime(simulation.start_ms / 1000 + 1e6)
    for slice_ in paced(simulation.blocks(), now=clock.now, sleep=clock.sleep, shift_seconds=1e6):
        assert all(0 <= (clock.seconds - 1e6) * 1000 - event.timestamp <= 5 for event in slice_)
    assert clock.seconds - 1e6 - simulation.start_ms / 1000 == pytest.approx(1.0, abs=0.1)
