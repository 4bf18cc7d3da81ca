"""Files whose newest row comes first are reported with the remedy, by every command that reads files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from streamguard.cli.main import main
from streamguard.events.event import parse
from streamguard.history.order import RowOrder
from tests.streams import START, event, habit


def order(values: list[bytes], batch: int = 7) -> RowOrder:
    found = RowOrder()
    for k in range(0, len(values), batch):
        found.add(parse(list(values[k : k + batch]))[0])
    return found


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_only_an_order_in_which_most_events_go_back_is_reported(batch: int) -> None:
    values = habit(60)
    late = [*values[:30], *reversed(values[30:45]), *values[45:]]
    for fine in ([], values, values[:1], late, [event(START, "a")] * 40):
        assert order(fine, batch).warning("x") is None
    said = order(values[::-1], batch).warning("x.jsonl")
    assert said is not None and said.startswith("59 of 60 events in x.jsonl are dated before")


@pytest.mark.parametrize("command", ["replay", "evaluate"])
def test_newest_first_is_reported_on_standard_error(command: str, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    file.write_bytes(b"\n".join(event(START - k * 60_000, f"u{k % 3}", attack=k == 90) for k in range(100)))
    more = ["--label", "attack"] if command == "evaluate" else []
    outcome = CliRunner().invoke(main, [command, str(file), *more])

    assert outcome.exit_code == 0, outcome.output
    assert "99 of 100 events in" in outcome.stderr and "Sort the rows by time" in outcome.stderr
    assert "Sort the rows" not in outcome.stdout
