"""Faults of the network between workers and brokers: the results stay exact. `bench.brokers` loses brokers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.errors import ExitCode
from streamguard.testing.broker import HOST, LocalKafka, free_port
from tests.harness import Site, WorkerProcess, events, eventually
from tests.proxy import Proxy

pytestmark = pytest.mark.integration

RESTARTED = {ExitCode.UNAVAILABLE, ExitCode.TEMPORARY}
"""Exit codes of a fault of brokers or network, after which a supervisor starts the worker again."""


def caught_up(site: Site, worker: WorkerProcess) -> WorkerProcess:
    """Wait until all events are in checkpoints, and start the worker again after exit codes that ask for it."""
    goal = site.ends()

    def done() -> bool:
        nonlocal worker
        if not worker.alive:
            assert worker.process.returncode in RESTARTED, worker.tail()
            worker = site.start(worker.name)
        return site.committed() == goal

    eventually("all events are in checkpoints", done, 180)
    return worker


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[Proxy, Site]]:
    """A broker behind a proxy, and a site that reaches it only through the proxy."""
    outside = free_port()
    settings = {"advertised.listeners": f"PLAINTEXT://{HOST}:{outside}"}
    with LocalKafka(settings=settings) as broker, Proxy(outside, broker.port) as proxy:
        site = Site(f"{HOST}:{outside}", tmp_path)
        try:
            yield proxy, site
        finally:
            site.close()


def test_lost_acknowledgements_of_writes_change_nothing(proxied: tuple[Proxy, Site]) -> None:
    proxy, site = proxied
    site.produce(events(600, 2))
    worker = site.start().await_ready(120)
    caught_up(site, worker)
    proxy.cut_every = 7
    for turn in range(4):
        proxy.delay = 0.02 * (turn % 2)
        site.produce(events(300, 2, seed=2 + turn, start=600 + 300 * turn))
        worker = caught_up(site, worker)
    assert proxy.cuts >= 5
    proxy.cut_every, proxy.delay = 0, 0.0
    worker = caught_up(site, worker)
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []
