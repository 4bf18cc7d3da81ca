"""Reads in the topic of decisions which users are forgotten, so that no campaign names them."""

from __future__ import annotations

import asyncio
import logging

from aiokafka import errors as aiokafka
from confluent_kafka import KafkaError, KafkaException

from streamguard.agents.campaigns.topic_log import TopicLog
from streamguard.agents.task.identity import describe
from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import KEY_PREFIX, Forgotten
from streamguard.decisions.forgotten_users import ForgottenUsers
from streamguard.events.event import Withheld
from streamguard.kafka.connection import Brokers
from streamguard.records.record import Record
from streamguard.state.identity import TopicIdentity

_CONSEQUENCE = (
    "campaigns name users who are forgotten until the alerts topic has lost their incidents: %s, then start the "
    "campaigns process again"
)
_MISSING = "the topic %s does not exist", "run `streamguard topics create`"
_REFUSED = (
    "this user may not read the topic %s",
    "grant the rights that `streamguard topics acls campaigns` prints",
)

_log = logging.getLogger(__name__)


class ForgottenLog:
    """The users who are forgotten, as the topic of decisions says.

    A deployment without the topic, or without the right to read it, goes on: a warning in the log says what follows.

    Parameters
    ----------
    brokers
        The brokers.
    topic
        Name of the topic of decisions.

    Attributes
    ----------
    id
        Kafka's id of the topic; empty if it does not exist, or may not be described.
    """

    def __init__(self, brokers: Brokers, topic: str) -> None:
        self._brokers, self._topic = brokers, topic
        self.id = ""
        self._log: TopicLog | None = None
        self._records: dict[bytes, Forgotten] = {}
        self._was_caught_up = False

    async def open(self) -> None:
        """Connect; the first reading is complete when `caught_up` says so.

        Raises
        ------
        KafkaException, KafkaError
            If the brokers do not answer.
        """
        self.id, missing = await self._described()
        if missing:
            self._warn(*missing)
            return
        log = TopicLog(self._brokers, TopicIdentity(self._topic, self.id), 1, "campaigns-decisions")
        try:
            await log.open()
        except aiokafka.TopicAuthorizationFailedError:
            self._warn(*_REFUSED)
        else:
            self._log = log

    async def close(self) -> None:
        """Disconnect; what was read stays known."""
        if self._log is not None:
            await self._log.close()
            self._log = None

    async def differs(self) -> bool:
        """Whether there is another topic now than when reading began.

        A topic that has gone, or that this user may not read any more, does not count: what was read stays known.
        """
        now, _ = await self._described()
        return bool(now) and now != self.id

    async def _described(self) -> tuple[str, tuple[str, str] | None]:
        """Kafka's id of the topic; or none, and what is missing with its remedy."""
        try:
            found = await asyncio.to_thread(describe, self._brokers, [self._topic])
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return "", _MISSING
            if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return "", _REFUSED
            raise
        return found[self._topic][0], None

    def caught_up(self) -> bool:
        """Whether everything was read that the topic had when reading began, or nothing can be read."""
        self._was_caught_up = self._was_caught_up or self._log is None or self._log.caught_up()
        return self._was_caught_up

    async def take(self, seconds: float) -> bool | None:
        """Read what has arrived, until the end is known after at most so many seconds.

        Returns
        -------
        bool or None
            Whether another user is forgotten; None if the topic has to be read again.
        """
        if self._log is None:
            return False
        first = not self.caught_up()
        try:
            records = await self._log.take(seconds if first else 0.0)
        except aiokafka.TopicAuthorizationFailedError:
            self._warn(*_REFUSED)
            await self.close()
            return False
        if records is None:
            return None
        changed = [self._add(record, first=first) for record in records]
        return any(changed)

    def _add(self, record: Record, *, first: bool) -> bool:
        """Add what a record says; `first` while the topic is read for the first time."""
        if isinstance(record.value, Withheld):
            _log.warning(
                "%s, offset %d: a batch cannot be read (%s), and campaigns name users who are forgotten in it: let "
                "another replica lead the partition, then start the campaigns process again",
                self._topic, record.offset, record.value.detail,
            )  # fmt: skip
            return False
        key = record.key or b""
        if not key.startswith(KEY_PREFIX):
            return False
        if record.value is None:
            # A record is deleted when the alerts topic has lost all that it is about. It counts while the window still
            # has some of that; then the topics are read from their beginnings.
            if first:
                self._records.pop(key, None)
            return False
        try:
            self._records[key] = forgotten.decode(record.value)
        except forgotten.ForgottenError as error:
            _log.warning(
                "%s, offset %d: a record about a forgotten user is passed over (%s): a later version has "
                "written it, or another program; update this process",
                self._topic, record.offset, error,
            )  # fmt: skip
            return False
        return True

    def users(self, alerts_id: str) -> ForgottenUsers:
        """The users who are forgotten in the alerts topic with an id of Kafka."""
        return ForgottenUsers(one for one in self._records.values() if one.topic_id == alerts_id)

    def _warn(self, what: str, remedy: str) -> None:
        _log.warning(f"{what}; {_CONSEQUENCE}", self._topic, remedy)
