"""The local engine without a JVM: an error if one of its processes is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from streamguard.batch.engines import local
from streamguard.batch.source.offset_range import OffsetRange, Records
from streamguard.batch.source.partition_files import FileSource
from streamguard.settings.schema import Settings

LARGE = 100_000
"""Number of records that justifies a process of its own."""


def _ended(offset_range: OffsetRange, records: Records, settings: Settings, directory: Path) -> None:
    (directory / f"{offset_range.partition}").write_text(f"{os.getpid()}")
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_process_ends_the_fold_with_one_message(tmp_path: Path) -> None:
    source = FileSource(str(tmp_path), (LARGE, LARGE))
    ranges = [OffsetRange(partition, 0, LARGE) for partition in (0, 1)]
    with pytest.raises(
        local.ProcessKilledError,
        match="a folding process was killed, possibly by the system because memory ran out",
    ):
        local.fold(source, ranges, Settings(), tmp_path, lambda offset_range: None, work=_ended)
    killed = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert killed
    assert os.getpid() not in killed
