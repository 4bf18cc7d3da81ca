"""Killed between any two steps of a checkpoint or a recovery, the worker goes on as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.testing.failpoints import POINTS
from tests.harness import Site, events

pytestmark = pytest.mark.integration

RECOVERY = [point for point in POINTS if point.startswith("recovery-")]
CHECKPOINT = [point for point in POINTS if point not in RECOVERY]
ARRIVAL = {"chunk-folded": 20, "offset-committed": 1}
"""At which arrival to die, so that some state is already saved."""


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path, instance_id="one")  # static: a restart need not wait for the session to end
    yield site
    site.close()


def finish(site: Site) -> None:
    site.produce(events(300, 2, seed=9, start=1500))
    worker = site.start()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []


@pytest.mark.parametrize("point", CHECKPOINT)
def test_killed_in_a_checkpoint(site: Site, point: str) -> None:
    site.produce(events(1500, 2))
    worker = site.start(crash_point=f"{point}:{ARRIVAL.get(point, 4)}")
    assert worker.await_exit() == -9, worker.tail()
    if CHECKPOINT.index(point) % 2:
        site.wipe("a")
    finish(site)


@pytest.mark.parametrize("point", RECOVERY)
def test_killed_in_a_recovery(site: Site, point: str) -> None:
    site.produce(events(1500, 2))
    assert site.start(crash_point="store-written:3").await_exit() == -9
    worker = site.start(crash_point=point)
    assert worker.await_exit() == -9, worker.tail()
    finish(site)
