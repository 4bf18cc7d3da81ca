"""A worker that is killed between any two steps of a checkpoint or a restore continues with exact results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.testing.failpoints import POINTS
from tests.harness import Site, events

pytestmark = pytest.mark.integration

RESTORE = [point for point in POINTS if point.startswith("restore-")]
CHECKPOINT = [point for point in POINTS if point not in RESTORE]
PASSES = {"chunk-folded": 20, "offset-committed": 1}
"""Number of the pass at which the worker is killed, so that a checkpoint exists before it."""


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(
        kafka, tmp_path, instance_id="one"
    )  # static membership: a restart does not wait for the session timeout
    yield site
    site.close()


def assert_exact_after_restart(site: Site) -> None:
    site.produce(events(300, 2, seed=9, start=1500))
    worker = site.start()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []


@pytest.mark.parametrize("point", CHECKPOINT)
def test_worker_killed_during_a_checkpoint_continues_exactly(site: Site, point: str) -> None:
    site.produce(events(1500, 2))
    worker = site.start(failpoint=f"{point}:{PASSES.get(point, 4)}")
    assert worker.await_exit() == -9, worker.tail()
    if CHECKPOINT.index(point) % 2:
        site.wipe("a")
    assert_exact_after_restart(site)


@pytest.mark.parametrize("point", RESTORE)
def test_worker_killed_during_a_restore_continues_exactly(site: Site, point: str) -> None:
    site.produce(events(1500, 2))
    assert site.start(failpoint="store-written:3").await_exit() == -9
    worker = site.start(failpoint=point)
    assert worker.await_exit() == -9, worker.tail()
    assert_exact_after_restart(site)
