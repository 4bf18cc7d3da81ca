"""A proxy between clients and one Kafka broker that delays answers, and drops the answers to writes."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from types import TracebackType
from typing import Self

from streamguard.testing.broker import HOST

PRODUCE, END_TRANSACTION, ADD_PARTITIONS = 0, 26, 24
WRITES = frozenset({PRODUCE, END_TRANSACTION, ADD_PARTITIONS})
"""Requests of Kafka's protocol whose answer says that something was written."""


class Proxy:
    """Listens on `port` and forwards to the broker's port.

    Parameters
    ----------
    port, target
        Ports on loopback. The broker advertises `port`.

    Attributes
    ----------
    cut_every
        Of the answers to writes, each one with this number is dropped and its connection cut: the broker has written,
        and the client does not know. 0: none.
    delay
        Seconds for which each answer is held back.
    cuts
        Number of answers that were dropped.
    """

    def __init__(self, port: int, target: int) -> None:
        self.cut_every = 0
        self.delay = 0.0
        self.cuts = 0
        self._answers = 0
        self._port, self._target = port, target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, HOST, self._port), self._loop
        )
        self._server = started.result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            broker, to_broker = await asyncio.open_connection(HOST, self._target)
        except OSError:
            to_client.close()
            return
        writes: set[int] = set()
        tasks = [
            asyncio.ensure_future(self._requests(client, to_broker, writes)),
            asyncio.ensure_future(self._answers_of(broker, to_client, writes)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
                await task
        for writer in (to_client, to_broker):
            writer.close()

    async def _requests(
        self, client: asyncio.StreamReader, to_broker: asyncio.StreamWriter, writes: set[int]
    ) -> None:
        while True:
            size = await client.readexactly(4)
            request = await client.readexactly(struct.unpack(">i", size)[0])
            kind, _, correlation = struct.unpack_from(">hhi", request)
            if kind in WRITES:
                writes.add(correlation)
            to_broker.write(size + request)
            await to_broker.drain()

    async def _answers_of(
        self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter, writes: set[int]
    ) -> None:
        while True:
            size = await broker.readexactly(4)
            answer = await broker.readexactly(struct.unpack(">i", size)[0])
            (correlation,) = struct.unpack_from(">i", answer)
            if correlation in writes:
                writes.discard(correlation)
                self._answers += 1
                if self.cut_every and self._answers % self.cut_every == 0:
                    self.cuts += 1
                    return
            if self.delay:
                await asyncio.sleep(self.delay)
            to_client.write(size + answer)
            await to_client.drain()
