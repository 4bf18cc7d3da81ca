"""When the worker asks again for the ids of its topics, and what it says if they are others."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamguard.agents.errors import RefusedError
from streamguard.agents.output.forwarding import Destination
from streamguard.agents.task.identity import Topics
from streamguard.agents.task.topic_watch import ATTEMPTS, PAUSE_SECONDS, Ids, TopicWatch, _Question
from streamguard.errors import TemporaryError
from streamguard.state.identity import TopicIdentity
from streamguard.testing.clock import ManualClock

TOPICS = Topics("app", TopicIdentity("events", "e1"), "log", "l1")
GOOD: Ids = {"events": "e1", "log": "l1"}


class Kafka:
    """Answers with `ids`, and counts the questions."""

    def __init__(self) -> None:
        self.ids: Ids = dict(GOOD)
        self.asked = 0
        self.clock = ManualClock()
        self.during: Callable[[], None] = lambda: None

    async def describe(self) -> Ids:
        self.asked += 1
        answer = dict(self.ids)
        await asyncio.sleep(0)
        self.during()
        return answer

    def watch(self) -> TopicWatch:
        return TopicWatch(TOPICS, self.describe, self.clock)


def run(scenario: Callable[[Kafka], Coroutine[None, None, None]]) -> None:
    asyncio.run(scenario(Kafka()))


def test_nothing_is_asked_without_doubt() -> None:
    async def scenario(kafka: Kafka) -> None:
        watch = kafka.watch()
        for _ in range(100):
            await watch.confirm()
        assert kafka.asked == 0
        watch.doubt()
        await watch.confirm()
        await watch.confirm()
        assert kafka.asked == 1

    run(scenario)


def test_pause_of_the_process_is_a_doubt() -> None:
    async def scenario(kafka: Kafka) -> None:
        watch = kafka.watch()
        kafka.clock.advance(PAUSE_SECONDS / 2)
        await watch.confirm()
        assert kafka.asked == 0
        kafka.clock.advance(PAUSE_SECONDS)
        await watch.confirm()
        assert kafka.asked == 1

    run(scenario)


@pytest.mark.parametrize("now", [None, "s2"])
def test_sources_topic_that_was_deleted_ends_the_worker_until_it_is_started_again(now: str | None) -> None:
    async def scenario(kafka: Kafka) -> None:
        kafka.ids["sources"] = "s1"
        topics = dataclasses.replace(TOPICS, destination=Destination("sources", 4, 1 << 20, "s1"))
        watch = TopicWatch(topics, kafka.describe, kafka.clock)
        watch.doubt()
        await watch.confirm()
        kafka.ids["sources"] = now
        watch.doubt()
        kafka.during = lambda: kafka.clock.advance(10.0)
        with pytest.raises(TemporaryError, match="no event is lost: run `streamguard topics create`"):
            await watch.confirm()

    run(scenario)


def test_callers_at_the_same_time_ask_once_and_all_wait_for_the_answer() -> None:
    async def scenario(kafka: Kafka) -> None:
        watch = kafka.watch()
        kafka.ids["events"] = "e2"
        watch.doubt()
        results = await asyncio.gather(*(watch.confirm() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, RefusedError) for result in results)

        kafka.ids = dict(GOOD)
        kafka.asked = 0
        await asyncio.gather(*(watch.confirm() for _ in range(5)))
        assert kafka.asked == 1

    run(scenario)


def test_doubt_while_kafka_is_asked_asks_again() -> None:
    async def scenario(kafka: Kafka) -> None:
        watch = kafka.watch()
        watch.doubt()
        kafka.during = watch.doubt
        await watch.confirm()
        kafka.during = lambda: None
        kafka.ids["log"] = "l2"
        with pytest.raises(RefusedError):
            await watch.confirm()

    run(scenario)


@pytest.mark.parametrize(
    ("topic", "now", "expected"),
    [
        ("events", "e2", "the topic events was deleted and created again (id e1, now e2)"),
        ("log", "l2", "the topic log was deleted and created again (id l1, now l2)"),
        ("log", None, "the topic log was deleted while"),
    ],
)
def test_another_topic_is_refused(topic: str, now: str | None, expected: str) -> None:
    async def scenario(kafka: Kafka) -> None:
        watch = kafka.watch()
        watch.doubt()
        kafka.ids[topic] = now
        kafka.during = lambda: kafka.clock.advance(3.0)
        with pytest.raises(RefusedError) as refused:
            await watch.confirm()
        assert expected in str(refused.value) and "worker.app_id" in str(refused.value)

    run(scenario)


def test_topic_that_a_starting_broker_does_not_know_yet_is_waited_for() -> None:
    async def scenario(kafka: Kafka) -> None:
        watch = kafka.watch()
        watch.doubt()
        kafka.ids["events"] = None

        def known() -> None:
            kafka.ids["events"] = "e1"

        kafka.during = known
        await watch.confirm()
        assert kafka.asked == 2

    run(scenario)


class Client:
    """A client of one broker, which is frozen or answers."""

    def __init__(self, frozen: bool) -> None:
        self._frozen = frozen

    def describe_topics(self, _: object, **__: object) -> dict[str, Future[Any]]:
        answer: Future[Any] = Future()
        if self._frozen:
            answer.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
        else:
            answer.set_result(SimpleNamespace(topic_id="e1"))
        return {"events": answer}


def test_another_broker_is_asked_if_one_is_frozen() -> None:
    clients = iter([Client(frozen=True), Client(frozen=False)])
    question = _Question(lambda: next(clients), ["events"])  # type: ignore[arg-type,return-value]
    assert question() == question() == {"events": "e1"}
    assert next(clients, None) is None


def test_no_broker_counts_as_answering_after_the_last_attempt() -> None:
    clients = [Client(frozen=True) for _ in range(ATTEMPTS)]
    question = _Question(clients.pop, ["events"])  # type: ignore[arg-type]
    with pytest.raises(KafkaException):
        question()
    assert clients == []
