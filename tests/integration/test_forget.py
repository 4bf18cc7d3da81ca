"""`streamguard forget` deletes a user, and nothing else, from the changelog, local copies and a running worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamguard.errors import ExitCode
from streamguard.state.partition import HASH_KEY, PartitionState
from streamguard.state.profile_cache import user_key
from streamguard.state.store import StateStore, StoreMemory, now_ms
from tests.harness import Site, events

pytestmark = pytest.mark.integration

USER = "user-4"
"""A busy user of partition 0."""


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path)
    yield site
    site.close()


def forget(site: Site, user: str) -> str:
    """Run `streamguard forget`; return its standard output."""
    command = [sys.executable, "-m", "streamguard.cli", "forget", user]
    ran = subprocess.run(
        [*command, "--config", str(site.directory / "streamguard.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def local_state(site: Site, name: str, partition: int) -> dict[bytes, bytes]:
    """Content of a worker's local state store. The worker must be stopped."""
    path = site.directory / name / site.settings.worker.app_id / f"partition-{partition:04d}"
    table = StateStore(path, StoreMemory(8 << 20))
    items = table.items()
    table.close()
    return items


def files_on_disk(site: Site) -> bytes:
    """Content of all files of the state stores of worker `a`, which must be stopped."""
    return b"".join(file.read_bytes() for file in sorted((site.directory / "a").rglob("*.sst")))


def last_values(site: Site, partition: int) -> dict[bytes, bytes | None]:
    return {
        r.key: r.value
        for r in site.changelog()[partition]
        if r.key is not None and not r.key.startswith(b"\x00")
    }


def expected_state(site: Site, partition: int, forgotten_at: int) -> dict[bytes, bytes]:
    """State of the partition if `USER` is forgotten directly before the offset."""
    stored = {key: value for key, value in last_values(site, partition).items() if key == HASH_KEY and value}
    identity = site.identity(partition)

    def state() -> PartitionState:
        return PartitionState(
            partition,
            lambda keys: [stored.get(key) for key in keys],
            resident=site.settings.worker.resident_profiles,
            detection=site.settings.detection,
            identity=identity,
        )

    records = [r for r in site.read("events") if r.partition == partition]
    for part in (
        [r for r in records if r.offset < forgotten_at],
        [r for r in records if r.offset >= forgotten_at],
    ):
        current = state()
        for i in range(0, len(part), 100):
            chunk = part[i : i + 100]
            offsets, times = np.array([(r.offset, r.append_ms) for r in chunk], np.int64).T
            current.fold([r.value for r in chunk], offsets, append_ms=times)
            stored.update(current.changes())
            current.clean()
        if part[-1].offset < forgotten_at:
            del stored[user_key(USER)]
    return stored


def test_forget_without_a_running_worker_deletes_the_profile_everywhere(site: Site) -> None:
    worker = site.start().await_ready()
    site.produce(events(3000, 2))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    before = {partition: local_state(site, "a", partition) for partition in (0, 1)}
    profile = before[0][user_key(USER)]
    assert profile in files_on_disk(site)
    at = site.ends()[0]

    assert "partition 0" in forget(site, USER)
    assert "no profile found for this user" in forget(site, USER)
    assert last_values(site, 0)[user_key(USER)] is None

    worker = site.start().await_ready()
    assert worker.terminate() == 0
    after = local_state(site, "a", 0)
    assert after == {key: value for key, value in before[0].items() if key != user_key(USER)}
    assert local_state(site, "a", 1) == before[1]
    assert profile not in files_on_disk(site)

    worker = site.start().await_ready()
    site.produce(events(1000, 2, start=3000))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    assert local_state(site, "a", 0) == expected_state(site, 0, at)


def test_running_worker_exits_and_continues_without_the_profile(site: Site) -> None:
    worker = site.start().await_ready()
    site.produce(events(3000, 2))
    site.await_caught_up(workers=[worker])
    at = site.ends()[0]
    assert "partition 0" in forget(site, USER)
    site.produce(events(1000, 2, start=3000))
    assert worker.await_exit() == ExitCode.TEMPORARY, worker.tail()
    worker = site.start()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    assert local_state(site, "a", 0) == expected_state(site, 0, at)
    incidents = [r.headers["sg.incident"] for r in site.read("alerts")]
    assert incidents


def test_local_copy_older_than_the_tombstone_retention_is_restored_from_the_changelog(site: Site) -> None:
    worker = site.start().await_ready()
    site.produce(events(2000, 2))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    before = local_state(site, "a", 0)
    path = site.directory / "a" / site.settings.worker.app_id / "partition-0000"
    table = StateStore(path, StoreMemory(8 << 20))
    local = table.local
    assert local is not None
    assert 0 <= now_ms() - local.complete_ms < 3_600_000
    # The local copy is eight days old and has a forgotten user, whose tombstone the changelog no longer contains.
    old = type(local)(local.changelog_id, local.position, local.complete_ms - 8 * 86_400_000)
    table.write([(user_key("long-gone"), b"profile")], old)
    table.close()

    worker = site.start().await_ready()
    assert worker.terminate() == 0
    assert local_state(site, "a", 0) == before
    assert any("reads the whole changelog again" in line.get("message", "") for line in worker.lines())


def test_forget_with_an_invalid_name_or_a_missing_changelog_is_an_error(site: Site) -> None:
    command = [os.fsencode(sys.executable), b"-m", b"streamguard.cli", b"forget"]
    ran = subprocess.run([*command, b"\xff"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "not UTF-8" in ran.stderr
    site.delete_topic("changelog")
    config = os.fsencode(site.directory / "streamguard.toml")
    ran = subprocess.run([*command, b"ann", b"--config", config], capture_output=True, text=True, check=False)
    assert ran.returncode == 78 and "does not exist" in ran.stderr, ran.stderr
