"""Counts requests and measures their time, by the class of their route: no address, key or text is kept."""

from __future__ import annotations

import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from streamguard.metrics import SERVE_REQUEST_SECONDS, SERVE_REQUESTS, SERVE_STREAMS

_CLASSES = (
    ("/v1/stream", "stream"),
    ("/v1/docs", "static"),
    ("/v1/", "api"),
    ("/static/", "static"),
    ("/sign-", "sign_in"),
)
"""Class of a path by its beginning; the first that fits counts."""


def route_class(path: str) -> str:
    """The class of a path, one of `metrics.ROUTES`.

    Examples
    --------
    >>> route_class("/v1/incidents/3-17"), route_class("/v1/stream"), route_class("/incidents/3-17")
    ('api', 'stream', 'page')
    """
    return next((found for beginning, found in _CLASSES if path.startswith(beginning)), "page")


class Measured:
    """Measures every request before anything else handles it, so that refused ones count, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; an answer that never begins counts as an error of the server."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        route, began, status = route_class(scope["path"]), time.perf_counter(), 500
        streams = False

        async def sending(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                if route == "stream":
                    SERVE_REQUEST_SECONDS.labels(route).observe(time.perf_counter() - began)
                    streams = status < 300
                    SERVE_STREAMS.inc(streams)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            SERVE_STREAMS.dec(streams)
            SERVE_REQUESTS.labels(route, f"{status // 100}xx").inc()
            if route != "stream":
                SERVE_REQUEST_SECONDS.labels(route).observe(time.perf_counter() - began)
