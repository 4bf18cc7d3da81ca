"""A worker from start to stop: what it scores, saves, publishes and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Site, events

pytestmark = pytest.mark.integration


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path)
    yield site
    site.close()


def test_sigterm_saves_everything(site: Site) -> None:
    site.produce(events(2000, 2))
    worker = site.start()
    worker.await_ready()
    site.await_caught_up(workers=[worker])
    site.produce(events(500, 2, seed=2, start=2000))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []
