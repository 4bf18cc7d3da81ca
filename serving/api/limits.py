"""Bounds what one request may cost."""

from __future__ import annotations

from litestar.types import ASGIApp, Receive, Scope, Send

from streamguard.serving.projection.reader import SECONDS, limited


class Limited:
    """Lets the statements of each request compute for a limited time; a thread that answers it inherits the limit.

    Parameters
    ----------
    app
        What answers.
    seconds
        The time.
    """

    def __init__(self, app: ASGIApp, seconds: float = SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        with limited(self._seconds):
            await self._app(scope, receive, send)
