"""Disconnects a Kafka client within seconds, also if no broker answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

CLOSE_SECONDS = 3.0
"""How long disconnecting may take."""


async def closed(stop: Coroutine[Any, Any, None]) -> None:
    """Wait until a client has stopped, for at most `CLOSE_SECONDS`.

    Errors of the client are dropped: what made the process close it is reported, and must not be replaced. Without a
    broker, aiokafka ends with a cancellation of its own tasks, which would look like one of the caller.
    """
    stopping = asyncio.ensure_future(stop)
    stopping.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.wait([stopping], timeout=CLOSE_SECONDS)
    stopping.cancel()
