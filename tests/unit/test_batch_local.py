"""The engine without a JVM: what becomes of its processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from streamguard.batch.engines import local
from streamguard.batch.source.offset_range import OffsetRange, PlanError, Records
from streamguard.batch.source.partition_files import FileSource
from streamguard.settings.schema import Settings

LARGE = 100_000
"""Records that are worth a process."""


def _ended(offset_range: OffsetRange, records: Records, settings: Settings, directory: Path) -> None:
    (directory / f"{offset_range.partition}").write_text(f"{os.getpid()}")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_told_in_a_sentence(tmp_path: Path) -> None:
    source = FileSource(str(tmp_path), (LARGE, LARGE))
    ranges = [OffsetRange(partition, 0, LARGE) for partition in (0, 1)]
    with pytest.raises(PlanError, match="a folding process was killed, possibly by the system because memory ran out"):
        local.fold(source, ranges, Settings(), tmp_path, lambda offset_range: None, work=_ended)
    killed = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert killed
    assert os.getpid() not in killed
