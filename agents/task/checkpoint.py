"""Makes the state of a partition durable: one Kafka transaction, then one RocksDB write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from aiokafka.errors import KafkaError

from streamguard.agents.output.forwarding import ForwardedBatch
from streamguard.agents.task.changelog import ChangelogWriter
from streamguard.agents.task.topic_watch import TopicWatch
from streamguard.metrics import CHECKPOINT_RECORDS, CHECKPOINT_SECONDS, CHECKPOINT_STAGE_SECONDS
from streamguard.state.identity import StateIdentity
from streamguard.state.store import Change, ChangelogPosition, StateStore, now_ms
from streamguard.testing import failpoints

QUIET_SECONDS = 3.0
"""After this time without a transaction, the changelog may have been created again unnoticed."""


class Checkpointer:
    """Saves snapshots of the state of one partition, one at a time.

    A snapshot is taken between two chunks and saved while the next chunks are folded. Until it is on disk, its values
    are read from the checkpointer, because the state may already have dropped them from memory.

    Parameters
    ----------
    store
        The local copy of the state; also an attribute.
    writer
        Writes the changelog partition.
    identity
        What the state belongs to.
    watch
        Confirms that the topics are still those of the state.
    """

    def __init__(
        self, store: StateStore, writer: ChangelogWriter, identity: StateIdentity, watch: TopicWatch
    ) -> None:
        self.store = store
        self._writer = writer
        self._identity = identity
        self._watch = watch
        self._committed = time.monotonic()
        self._saving: dict[bytes, bytes | None] = {}

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        """Read values as of the last snapshot."""
        values = self.store.get_many(keys)
        if self._saving:
            saving = self._saving
            return [saving.get(key, value) for key, value in zip(keys, values, strict=True)]
        return values

    async def save(
        self,
        changes: Sequence[Change],
        published: Sequence[asyncio.Future[None]],
        forwarded: Sequence[ForwardedBatch] = (),
    ) -> None:
        """Make one snapshot durable.

        Parameters
        ----------
        changes
            Every value that differs from the previous snapshot.
        published
            Futures that are done when Kafka has acknowledged the incidents and dead letters of all events in the
            snapshot. They are awaited first, because a restart continues after these events.
        forwarded
            Records of the snapshot's events for the sources topic; they are part of the transaction.
        """
        started = time.perf_counter()
        failpoints.reach("checkpoint-begun")
        self._saving = dict(changes)
        with CHECKPOINT_STAGE_SECONDS.labels("incidents").time():
            for future in published:
                await future
        failpoints.reach("incidents-acknowledged")
        with CHECKPOINT_STAGE_SECONDS.labels("transaction").time():
            position = await self._commit(changes, forwarded)
        with CHECKPOINT_STAGE_SECONDS.labels("store").time():
            self.store.write(changes, ChangelogPosition.at(position, self._identity, now_ms()))
        self._saving = {}
        failpoints.reach("store-written")
        CHECKPOINT_SECONDS.observe(time.perf_counter() - started)
        CHECKPOINT_RECORDS.inc(len(changes))

    async def _commit(self, changes: Sequence[Change], forwarded: Sequence[ForwardedBatch]) -> int:
        """Write the transaction after the topics are confirmed, in doubt; an error may be that one was deleted."""
        if time.monotonic() - self._committed > QUIET_SECONDS:
            self._watch.doubt()
        await self._watch.confirm()
        try:
            position = await self._writer.commit(changes, forwarded)
        except KafkaError:
            self._watch.doubt()
            await self._watch.confirm()
            raise
        self._committed = time.monotonic()
        return position

    async def close(self) -> None:
        """Close the local copy and the writer of the changelog."""
        self.store.close()
        await self._writer.close()
