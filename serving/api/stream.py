"""Changes as Server-Sent Events: a browser receives a number for each change, and asks for what it shows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.exceptions import TooManyRequestsException
from litestar.params import HeaderParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from streamguard.serving.api.keys import Principal
from streamguard.serving.api.sessions import Access
from streamguard.serving.query.service import QueryService

POLL_SECONDS = 0.05
"""Interval at which the projection is compared with what a browser has received; it bounds the delay of a change."""
SILENCE_SECONDS = 15.0
"""Longest silence: a proxy closes a connection that it believes to be dead."""
CHECK_SECONDS = 5.0
"""Interval at which it is checked that the key or the session of a stream is still valid."""
MAX_STREAMS = 200
"""Open streams of a server."""
MAX_OWN_STREAMS = 8
"""Open streams of one name: a browser shares one between its tabs."""


class Streams:
    """Counts the open streams, in total and by the name of the caller."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def problem(self, name: str) -> str:
        """Why the caller may open no further stream; empty if it may."""
        if self.of.total() >= MAX_STREAMS:
            return "the server has too many open streams"
        if self.of[name] >= MAX_OWN_STREAMS:
            return f"{name} has {MAX_OWN_STREAMS} open streams, which is the maximum: close one"
        return ""


async def _changes(
    service: QueryService, seen: int, streams: Streams, name: str, access: Access
) -> AsyncIterator[ServerSentEventMessage]:
    if streams.problem(name):  # others were opened since the request was accepted
        return
    streams.of[name] += 1
    try:
        silent = unchecked = 0.0
        while True:
            if unchecked >= CHECK_SECONDS:
                unchecked = 0.0
                caller = await asyncio.to_thread(access.current)
                if caller is None or caller.name != name:
                    return
            now = service.sequence
            if now != seen:
                seen, silent = now, 0.0
                yield ServerSentEventMessage(event="changed", id=str(now), data=str(now))
            elif silent >= SILENCE_SECONDS:
                silent = 0.0
                yield ServerSentEventMessage(comment="still here")
            await asyncio.sleep(POLL_SECONDS)
            silent += POLL_SECONDS
            unchecked += POLL_SECONDS
    finally:
        streams.of[name] -= 1
        if not streams.of[name]:
            del streams.of[name]


@get("/v1/stream", tags=["Incidents"], operation_id="streamChanges", media_type="text/event-stream")
async def stream_changes(
    request: Request[Principal, Access, Any],
    service: NamedDependency[QueryService],
    streams: NamedDependency[Streams],
    last: Annotated[str | None, HeaderParameter(name="Last-Event-ID", pattern=r"^\d{1,18}$")] = None,
) -> ServerSentEvent:
    """Send an event `changed` for each change of the projection; its id is the sequence number.

    With `Last-Event-ID`, a change that happened while the browser was away is sent at once. The stream ends when the
    key or the session ends.
    """
    name = request.user.name
    if problem := streams.problem(name):
        raise TooManyRequestsException(problem, headers={"Retry-After": "5"})
    seen = int(last) if last is not None else service.sequence
    return ServerSentEvent(_changes(service, seen, streams, name, request.auth))
