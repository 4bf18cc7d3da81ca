"""The loop of the campaigns process: read incidents, and publish a round when something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter

from aiokafka import errors as aiokafka
from confluent_kafka import KafkaError, KafkaException

from streamguard.agents.campaigns.campaigns_topic import CampaignsTopic, deleted, recreated
from streamguard.agents.campaigns.forgotten_log import ForgottenLog
from streamguard.agents.campaigns.incidents import REASONS, update_of
from streamguard.agents.campaigns.progress import CampaignsProgress
from streamguard.agents.campaigns.projection import Projection, project
from streamguard.agents.campaigns.rounds import Rounds
from streamguard.agents.campaigns.topic_log import TopicLog
from streamguard.agents.campaigns.window import Window
from streamguard.agents.consumer.liveness import GONE_SECONDS
from streamguard.agents.task.identity import describe
from streamguard.decisions.forgotten_users import ForgottenUsers
from streamguard.errors import UnavailableError
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.metrics import (
    CAMPAIGN_ROUND_SECONDS,
    CAMPAIGN_SPAN,
    CAMPAIGN_UPDATES,
    CAMPAIGNS_CURRENT,
    CAMPAIGNS_LAG,
    CAMPAIGNS_OPEN,
    CAMPAIGNS_PROMISED_PER_DAY,
    CAMPAIGNS_RAISED,
    CAMPAIGNS_RAISED_PER_DAY,
)
from streamguard.records.record import Record
from streamguard.risk import SEVERITIES
from streamguard.settings.schema import Settings
from streamguard.state.identity import TopicIdentity
from streamguard.text import counted

TAKE_SECONDS = 0.5
"""Longest wait for records, so that a round begins in time."""
BEAT_SECONDS = 0.5
"""Interval at which the event loop reports that it runs."""
CONTACT_SECONDS = 5.0
"""Interval at which a broker is asked whether it answers."""
COMPARE_SECONDS = 30.0
"""Interval at which the topics are compared with those that are read: Kafka may have deleted records, or a person a
topic."""
PASSED_LOG_SECONDS = 10.0
"""Least time between two log lines about records that were passed over."""

_log = logging.getLogger(__name__)


class CampaignsService:
    """Reads incidents and publishes campaigns until it is cancelled, or fails.

    Parameters
    ----------
    settings
        Topics and the pause between rounds.
    progress, rounds
        Shared with the health server.
    """

    def __init__(self, settings: Settings, progress: CampaignsProgress, rounds: Rounds) -> None:
        self._settings = settings
        self._brokers = Brokers.of(settings)
        self._names = topics.names(settings)
        self._progress = progress
        self._rounds = rounds
        self._window = Window()
        self._passed: Counter[str] = Counter()
        self._passed_logged = 0.0
        CAMPAIGNS_PROMISED_PER_DAY.set(settings.detection.incidents_per_day)

    async def run(self) -> None:
        """Become the only writer, then read and publish for ever.

        Raises
        ------
        TemporaryError
            If another process has become the writer, or the campaigns topic was created again.
        ConfigurationError
            If a topic was deleted.
        UnavailableError
            If no broker answers.
        """
        beat = asyncio.ensure_future(self._beat())
        try:
            await self._publish_for_ever()
        finally:
            beat.cancel()

    async def _publish_for_ever(self) -> None:
        described = await self._described()
        identity = described["campaigns"][0]
        topic = await CampaignsTopic.open(self._brokers, self._settings)
        try:
            while True:
                described = await self._described()
                if described["campaigns"][0] != identity:
                    raise recreated(self._names["campaigns"])
                async with contextlib.AsyncExitStack() as opened:
                    id, partitions = described["alerts"]
                    alerts = TopicLog(
                        self._brokers,
                        TopicIdentity(self._names["alerts"], id),
                        partitions,
                        "campaigns-alerts",
                    )
                    await alerts.open()
                    opened.push_async_callback(alerts.close)
                    forgotten = ForgottenLog(self._brokers, self._names["decisions"])
                    await forgotten.open()
                    opened.push_async_callback(forgotten.close)
                    await self._follow(alerts, forgotten, topic, identity)
        finally:
            await topic.close()

    async def _follow(
        self, alerts: TopicLog, forgotten: ForgottenLog, topic: CampaignsTopic, identity: str
    ) -> None:
        """Read incidents and forgotten users from the beginning and publish rounds; returns to read them again."""
        self._window.clear()
        self._rounds.changed()
        self._progress.reading(f"{alerts.topic.topic} is being read from its beginning")
        caught_up, compared = False, time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            contact = tasks.create_task(self._contact(alerts))
            while True:
                taken = await alerts.take(TAKE_SECONDS if forgotten.caught_up() else 0.0)
                if taken is None:
                    _log.info("%s: Kafka deleted records while they were read", alerts.topic.topic)
                    break
                self._add(taken)
                another = await forgotten.take(TAKE_SECONDS)
                if another is None:
                    _log.info("%s: Kafka deleted records while they were read", self._names["decisions"])
                    break
                if another:
                    self._rounds.changed()
                CAMPAIGNS_LAG.set(alerts.lag())
                caught_up = caught_up or (alerts.caught_up() and forgotten.caught_up())
                if caught_up and self._rounds.due():
                    await self._round(topic, forgotten.users(alerts.topic.id))
                    self._progress.reading(None)
                if time.monotonic() - compared > COMPARE_SECONDS:
                    if await self._differs(alerts, forgotten, identity):
                        break
                    compared = time.monotonic()
            contact.cancel()

    def _add(self, records: list[Record]) -> None:
        """Add what records hold to the window, and count and name those that are passed over."""
        for record in records:
            update = update_of(record)
            if isinstance(update, str):
                self._passed[update] += 1
                self._log_passed(record, update)
            else:
                self._window.add(update)
                self._rounds.changed()

    def _log_passed(self, record: Record, reason: str) -> None:
        if (now := time.monotonic()) - self._passed_logged < PASSED_LOG_SECONDS:
            return
        self._passed_logged = now
        _log.warning(
            "partition %d of %s, offset %d: the record is passed over, because %s; only workers should be able to "
            "write to this topic (`streamguard topics acls`); passed over since the start: %s",
            record.partition, record.topic, record.offset, REASONS[reason],
            ", ".join(f"{name} {number:,}" for name, number in sorted(self._passed.items())),
        )  # fmt: skip

    async def _round(self, topic: CampaignsTopic, forgotten: ForgottenUsers) -> None:
        """Compute all campaigns, and publish those that have changed."""
        self._rounds.begin()
        updates = self._window.updates()
        floor = self._settings.detection.floor_bits
        projection = await asyncio.to_thread(project, updates, floor, forgotten)
        written = await topic.publish(projection.records)
        CAMPAIGN_ROUND_SECONDS.observe(self._rounds.end())
        CAMPAIGN_UPDATES.set(len(updates))
        CAMPAIGNS_CURRENT.set(len(topic))
        _export(projection)
        if written:
            _log.info(
                "published %s of %s from %s in %.2f s",
                counted(written, "change"), counted(len(topic), "campaign"), counted(len(updates), "update"),
                self._rounds.duration,
            )  # fmt: skip

    async def _differs(self, alerts: TopicLog, forgotten: ForgottenLog, identity: str) -> bool:
        """Whether topics have to be read again, because Kafka deleted incidents or one of them is another topic."""
        try:
            described, now = await self._described(), await alerts.beginnings()
            of_users = await forgotten.differs()
        except (KafkaException, aiokafka.KafkaError, UnavailableError) as error:
            _log.warning("the topics cannot be compared now (%s); the campaigns process tries again", error)
            return False
        if described["campaigns"][0] != identity:
            raise recreated(self._names["campaigns"])
        if described["alerts"] != (alerts.topic.id, alerts.partitions):
            _log.warning("%s is another topic, or has more partitions: it is read again", alerts.topic.topic)
            return True
        if of_users:
            _log.info("%s is another topic, or is there now: it is read", self._names["decisions"])
            return True
        if moved := [tp.partition for tp, offset in now.items() if offset != alerts.starts[tp]]:
            _log.info(
                "%s: Kafka has deleted the oldest records of %s: it is read again, so that campaigns are those of the "
                "records that it has",
                alerts.topic.topic, counted(len(moved), "partition"),
            )  # fmt: skip
        return bool(moved)

    async def _described(self) -> dict[str, tuple[str, int]]:
        """Kafka's id and the number of partitions of both topics, by role."""
        found = {}
        for role in topics.CAMPAIGNS_ROLES:
            name = self._names[role]
            try:
                found[role] = (await asyncio.to_thread(describe, self._brokers, [name]))[name]
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise deleted(name) from None
                raise
        return found

    async def _contact(self, alerts: TopicLog) -> None:
        """Ask whether a broker answers; ends the process if none has answered for `GONE_SECONDS`."""
        while True:
            if await alerts.reaches_broker():
                self._progress.broker_answered()
            if self._progress.brokers_gone:
                raise UnavailableError(
                    f"no broker at {self._brokers} has answered for {GONE_SECONDS:.0f} s: check the brokers and the "
                    "network; nothing is lost: the next start computes every campaign again"
                )
            await asyncio.sleep(CONTACT_SECONDS)

    async def _beat(self) -> None:
        while True:
            self._progress.beat()
            await asyncio.sleep(BEAT_SECONDS)


def _export(projection: Projection) -> None:
    CAMPAIGNS_OPEN.set(projection.open)
    for severity in SEVERITIES:
        CAMPAIGNS_RAISED.labels(severity).set(projection.raised.get(severity, 0))
    CAMPAIGNS_RAISED_PER_DAY.labels("day").set(projection.raised_last_day)
    CAMPAIGNS_RAISED_PER_DAY.labels("week").set(round(projection.raised_last_week / 7, 3))
    CAMPAIGN_SPAN.set(projection.span_ms / 1000)
