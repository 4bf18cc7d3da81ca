"""Asks Kafka again for the ids of the topics, so that a topic that is created again ends the worker in time.

Kafka's fetch and produce requests name topics, so a worker that does not look while a topic is deleted and created
again would continue in the new one. A worker that looks without a pause sees the deletion. Therefore the ids are asked
again after every pause, before the records that were fetched after it are folded, and before a transaction is begun.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streamguard.agents.errors import RefusedError, end
from streamguard.agents.task.compatibility import START_OVER
from streamguard.agents.task.identity import Topics
from streamguard.errors import TemporaryError
from streamguard.kafka.connection import Brokers

PAUSE_SECONDS = 0.2
"""A process that stood still or got no answer from the brokers for longer may have missed that a topic was deleted."""
TICK_SECONDS = 0.05
"""Interval at which the event loop proves that it runs."""
ASK_SECONDS = 30.0
"""Interval at which the ids are asked even without a pause."""
ANSWER_SECONDS = 6.0
"""How long one broker may take to answer."""
ATTEMPTS = 5
"""Number of times that Kafka is asked before no broker counts as answering."""
MISSING_SECONDS = 5.0
"""How long a broker that starts may take to know its topics."""

Ids = dict[str, str | None]
"""Kafka's id of each topic; None if the topic does not exist."""

_log = logging.getLogger(__name__)


class TopicWatch:
    """Compares the topics with those that were assigned, whenever it is in doubt.

    Parameters
    ----------
    topics
        The topics as they were when the partitions were assigned.
    describe
        Asks Kafka for the ids of the events topic, the changelog, and the sources topic if events are forwarded.
    clock
        Returns monotonic seconds.
    """

    def __init__(
        self,
        topics: Topics,
        describe: Callable[[], Awaitable[Ids]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topics = topics
        self._describe = describe
        self._clock = clock
        self._doubt = threading.Event()
        self._asking = asyncio.Lock()
        self._tick = clock()

    @classmethod
    def of(cls, brokers: Brokers, topics: Topics) -> TopicWatch:
        """A watch that asks the brokers."""
        names = [topics.source.topic, topics.changelog]
        if topics.destination is not None:
            names.append(topics.destination.topic)
        ask = _Question(lambda: AdminClient(brokers.librdkafka()), names)
        return cls(topics, lambda: asyncio.to_thread(ask))

    def doubt(self) -> None:
        """Ask for the ids before the next `confirm` returns. May be called from any thread."""
        self._doubt.set()

    async def confirm(self) -> None:
        """Return at once, or, in doubt, when Kafka has confirmed that both topics are those that were assigned.

        Raises
        ------
        RefusedError
            If the events topic or the changelog was deleted, or created again.
        TemporaryError
            If the sources topic was: no state belongs to it, and a transaction would wait for it without end.
        KafkaException
            If no broker answers.
        """
        if self._clock() - self._tick > PAUSE_SECONDS:
            self.doubt()
        if not self._doubt.is_set() and not self._asking.locked():
            return
        async with self._asking:
            if not self._doubt.is_set():
                return
            self._doubt.clear()
            try:
                self._compare(await self._found())
            except BaseException:
                self.doubt()
                raise

    async def _found(self) -> Ids:
        patience = self._clock() + MISSING_SECONDS
        while True:
            found = await self._describe()
            if None not in found.values() or self._clock() > patience:
                return found
            await asyncio.sleep(0.2)

    def _compare(self, found: Ids) -> None:
        topics = self.topics
        assigned = {topics.source.topic: topics.source.id, topics.changelog: topics.changelog_id}
        for topic, before in assigned.items():
            now = found[topic]
            if now == before:
                continue
            changed = (
                "was deleted while the worker was running"
                if now is None
                else f"was deleted and created again (id {before}, now {now}) while the worker was running"
            )
            raise RefusedError(
                f"the topic {topic} {changed}; the worker ends, because its state belongs to the old topic, and a "
                f"restart does not help: to start over, {START_OVER}"
            )
        forward = topics.destination
        if forward is not None and found[forward.topic] != forward.id:
            raise TemporaryError(
                f"the topic {forward.topic}, to which failures and logins are forwarded, was deleted while the worker "
                "was running; no event is lost: run `streamguard topics create` if it does not exist, and start the "
                "worker again"
            )

    async def run(self) -> None:
        """Notice pauses of the event loop, and ask at intervals; ends the process if a topic is another one."""
        asked = self._clock()
        task: asyncio.Task[None] | None = None
        while True:
            now = self._clock()
            if now - self._tick > PAUSE_SECONDS:
                self.doubt()
            self._tick = now
            if now - asked > ASK_SECONDS and (task is None or task.done()):
                asked = now
                self.doubt()
                task = asyncio.get_running_loop().create_task(self._ask())
            await asyncio.sleep(TICK_SECONDS)

    async def _ask(self) -> None:
        try:
            await self.confirm()
        except KafkaException as error:
            _log.warning("the topics cannot be compared now (%s); the worker tries again", error)
        except Exception as error:  # noqa: BLE001 - nobody awaits this task
            end(error)


class _Question:
    """Asks for the ids of topics; each attempt after a failure has a new client.

    A client asks one broker, and keeps to it while the connection is open. If that broker is frozen, a new client finds
    another one.
    """

    def __init__(self, connect: Callable[[], AdminClient], names: list[str]) -> None:
        self._connect = connect
        self._names = names
        self._admin: AdminClient | None = None

    def __call__(self) -> Ids:
        for _ in range(ATTEMPTS - 1):
            try:
                return self._ask()
            except KafkaException:
                self._admin = None
        return self._ask()

    def _ask(self) -> Ids:
        self._admin = self._admin or self._connect()
        return _ids(self._admin, self._names)


def _ids(admin: AdminClient, names: list[str]) -> Ids:
    ids: Ids = {}
    for name, future in admin.describe_topics(TopicCollection(names), request_timeout=ANSWER_SECONDS).items():
        try:
            ids[name] = str(future.result().topic_id)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            ids[name] = None
    return ids
