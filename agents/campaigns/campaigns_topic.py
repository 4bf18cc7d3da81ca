"""The campaigns topic: what it holds, and its only writer, whose every round is one Kafka transaction."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Self

from streamguard.agents.campaigns.closing import closed
from streamguard.agents.campaigns.projection import differences
from streamguard.agents.task.changelog import ChangelogWriter, CommittedReader
from streamguard.errors import ConfigurationError, StreamGuardError, TemporaryError
from streamguard.events.event import Withheld
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.metrics import CAMPAIGNS_PUBLISHED
from streamguard.settings.schema import Settings
from streamguard.text import counted

DIGEST_BYTES = 16
"""Size of the digest that stands for a published value: what is published is compared, and not kept."""

_log = logging.getLogger(__name__)


class CampaignsTopic:
    """What is published, and the right to change it.

    Parameters
    ----------
    writer
        The right to write.
    published
        Digest of the value of each campaign in the topic, by id.
    """

    def __init__(self, writer: ChangelogWriter, published: dict[str, bytes]) -> None:
        self._writer = writer
        self._published = published

    @classmethod
    async def open(cls, brokers: Brokers, settings: Settings) -> Self:
        """Become the only writer, and then read what is published.

        The broker aborts the open transaction of the former writer first, and rejects its later ones. So nothing that
        is read here changes afterwards.

        Raises
        ------
        TemporaryError
            If a transaction of another program is open in the topic, or a batch of it cannot be read.
        """
        topic = topics.names(settings)["campaigns"]
        writer = await _Writer.fence(brokers, f"{settings.worker.app_id}-campaigns", topic, 0)
        try:
            return cls(writer, await _read(brokers, topic, writer))
        except BaseException:
            await writer.close()
            raise

    def __len__(self) -> int:
        return len(self._published)

    async def publish(self, records: Mapping[str, bytes]) -> int:
        """Make these the contents of the topic, in one transaction, and return the number of records written.

        Raises
        ------
        TemporaryError
            If another process has become the writer, or the topic was created again.
        """
        wanted = {name: _digest(value) for name, value in records.items()}
        changed = [name for name, _ in differences(self._published, wanted)]
        changes: list[tuple[bytes, bytes | None]] = [
            (name.encode(errors="surrogateescape"), records.get(name)) for name in changed
        ]
        if not changes:
            return 0
        await self._writer.commit(changes)
        for name in changed:
            change = "withdrawn" if name not in wanted else "changed" if name in self._published else "new"
            CAMPAIGNS_PUBLISHED.labels(change).inc()
        self._published = wanted
        return len(changes)

    async def close(self) -> None:
        """Disconnect."""
        await closed(self._writer.close())


async def _read(brokers: Brokers, topic: str, writer: ChangelogWriter) -> dict[str, bytes]:
    """Digest of each value in the topic, by id."""
    found: dict[str, bytes] = {}
    async with _Reader(brokers, topic, 0) as reader:
        bounds = await reader.settled()
        if bounds.stable < bounds.end:
            raise TemporaryError(
                f"a transaction of another program is open in {topic} from offset {bounds.stable} of partition 0 on: "
                "end that program, or abort its transaction with kafka-transactions.sh; then start the campaigns "
                "process again. No other program may write to this topic"
            )
        async for changes, _ in reader.batches(bounds.start, bounds.stable):
            for key, value in changes:
                name = (key or b"").decode(errors="surrogateescape")
                if value is None:
                    found.pop(name, None)
                else:
                    found[name] = _digest(value)
    writer.end = bounds.end
    _log.info("%s holds %s", topic, counted(len(found), "campaign"), extra={"offset": bounds.end})
    return found


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()


class _Writer(ChangelogWriter):
    """The writer, which registers under one transactional id for each application."""

    program = "campaigns process"
    transaction_seconds = 120.0

    def _taken_over(self) -> str:
        return (
            f"another campaigns process of this application has taken {self.topic} over, and the broker rejected the "
            "transaction of this one: run one process for each worker.app_id"
        )

    def _recreated(self, offset: int) -> StreamGuardError:  # noqa: ARG002
        return recreated(self.topic)


class _Reader(CommittedReader):
    """The reader of what is published."""

    def _damaged(self, batch: Withheld) -> TemporaryError:
        return TemporaryError(
            f"partition 0 of {self._tp.topic} cannot be read at the offsets {batch.first} to {batch.last} "
            f"({batch.detail}): start the campaigns process again; if this repeats, let another replica lead, or "
            "delete the topic and run `streamguard topics create`: the next start publishes every campaign again"
        )


def recreated(topic: str) -> TemporaryError:
    """The error for a campaigns topic that is another one than at the start."""
    return TemporaryError(
        f"the topic {topic} was deleted and created again while the campaigns process was running: start it again, and "
        "it publishes every campaign into the new topic"
    )


def deleted(topic: str) -> ConfigurationError:
    """The error for a topic that does not exist any more."""
    return ConfigurationError(
        f"the topic {topic} was deleted while the campaigns process was running: run `streamguard topics create`, then "
        "start it again"
    )
