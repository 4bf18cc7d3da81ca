"""What `doctor` finds in changelog and local copies: the refusals of a worker, and states without a key."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from streamguard.agents.commands.examine_state import Saved, compare, copy_of, unkeyed_warning
from streamguard.agents.task.compatibility import Bounds, SavedState
from streamguard.agents.task.identity import Topics
from streamguard.cli.doctor.finding import Finding
from streamguard.settings.schema import Settings, Worker
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.store import ChangelogPosition, StateStore, StoreMemory

EVENTS = TopicIdentity("events", "e2")
TOPICS = Topics("app", EVENTS, "log", "l2")
HERE = TOPICS.identity(3)
WHOLE = Bounds(0, 90, 90)


def saved(identity: StateIdentity | None = HERE, bounds: Bounds = WHOLE, next_offset: int = 70) -> Saved:
    source = identity.source if identity is not None else None
    return Saved(bounds, SavedState(identity, True), next_offset, source, True)


EMPTY = Saved(Bounds(0, 0, 0), SavedState(), None, None, False)


def found(
    changelog: Saved,
    source: Bounds = WHOLE,
    committed: int | None = None,
    *,
    held: bool = False,
    local: ChangelogPosition | None = None,
) -> list[Finding]:
    return compare(TOPICS, 3, changelog, source, committed, held=held, local=local)


def test_state_that_belongs_to_its_topics_is_no_finding() -> None:
    assert found(saved()) == []
    assert found(saved(), local=ChangelogPosition("l2", 80, 1, HERE)) == []
    assert found(saved(None)) == []
    assert found(EMPTY) == []
    assert found(saved(bounds=Bounds(5, 90, 90)), held=True) == []
    assert found(saved(), Bounds(0, 60, 90)) == []  # an open transaction: another check names it


@pytest.mark.parametrize(
    ("findings", "expected", "remedy"),
    [
        (found(saved(dataclasses.replace(TOPICS, changelog_id="l1").identity(3))), "id l1, now l2", "to start over"),
        (found(saved(dataclasses.replace(TOPICS, app_id="b").identity(3))), "of the application b", "to start over"),
        (found(saved(TOPICS.identity(4))), "contains the state of partition 4", "to start over"),
        (
            found(saved(StateIdentity("app", 3, TopicIdentity("events", "e1"), "l2"))),
            "was deleted and created again (id e1, now e2)",
            "to start over",
        ),
        (
            found(saved(StateIdentity("app", 3, TopicIdentity("other", "o"), "l2"))),
            "not the topic of the stored state",
            "set kafka.events_topic to other, or",
        ),
        (found(saved(), Bounds(75, 90, 90)), "5 offsets expired", "to start over"),
        (found(saved(), Bounds(0, 50, 50)), "ends at offset 50", "If a broker that still has them is down"),
        (found(saved(bounds=Bounds(5, 90, 90))), "starts at offset 5", "If another worker's data directory"),
        (
            found(saved(), local=ChangelogPosition("l2", 95, 1, HERE)),
            "read it up to 95",
            "If a broker that still has them is down",
        ),
        (found(EMPTY, committed=40), "has committed offset 40", "restore it"),
    ],
)  # fmt: skip
def test_refusal_of_a_worker_is_a_failure_with_the_least_destructive_remedy_first(
    findings: list[Finding], expected: str, remedy: str
) -> None:
    (finding,) = findings
    assert finding.status == "fail"
    assert finding.found.startswith("a worker does not start: ")
    assert expected in finding.found
    assert finding.remedy.startswith(remedy)
    assert "start over" in finding.remedy


def test_copy_is_read_only_if_no_process_has_it_open(tmp_path: Path) -> None:
    settings = Settings(worker=Worker(data_dir=str(tmp_path), app_id="app"))
    assert copy_of(settings, 3) == (False, None)
    path = tmp_path / "app" / "partition-0003"
    store = StateStore(path, StoreMemory(8 << 20))
    position = ChangelogPosition("l2", 7, 1, HERE)
    store.write([(b"k", b"v")], position)
    code = (
        "import sys; from streamguard.agents.commands.examine_state import copy_of\n"
        "from streamguard.settings.schema import Settings, Worker\n"
        f"print(copy_of(Settings(worker=Worker(data_dir={str(tmp_path)!r}, app_id='app')), 3))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "(True, None)"
    store.close()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert copy_of(settings, 3) == (False, position)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    (path / "CURRENT").write_bytes(b"")
    assert copy_of(settings, 3) == (False, None)


def test_states_without_a_key_are_a_warning_with_the_way_out() -> None:
    warning = unkeyed_warning([1, 2])
    assert warning.status == "warn"
    assert "[1, 2]" in warning.found and "worker.app_id" in warning.remedy
