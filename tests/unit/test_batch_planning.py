"""A retrain checks its input before it creates anything."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamguard.batch.planning import Request, check_input
from streamguard.batch.source.offset_range import OffsetRange
from streamguard.batch.source.partition_files import lay_out
from streamguard.cli.main import main
from streamguard.runs import archive_manifest
from tests.streams import START, event


@pytest.mark.parametrize(
    ("input", "options", "message"),
    [
        ("nosuch", [], "nosuch: the name must end in .jsonl, .ndjson, .json, .csv, .parquet; otherwise give --format"),
        ("nosuch.jsonl", [], "cannot read nosuch.jsonl: No such file or directory"),
        ("nosuch.csv", [], "cannot read nosuch.csv: No such file or directory"),
        ("empty", [], "empty: no file in it ends in .jsonl, .ndjson, .json, .csv, .parquet"),
        ("-", ["--since", "0:7"], "files have no offsets: give --since and --until as times"),
        ("damaged", [], f"damaged/{archive_manifest.NAME} is damaged"),
    ],
)  # fmt: skip
def test_invalid_input_is_refused_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, input: str, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / archive_manifest.NAME).write_text('{"format": "streamguard-archive-1"')
    asked = ["retrain", "--engine", "local", "--output", "runs", "--input", input, *options]
    ran = CliRunner().invoke(main, asked)

    assert ran.exit_code == 65
    assert ran.stderr.startswith(f"Error: {message}")
    assert not (tmp_path / "runs").exists()


def test_checking_leaves_a_pipe_to_its_reader(tmp_path: Path) -> None:
    pipe = tmp_path / "events.jsonl"
    os.mkfifo(pipe)
    check_input(Request(str(pipe)))
    writer = threading.Thread(target=pipe.write_bytes, args=(event(START, "ann"),))
    writer.start()
    source = lay_out(str(pipe), tmp_path / "out", partitions=1)
    writer.join()

    assert [value for chunk in source.records(OffsetRange(0, 0, 1)) for value in chunk.values] == [
        event(START, "ann")
    ]
