"""Parts of a worker that do not need Kafka."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition
from click.testing import CliRunner

from streamguard.agents.process import worker
from streamguard.agents.task.changelog import CommittedReader
from streamguard.agents.task.checkpoint import Checkpointer
from streamguard.cli.main import main
from streamguard.errors import ExitCode, TemporaryError
from streamguard.kafka import topics
from streamguard.logs import JsonFormatter, TextFormatter
from streamguard.settings.schema import Settings, Worker
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.store import ChangelogPosition, StateStore, StoreMemory

IDENTITY = StateIdentity("app", 0, TopicIdentity("events", "s"), "id")


def test_state_store_keeps_values_and_offset_together(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "t", StoreMemory(8 << 20))
    assert store.local is None
    store.write([(b"a", b"1"), (b"b", b"2")], ChangelogPosition("id", 7))
    store.write([(b"a", b"3")], ChangelogPosition("id", 9))
    store.close()
    again = StateStore(tmp_path / "t", StoreMemory(8 << 20))
    assert again.local == ChangelogPosition("id", 9)
    assert again.get_many([b"a", b"x", b"b"]) == [b"3", None, b"2"]
    assert again.items() == {b"a": b"3", b"b": b"2"}
    with pytest.raises(TemporaryError, match="--data-dir"):
        StateStore(tmp_path / "t", StoreMemory(8 << 20))
    again.close()


class SureWatch:
    """Confirms the topics at once."""

    def doubt(self) -> None:
        pass

    async def confirm(self) -> None:
        pass


class SlowWriter:
    """Commits when its event `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.committed: list[Any] = []

    async def commit(self, changes: Any, forwarded: Any) -> int:
        await self.go.wait()
        self.committed.append(changes)
        return len(changes)


def test_state_stores_share_one_cache_also_when_reopened(tmp_path: Path) -> None:
    value, keys = bytes(range(256)) * 16, [b"%d" % k for k in range(200)]
    memory = StoreMemory(8 << 20)
    for number in range(2):
        store = StateStore(tmp_path / f"{number}", memory)
        store.write([(key, value) for key in keys], ChangelogPosition("id", 1))
        store.close()
    used = []
    for number in range(2):
        store = StateStore(tmp_path / f"{number}", memory)
        assert store.get_many(keys) == [value] * len(keys)
        used.append(memory.cache.get_usage())
        store.close()
    held = len(keys) * len(value)
    assert held < used[0] < used[0] + held < used[1]


def test_unsaved_changes_are_readable_before_they_are_durable(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = StateStore(tmp_path / "t", StoreMemory(8 << 20))
        store.write([(b"a", b"old"), (b"b", b"kept")], ChangelogPosition("id", 1))
        writer = SlowWriter()
        checkpointer = Checkpointer(store, writer, IDENTITY, SureWatch())  # type: ignore[arg-type]
        saving = asyncio.create_task(checkpointer.save([(b"a", b"new")], []))
        await asyncio.sleep(0)
        assert checkpointer.read([b"a", b"b", b"c"]) == [b"new", b"kept", None]
        assert store.get_many([b"a"]) == [b"old"]
        writer.go.set()
        await saving
        assert checkpointer.read([b"a"]) == store.get_many([b"a"]) == [b"new"]
        store.close()

    asyncio.run(scenario())


def test_nothing_is_committed_before_incidents_are_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = StateStore(tmp_path / "t", StoreMemory(8 << 20))
        writer = SlowWriter()
        writer.go.set()
        acknowledged = asyncio.get_running_loop().create_future()
        saving = asyncio.create_task(
            Checkpointer(store, writer, IDENTITY, SureWatch()).save([(b"a", b"new")], [acknowledged])  # type: ignore[arg-type]
        )
        await asyncio.wait([saving], timeout=0.1)
        assert writer.committed == [] and store.local is None
        acknowledged.set_result(None)
        await saving
        assert writer.committed == [[(b"a", b"new")]]
        assert store.local.position == 1 and store.local.complete_ms > 0
        store.close()

    asyncio.run(scenario())


def test_a_changelog_that_changes_while_it_is_read_needs_another_start() -> None:
    class Gone:
        def seek(self, tp: TopicPartition, offset: int) -> None:
            pass

        async def getmany(self, **_: Any) -> Any:
            raise OffsetOutOfRangeError({TopicPartition("state", 1): 3})

    async def scenario() -> None:
        reader = CommittedReader.__new__(CommittedReader)
        reader._tp, reader._consumer = TopicPartition("state", 1), Gone()
        async for _ in reader.batches(3, 9):
            pass

    with pytest.raises(TemporaryError, match="partition 1 of state changed while it was read: offset 3"):
        asyncio.run(scenario())


def test_log_line_is_one_json_object() -> None:
    record = logging.makeLogRecord(
        {
            "name": "streamguard.agents.x",
            "levelname": "INFO",
            "msg": "two\nlines %d",
            "args": (7,),
            "created": 0.25,
        }
    )
    record.partition = 3
    record.msecs = 250.0
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "info",
        "logger": "streamguard.agents.x",
        "message": "two\nlines 7",
        "partition": 3,
    }
    assert "partition=3" in TextFormatter().format(record)
    record.msg, record.args = "[^---_NoTables]: Elapsed", ()
    assert json.loads(JsonFormatter().format(record))["message"] == "Elapsed"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["worker", "--metrics-port", "99999"], "99999 is not in the range"),
        (["broker", "--data", "/proc/x"], "cannot run a broker with its data in /proc/x"),
    ],
)
def test_invalid_options_end_with_one_message(arguments: list[str], expected: str) -> None:
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code in (2, 73)
    assert expected in run.output
    assert "Traceback" not in run.output and not isinstance(run.exception, OSError)


def reach_failpoint(value: str) -> subprocess.CompletedProcess[str]:
    code = "from streamguard.testing import failpoints\nfor _ in range(3): failpoints.reach('store-written')"
    return subprocess.run(
        [sys.executable, "-c", code], env={"STREAMGUARD_FAILPOINT": value}, capture_output=True, text=True
    )


def test_failpoint_kills_the_process_at_the_given_arrival() -> None:
    died = reach_failpoint("store-written:2")
    assert died.returncode == -9
    assert died.stderr == "failpoint store-written reached\n"
    assert reach_failpoint("changes-sent").returncode == 0
    wrong = reach_failpoint("no-such-point")
    assert wrong.returncode == 1 and "store-written" in wrong.stderr


def test_unavailable_kafka_has_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def check(*_: object) -> list[str]:
        raise topics.TopicsError("no Kafka answers at nowhere:1")

    monkeypatch.setattr(topics, "check", check)
    assert worker.run(Settings(worker=Worker(data_dir=str(tmp_path)))) == ExitCode.UNAVAILABLE
    assert "nowhere:1" in caplog.text
