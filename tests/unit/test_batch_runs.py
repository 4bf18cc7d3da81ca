"""Runs appear complete or not at all, one at a time, and `latest` always points to a run."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from streamguard.batch.runs import BusyError, Run, Runs
from streamguard.errors import CannotWriteError


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "some" / "runs")


def written(runs: Runs, text: str = "whole", continues: str | None = None) -> str:
    with runs.begin() as run:
        (run.directory / "deep").mkdir()
        (run.directory / "deep" / "result").write_text(text)
        (run.directory / "anomaly_report.json").write_text(json.dumps({"continues": continues, "more": 1}))
        runs.publish(run)
    return run.id


def test_missing_or_empty_directory_has_no_runs(runs: Runs, tmp_path: Path) -> None:
    for empty in (runs, Runs(tmp_path)):
        assert empty.latest() is None
        assert empty.published() == []
        assert empty.prune(1) == []


def test_run_is_invisible_until_it_is_published(runs: Runs) -> None:
    with runs.begin() as run:
        (run.directory / "result").write_text("half")
        assert runs.latest() is None
        assert runs.published() == []
        path = runs.publish(run)
    assert path.name == run.id
    assert runs.latest() == path
    assert (path / "result").read_text() == "half"


def test_failed_run_leaves_nothing(runs: Runs) -> None:
    first = written(runs)
    with pytest.raises(ZeroDivisionError), runs.begin() as run:
        (run.directory / "result").write_text("half")
        raise ZeroDivisionError
    assert runs.published() == [first]
    assert sorted(path.name for path in runs.directory.iterdir()) == [".lock", first, "latest"]


def test_ids_sort_by_time_and_latest_is_a_relative_link(runs: Runs) -> None:
    ids = [written(runs, str(k)) for k in range(3)]
    assert runs.published() == sorted(ids)
    assert str((runs.directory / "latest").readlink()) == ids[-1]
    assert (runs.directory / "latest" / "deep" / "result").read_text() == "2"


def test_second_concurrent_run_is_refused_and_the_first_continues(runs: Runs) -> None:
    with runs.begin() as run:
        with pytest.raises(BusyError, match=r"another run is writing to .*wait until it ends"):
            runs.begin()
        assert run.directory.is_dir()
        runs.publish(run)
    written(runs)


def test_remains_of_a_killed_run_are_removed(runs: Runs) -> None:
    code = (
        "import os, sys; from streamguard.batch.runs import Runs; run = Runs(sys.argv[1]).begin();"
        "(run.directory / 'result').write_text('half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(runs.directory)], check=False)
    assert killed.returncode == -9
    assert len(list(runs.directory.glob(".*.partial"))) == 1
    with runs.begin() as run:
        assert list(runs.directory.glob(".*.partial")) == [run.directory]
    assert runs.published() == []


def test_pruning_keeps_the_latest_run_and_the_one_it_continues(runs: Runs) -> None:
    ids = [written(runs) for _ in range(4)]
    ids.append(written(runs, continues=ids[1]))
    assert runs.prune(10) == []
    assert runs.prune(2) == [ids[0], ids[2]]
    assert runs.published() == [ids[1], ids[3], ids[4]]
    assert runs.prune(1) == [ids[3]]
    assert runs.latest() == runs.directory / ids[4]


def test_pruning_leaves_other_files_unchanged(runs: Runs) -> None:
    first = written(runs)
    second = written(runs)
    for name in ("notes", "20260101", f"{first}.bak"):
        (runs.directory / name).mkdir()
    assert runs.prune(1) == [first]
    assert sorted(p.name for p in runs.directory.iterdir()) == sorted(
        [".lock", "20260101", f"{first}.bak", second, "latest", "notes"]
    )


@pytest.mark.parametrize("report", [b"", b"[]", b"{", b'{"continues": 3}', b"\xff"])
def test_damaged_report_does_not_stop_pruning(runs: Runs, report: bytes) -> None:
    ids = [written(runs), written(runs)]
    (runs.directory / ids[-1] / "anomaly_report.json").write_bytes(report)
    assert runs.prune(1) == [ids[0]]


def test_broken_latest_link_means_the_newest_run(runs: Runs) -> None:
    older, newest = written(runs), written(runs)
    latest = runs.directory / "latest"
    for target in ("20260101T000000000000Z-ffff", "..", "/"):
        latest.unlink()
        latest.symlink_to(target)
        assert runs.latest() == runs.directory / newest
    latest.unlink()
    assert runs.latest() == runs.directory / newest
    latest.symlink_to(older)
    assert runs.latest() == runs.directory / older
    latest.unlink()
    latest.mkdir()  # a copy without links has a directory there
    assert runs.latest() == runs.directory / newest
    written(runs)
    assert runs.latest() == runs.directory / runs.published()[-1] != runs.directory / newest


def test_a_file_system_without_links_loses_no_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    older = written(runs)

    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(Path, "symlink_to", unsupported)
    newer = written(runs)
    assert runs.published() == [older, newer]
    assert not (runs.directory / "latest").is_symlink()
    assert runs.latest() == runs.directory / newer
    assert runs.prune(1) == [older]


def test_unwritable_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError, match=r"cannot write runs to .*file"):
        Runs(tmp_path / "file").begin()


def test_readers_always_find_a_complete_latest_run(runs: Runs) -> None:
    written(runs)
    done = threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not done.is_set():
            seen.append((runs.directory / "latest" / "deep" / "result").read_text())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(30):
            written(runs)
    finally:
        done.set()
        reader.join()
    assert set(seen) == {"whole"}


def test_latest_is_a_complete_run_after_every_step(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(runs)
    seen: list[str] = []

    def watched(call: Any) -> Any:
        def checked(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            link = runs.directory / "latest"
            complete = (link / "deep" / "result").exists()
            seen.append(str(link.readlink()) if complete else f"nothing after {arguments}")
            return result

        return checked

    for name in ("rename", "replace", "unlink", "symlink", "remove"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    second = written(runs)
    assert sorted(set(seen), key=seen.index) == [first, second]


def test_everything_is_on_the_disk_before_it_is_visible(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    written(runs)
    steps: list[tuple[str, str]] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(handle: int) -> None:
        fsync(handle)
        steps.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", lambda a, b: (rename(a, b), steps.append(("rename", str(b)))))
    monkeypatch.setattr(os, "replace", lambda a, b: (replace(a, b), steps.append(("rename", str(b)))))
    with runs.begin() as run:
        (run.directory / "deep").mkdir()
        (run.directory / "deep" / "result").write_text("whole")
        inside = {str(path) for path in (run.directory, *run.directory.rglob("*"))}
        target = runs.publish(run)

    visible = steps.index(("rename", str(target)))
    assert {path for kind, path in steps[:visible] if kind == "sync"} == inside
    assert steps[visible + 1 :] == [
        ("sync", str(runs.directory)),
        ("rename", str(runs.directory / "latest")),
        ("sync", str(runs.directory)),
    ]


def test_closing_twice_does_not_release_another_lock(runs: Runs) -> None:
    run: Run = runs.begin()
    run.close()
    with runs.begin():
        run.close()
        with pytest.raises(BusyError):
            runs.begin()
