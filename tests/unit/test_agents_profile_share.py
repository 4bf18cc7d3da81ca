"""The profiles of a worker are within its setting whatever its partitions, and every chunk finds room among them."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import msgspec
import numpy as np
import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.agents.consumer import chunk_consumer
from streamguard.agents.consumer.chunk_consumer import ChunkConsumer
from streamguard.agents.process import worker as process
from streamguard.agents.task.profile_share import ProfileShare, share_of, whole_chunks
from streamguard.settings.schema import Settings, SettingsError, Worker
from tests.streams import START, Partition, event


def chosen(resident: int, chunk: int = 1000, partitions: int = 4) -> Settings:
    return msgspec.convert(
        {
            "worker": {"resident_profiles": resident, "chunk_events": chunk},
            "kafka": {"partitions": partitions},
        },
        Settings,
    )


@given(st.integers(1, 2_000_000), st.integers(1, 10_000), st.integers(1, 2000))
def test_partitions_together_stay_within_the_setting(resident: int, chunk: int, partitions: int) -> None:
    worker = Worker(resident_profiles=resident, chunk_events=chunk)
    try:
        share = share_of(worker, partitions)
    except SettingsError as error:
        assert resident < 4 * partitions
        assert f"{4 * partitions:,} or more" in str(error)
        return
    assert share.profiles * partitions <= resident
    assert 1 <= share.chunk_events <= chunk
    assert 4 * share.chunk_events <= share.profiles


@given(st.integers(1, 10_000), st.integers(1, 2000))
def test_stated_number_is_enough_and_no_more_than_needed(chunk: int, partitions: int) -> None:
    needed = whole_chunks(Worker(chunk_events=chunk), partitions)
    assert share_of(Worker(resident_profiles=needed, chunk_events=chunk), partitions).chunk_events == chunk
    fewer = Worker(resident_profiles=needed - 1, chunk_events=chunk)
    if chunk > 1:
        assert share_of(fewer, partitions).chunk_events < chunk


def test_default_setting_has_whole_chunks_up_to_16_partitions() -> None:
    assert share_of(Worker(), 16).chunk_events == 1000
    assert share_of(Worker(), 17).chunk_events < 1000


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 60), st.integers(1, 20), st.integers(0, 1000))
def test_every_chunk_finds_room_and_gives_the_same_state(resident: int, chunk: int, seed: int) -> None:
    """Few users and floods of new ones in turn, with a checkpoint only when the state is full, as in the worker."""
    share = share_of(Worker(resident_profiles=resident, chunk_events=chunk), 1)
    draw = np.random.default_rng(seed)
    quiet = np.repeat(draw.random(40) < 0.4, 5)
    users = np.where(quiet, draw.integers(0, 3, 200), np.arange(200)).tolist()
    values = [event(START + 1000 * k, f"user{user}") for k, user in enumerate(users)]
    small, large = Partition(resident=share.profiles), Partition()
    for a in range(0, len(values), share.chunk_events):
        if small.state.full:
            small.save()
        part = values[a : a + share.chunk_events]
        small.state.fold(part, np.arange(a, a + len(part)))
        assert small.state.resident <= share.profiles
    small.save()
    large.run(values)
    assert small.saved == large.saved


class Tasks:
    """A consumer whose partitions are restored by a stand-in that keeps their limits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: Settings) -> None:
        self.opened: dict[int, int] = {}
        self.cut_at: dict[int, int] = {}
        monkeypatch.setattr(chunk_consumer, "restore", self.restore)
        monkeypatch.setattr(chunk_consumer.Topics, "describe", AsyncMock())
        watch = SimpleNamespace(run=AsyncMock(), confirm=AsyncMock())
        monkeypatch.setattr(chunk_consumer.TopicWatch, "of", lambda *_: watch)
        monkeypatch.setattr(ChunkConsumer, "flow_active", True)
        monkeypatch.setattr(ChunkConsumer, "should_stop", False)
        monkeypatch.setattr(ChunkConsumer, "_message", lambda _self, _tp, fetch: fetch)
        self.consumer = consumer = ChunkConsumer.__new__(ChunkConsumer)
        consumer.app = Mock(settings=config)
        consumer.open, consumer._opening, consumer._watching, consumer._watch = {}, None, None, None
        consumer._committed, consumer._revoked_at = {}, None
        consumer._thread = Mock(
            start_fetching=AsyncMock(), commit_for_monitoring=AsyncMock(return_value=False)
        )

    async def restore(self, number: int, *arguments: Any) -> Any:
        self.opened[number] = arguments[-1]

        def cut(_records: Any, _position: int, size: int) -> list[Any]:
            self.cut_at[number] = size
            return [SimpleNamespace(partition=task)]

        def close() -> None:
            del self.opened[number]

        task = Mock(number=number, closed=False, checkpointed_offset=None, processed_offset=0, cut=cut)
        task.close = AsyncMock(side_effect=close)
        return task

    async def assigned(self, partitions: range) -> ProfileShare:
        """Revoke all partitions, assign these and fetch from each; return all their profiles and a chunk's size."""
        await self.consumer.release()
        assert not self.opened
        await self.consumer._restore([TP("events", number) for number in partitions])
        tps = {TP("events", number): ([], 1) for number in partitions}
        self.consumer._thread.fetch = AsyncMock(return_value=tps)
        async for _ in self.consumer.getmany(1.0):
            pass
        assert set(self.opened) == set(self.cut_at) & set(self.opened) == set(partitions)
        (size,) = {self.cut_at[number] for number in partitions}
        return ProfileShare(sum(self.opened.values()), size)


def test_rebalance_divides_the_setting_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(monkeypatch, chosen(8000, 1000, 64))

    async def rebalances() -> list[ProfileShare]:
        shares = [await tasks.assigned(range(n)) for n in (2, 64, 5, 1)]
        await tasks.consumer.release()  # also removes the metrics of the partitions
        return shares

    assert asyncio.run(rebalances()) == [(8000, 1000), (8000, 31), (8000, 400), (8000, 1000)]


def test_too_few_profiles_are_refused_before_the_worker_joins(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError) as refused:
        process._check_share(chosen(255, 1000, 64))
    assert str(refused.value) == (
        "worker.resident_profiles is 255, which is too few for 64 partitions: set it to 256 or more, and to 256,000 "
        "for whole chunks"
    )
    caplog.set_level(logging.WARNING)
    process._check_share(chosen(256_000, 1000, 64))
    assert not caplog.messages
    process._check_share(chosen(65_536, 1000, 64))
    assert caplog.messages == [
        "with all 64 partitions a chunk has 256 events instead of 1,000: worker.resident_profiles is 65,536, and whole "
        "chunks need 256,000"
    ]
