"""An answer that takes long: one request computes it, and neither the others nor the list wait for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streamguard.serving.log import events
from streamguard.serving.log.events import AT_ONCE, Place, events_at
from streamguard.serving.log.missing import MissingEvent
from streamguard.serving.query.service import QueryService
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.dead_letters import DeadLetters, DeadLetterSummary
from streamguard.serving.results.shared import FRESH_SECONDS, OLD_SECONDS, Shared
from tests.unit.test_serving_api import Site

REQUESTS = 60
"""More than the server has threads."""


def test_sixty_requests_for_a_slow_answer_leave_the_list_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, begun, may_end, computed = Site(tmp_path), threading.Event(), threading.Event(), list[int]()

    def slow() -> DeadLetterSummary | Unavailable:
        computed.append(1)
        begun.set()
        assert may_end.wait(60)
        return DeadLetters().summary()

    shared = Shared(slow, Unavailable("unreadable", "being read"))
    monkeypatch.setattr(QueryService, "dead_letters", lambda _: shared())
    with site.client(site.key) as client, ThreadPoolExecutor(REQUESTS) as pool:
        first = pool.submit(client.get, "/v1/dead-letters")
        assert begun.wait(60)
        others = list(pool.map(lambda _: client.get("/v1/dead-letters"), range(REQUESTS - 1)))
        assert {one.status_code for one in others} == {503}
        assert others[0].json()["type"] == "/problems/try-again" and others[0].headers["Retry-After"]
        assert client.get("/v1/incidents").status_code == 200
        may_end.set()
        assert first.result().status_code == 200
        assert client.get("/v1/dead-letters").status_code == 200
    assert len(computed) == 1
    site.store.close()


def test_answer_is_given_again_until_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    numbers = iter(range(9))
    shared = Shared(lambda: next(numbers), -1)
    assert shared() == 0
    now[0] += FRESH_SECONDS - 0.1
    assert shared() == 0
    now[0] += 0.2
    assert shared() == 1
    now[0] += FRESH_SECONDS + 1
    with shared._lock:  # somebody else computes it
        assert shared() == 1
        now[0] += OLD_SECONDS
        assert shared() == -1
    assert shared() == 2


def test_failed_computation_lets_the_next_one_try() -> None:
    def fail() -> int:
        raise OSError

    shared: Shared[int] = Shared(fail, -1)
    for _ in range(2):
        with pytest.raises(OSError):
            shared()


def test_further_readers_of_events_do_not_wait_for_those_that_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, may_end = threading.Barrier(AT_ONCE + 1), threading.Event()

    def slow(*_: Any) -> None:
        reading.wait(60)
        assert may_end.wait(60)

    monkeypatch.setattr(events, "topic_state", slow)
    place = Place(0, 7)
    with ThreadPoolExecutor(REQUESTS) as pool:
        held = [pool.submit(events_at, None, "events", [place], None, 60.0) for _ in range(AT_ONCE)]  # type: ignore[arg-type]
        reading.wait(60)
        further = [
            pool.submit(events_at, None, "events", [place], None, 60.0) for _ in range(REQUESTS - AT_ONCE)
        ]  # type: ignore[arg-type]
        answers = [one.result(60)[place] for one in further]
        assert not any(one.done() for one in held)
        may_end.set()
        for one in held:
            one.result(60)
    assert all(isinstance(one, MissingEvent) and one.reason == "busy" for one in answers)
