"""A copy of a changelog partition: readers see whole checkpoints only, and a copy that does not fit is built again."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.fold.dimensions import VERSION
from streamguard.serving.log.reader import Bounds
from streamguard.serving.replica import partition_copy
from streamguard.serving.replica.partition_copy import NotReadyError, Origin, PartitionCopy
from streamguard.state.store import COMPLETE_KEY, LOCAL, StoreMemory
from tests.changelogs import Change, Changelog, State

MEMORY = StoreMemory(8 << 20)


def opened(path: Path, log: Changelog, topic_id: str = "id", partitions: int = 4) -> PartitionCopy:
    return PartitionCopy(path, 0, topic_id, partitions, log.bounds, MEMORY)


def read(copy: PartitionCopy, log: Changelog, count: int = 10**6) -> None:
    """Read at most `count` records."""
    records, last = log.after(copy.position, count)
    copy.add(records)
    if last:
        copy.reach_end(log.end)


def checkpoint(number: int, *changes: Change) -> list[Change]:
    return [*changes, (b"m", b"%d" % number)]


def contents(copy: PartitionCopy) -> State | None:
    """What readers see; None if they see nothing."""
    return copy.contents() if copy.ready else None


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "copy"


_value = st.one_of(st.none(), st.binary(min_size=1, max_size=2))
_changes = st.lists(st.tuples(st.sampled_from([b"ua", b"ub", b"uc", b"ud", b"p", b"f1"]), _value), max_size=6)
_deletions = st.lists(st.tuples(st.sampled_from([b"ua", b"ub"]), st.none()), max_size=2)
_steps = st.one_of(
    st.tuples(st.just("checkpoint"), _changes, _deletions),
    st.tuples(st.just("checkpoint"), _changes, _deletions),
    st.tuples(st.just("forget"), st.sampled_from([b"ua", b"ub"])),
    st.tuples(st.just("abort"), st.integers(1, 3)),
    st.tuples(st.just("compact"), st.integers(0, 6)),
    st.tuples(st.just("read"), st.integers(1, 5)),
    st.tuples(st.just("read"), st.sampled_from([1, 3, 100])),
    st.tuples(st.just("restart")),
)


@settings(max_examples=200)
@given(st.lists(_steps, min_size=5, max_size=40), st.sampled_from([1, 600, 32 << 20]))
def test_readers_see_exact_states_only_wherever_the_log_is_cut_and_compacted(
    steps: list[tuple[Any, ...]], buffer_bytes: int
) -> None:
    with directory() as path, pytest.MonkeyPatch.context() as patched:
        patched.setattr(partition_copy, "BUFFER_BYTES", buffer_bytes)
        patched.setattr(partition_copy, "LOAD_BYTES", min(buffer_bytes, 1000))
        log = Changelog()
        copy = opened(path, log)
        seen = 0
        for number, step in enumerate(steps):
            if step[0] == "checkpoint":
                log.commit([*checkpoint(number, *step[1]), *step[2]])
            elif step[0] == "forget":
                log.commit([(step[1], None)])
            elif step[0] == "abort":
                log.abort(step[1])
            elif step[0] == "compact":
                log.compact(log.end - step[1])
            elif step[0] == "read":
                read(copy, log, step[1])
            else:
                copy.close()
                copy = opened(path, log)
            visible = contents(copy)
            if visible is not None:
                assert visible in log.exact[seen:], (
                    "not a state that the log had, or an older one than before"
                )
                seen += log.exact[seen:].index(visible)
        read(copy, log)
        assert contents(copy) == log.exact[-1]
        copy.close()
        with directory() as other:
            rebuilt = opened(other, log)
            read(rebuilt, log)
            assert rebuilt.contents() == log.exact[-1]
            rebuilt.close()


def test_checkpoint_without_its_end_is_invisible(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1"), (b"ub", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    log.commit(checkpoint(2, (b"ua", b"2"), (b"ub", None)))
    read(copy, log, 2)
    assert contents(copy) == {b"ua": b"1", b"ub": b"1", b"m": b"1"}
    read(copy, log, 1)
    assert contents(copy) == {b"ua": b"2", b"m": b"2"}
    copy.close()


def test_checkpoint_is_applied_although_the_log_never_ends(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(0, (b"ua", b"0")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    for number in range(1, 6):
        log.commit([*checkpoint(number, (b"ua", b"%d" % number)), (b"ux", None), (b"uy", None)])
    log.commit([(b"un", b"1")])
    while len(log.after(copy.position, 10**6)[0]) > 1:
        read(copy, log, 1)
    assert copy.checkpoints == 6
    assert contents(copy) == {b"ua": b"5", b"m": b"5"}
    copy.close()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("between", [[], [(b"ud", b"1")], [(b"ud", b"1"), (b"m", b"1")]])
def test_checkpoint_that_compaction_has_thinned_out_is_held_back(
    tmp_path: Path, place: int, between: list[Change], restarted: bool
) -> None:
    """A segment that was compacted ends within the last checkpoint, so that the one before lacks a value."""
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1"), (b"ub", b"1"), (b"uc", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    if between:
        log.commit(between)
    before = [None, *log.exact[1:]]
    log.commit(checkpoint(2, (b"ua", b"2"), (b"ub", b"2"), (b"uc", b"2")))
    read(copy, log, len(between))
    log.commit(checkpoint(3, ([b"ua", b"ub", b"uc"][place], b"3")))
    log.compact(log.end - 2)
    if restarted:
        copy.close()
        copy = opened(tmp_path / "copy", log)
    while log.after(copy.position, 10**6)[0]:
        last = len(log.after(copy.position, 10**6)[0]) == 1
        read(copy, log, 1)
        assert copy.contents() in log.exact and (last or contents(copy) in before)
    assert contents(copy) == log.exact[-1]
    copy.close()


def test_forgotten_user_disappears_without_a_further_checkpoint(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1"), (b"ub", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    log.commit([(b"ub", None)])
    read(copy, log)
    assert contents(copy) == {b"ua": b"1", b"m": b"1"}
    copy.close()


def test_copy_is_not_ready_before_the_end_of_the_log(tmp_path: Path) -> None:
    log = Changelog()
    for number in range(3):
        log.commit(checkpoint(number, (b"ua", b"%d" % number)))
    copy = opened(tmp_path / "copy", log)
    read(copy, log, 5)
    assert not copy.ready
    with pytest.raises(NotReadyError), copy.snapshot():
        pass
    read(copy, log)
    assert copy.ready
    copy.close()


def test_changes_beyond_the_buffer_are_written_but_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    monkeypatch.setattr(partition_copy, "BUFFER_BYTES", 1000)
    log.commit(checkpoint(2, *((b"u%03d" % n, b"2") for n in range(50))))
    log.commit([(b"un", b"1")])
    read(copy, log, 40)
    assert not copy.ready and b"u000" in copy.contents()
    read(copy, log, 11)
    assert copy.ready and len(copy.contents()) == 52, "the end of the checkpoint makes the state exact again"
    copy.close()


def test_reopened_copy_continues_where_it_was(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    log.commit(checkpoint(2, (b"ua", b"2")))
    read(copy, log, 1)
    copy.close()
    copy = opened(tmp_path / "copy", log)
    assert copy.position == 3 and not copy.rebuilt, (
        "the open checkpoint is read again, its predecessor is not"
    )
    assert copy.contents() == {b"ua": b"1", b"m": b"1"}
    read(copy, log)
    assert contents(copy) == {b"ua": b"2", b"m": b"2"} and copy.applied == 2
    copy.close()


def _altered(path: Path, log: Changelog, **origin: Any) -> None:
    copy = opened(path, log)
    copy._origin = msgspec.structs.replace(copy._origin, **origin)
    copy._write([], copy._origin)
    copy._store.close()


def test_copy_that_does_not_fit_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1"), (b"ub", b"1")))
    path = tmp_path / "copy"

    def filled() -> None:
        copy = opened(path, log)
        read(copy, log)
        copy.close()

    def reopened(reason: str, log: Changelog = log, **options: Any) -> None:
        copy = opened(path, log, **options)
        assert reason in copy.rebuilt
        assert copy.position == log.start and copy.contents() == {} and not copy.ready
        copy.close()

    filled()
    reopened("is of another changelog (id id, now other)", topic_id="other")
    filled()
    reopened("with 4 partitions, which now has 5", partitions=5)
    filled()
    _altered(path, log, layout=VERSION - 1)
    reopened(f"layout {VERSION - 1}")
    filled()
    _altered(path, log, exact=False)
    reopened("is unfinished")
    filled()
    shorter = Changelog()
    reopened("has reached offset 4, and the changelog has the offsets 0 to 0", shorter)
    filled()
    later = Changelog(start=9)
    reopened("has reached offset 4, and the changelog has the offsets 9 to 9", later)
    filled()
    (path / "DAMAGED").touch()
    reopened("is damaged")
    filled()
    now = partition_copy.now_ms()
    monkeypatch.setattr(partition_copy, "now_ms", lambda: now + partition_copy.MAX_AGE_MS + 60_000)
    reopened("so old that it may have missed the deletion")


def test_changelog_without_its_beginning_is_not_served_until_it_is_repaired(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1"), (b"ub", b"1")))
    log.commit(checkpoint(2, (b"ua", b"2")))
    log.delete(before=4)
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    assert not copy.ready
    end = b"%d" % log.end
    log.commit([(b"m", b"2"), (b"ua", b"2")])
    read(copy, log)
    assert not copy.ready
    log.commit([(b"ub", b"1"), (COMPLETE_KEY, end)])
    read(copy, log)
    assert contents(copy) == {b"ua": b"2", b"ub": b"1", b"m": b"2"}
    copy.close()


def test_copy_of_a_whole_changelog_is_served_while_a_worker_repairs(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1"), (b"ub", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    log.delete(before=2)
    log.commit([(b"m", b"1"), (b"ua", b"1")])
    read(copy, log)
    assert contents(copy) == {b"ua": b"1", b"ub": b"1", b"m": b"1"}
    copy.close()


def test_snapshot_holds_back_the_next_checkpoint(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (b"ua", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    log.commit(checkpoint(2, (b"ua", b"2")))
    applying = threading.Thread(target=read, args=(copy, log))
    with copy.snapshot() as values:
        assert values([b"ua"]) == [b"1"]
        applying.start()
        applying.join(0.3)  # gives a copy without a lock the time to be wrong
        assert values([b"m", b"ua"]) == [b"1", b"1"]
    applying.join()
    assert contents(copy) == {b"ua": b"2", b"m": b"2"}
    copy.close()


def test_keys_of_the_copy_cannot_be_overwritten_by_the_log(tmp_path: Path) -> None:
    log = Changelog()
    log.commit(checkpoint(1, (LOCAL, b"{}"), (partition_copy.ORIGIN_KEY, b"{}"), (b"ua", b"1")))
    copy = opened(tmp_path / "copy", log)
    read(copy, log)
    copy.add([log.records[0]._replace(offset=log.end, key=None)])
    assert copy.ignored == 1
    copy.close()
    log.end += 1
    copy = opened(tmp_path / "copy", log)
    assert not copy.rebuilt and copy.contents() == {b"ua": b"1", b"m": b"1"}
    assert copy._origin == Origin(4, VERSION, 0, exact=True)
    copy.close()


def test_closed_copy_answers_that_it_is_not_ready(tmp_path: Path) -> None:
    log = Changelog()
    copy = PartitionCopy(tmp_path / "copy", 0, "id", 1, Bounds(0, 0), MEMORY)
    read(copy, log)
    assert copy.ready
    copy.close()
    copy.close()
    with pytest.raises(NotReadyError), copy.snapshot():
        pass
