"""How a partition's state becomes durable: one Kafka transaction, then one RocksDB write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from streamguard.agents.task.changelog import ChangelogWriter
from streamguard.agents.task.store import Local, StateStore, now_ms
from streamguard.metrics import CHECKPOINT_RECORDS, CHECKPOINT_SECONDS, CHECKPOINT_STAGE_SECONDS
from streamguard.testing import failpoints

Change = tuple[bytes, bytes]


class Checkpointer:
    """Saves snapshots of one partition's state, one at a time.

    A snapshot is taken between two chunks and saved while the next ones are folded. Until it is on disk its
    values are read from here: the state may have dropped them from memory already.

    Parameters
    ----------
    store
        The local copy; also an attribute.
    writer
        The right to write the changelog.
    changelog_id
        Kafka's id of the changelog topic.
    """

    def __init__(self, store: StateStore, writer: ChangelogWriter, changelog_id: str) -> None:
        self.store = store
        self._writer = writer
        self._changelog_id = changelog_id
        self._saving: dict[bytes, bytes] = {}

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        """Values as of the last snapshot."""
        values = self.store.get_many(keys)
        if self._saving:
            saving = self._saving
            return [saving.get(key, value) for key, value in zip(keys, values, strict=True)]
        return values

    async def save(self, changes: Sequence[Change], published: Sequence[asyncio.Future[None]]) -> None:
        """Make one snapshot durable.

        Parameters
        ----------
        changes
            All that differs from the last snapshot.
        published
            Done when every incident and dead letter of the events in the snapshot is acknowledged; awaited
            first, because a restart continues behind these events.
        """
        started = time.perf_counter()
        failpoints.reach("checkpoint-begun")
        self._saving = dict(changes)
        with CHECKPOINT_STAGE_SECONDS.labels("incidents").time():
            for future in published:
                await future
        failpoints.reach("incidents-acknowledged")
        with CHECKPOINT_STAGE_SECONDS.labels("transaction").time():
            position = await self._writer.commit(changes)
        with CHECKPOINT_STAGE_SECONDS.labels("store").time():
            self.store.write(changes, Local(self._changelog_id, position, now_ms()))
        self._saving = {}
        failpoints.reach("store-written")
        CHECKPOINT_SECONDS.observe(time.perf_counter() - started)
        CHECKPOINT_RECORDS.inc(len(changes))

    async def close(self) -> None:
        """Let go of the local copy and of the changelog."""
        self.store.close()
        await self._writer.close()
