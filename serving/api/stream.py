"""Changes as Server-Sent Events: a browser receives a number for each change, and asks for what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.exceptions import TooManyRequestsException
from litestar.params import HeaderParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from streamguard.serving.query.service import QueryService

POLL_SECONDS = 0.05
"""Interval at which the projection is compared with what a browser has received; it bounds the delay of a change."""
SILENCE_SECONDS = 15.0
"""Longest silence: a proxy closes a connection that it believes to be dead."""
MAX_STREAMS = 200
"""Open streams of a server."""


class Streams:
    """Counts the open streams."""

    open = 0


async def _changes(
    service: QueryService, seen: int, streams: Streams
) -> AsyncIterator[ServerSentEventMessage]:
    streams.open += 1
    try:
        silent = 0.0
        while True:
            now = service.sequence
            if now != seen:
                seen, silent = now, 0.0
                yield ServerSentEventMessage(event="changed", id=str(now), data=str(now))
            elif silent >= SILENCE_SECONDS:
                silent = 0.0
                yield ServerSentEventMessage(comment="still here")
            await asyncio.sleep(POLL_SECONDS)
            silent += POLL_SECONDS
    finally:
        streams.open -= 1


@get("/v1/stream", tags=["Incidents"], operation_id="streamChanges", media_type="text/event-stream")
async def stream_changes(
    service: NamedDependency[QueryService],
    streams: NamedDependency[Streams],
    last: Annotated[str | None, HeaderParameter(name="Last-Event-ID", pattern=r"^\d{1,18}$")] = None,
) -> ServerSentEvent:
    """Send an event `changed` for each change of the projection; its id is the sequence number.

    With `Last-Event-ID`, a change that happened while the browser was away is sent at once.
    """
    if streams.open >= MAX_STREAMS:
        raise TooManyRequestsException("the server has too many open streams", headers={"Retry-After": "5"})
    seen = int(last) if last is not None else service.sequence
    return ServerSentEvent(_changes(service, seen, streams))
