"""Who may ask: keys and sessions, hosts and origins, headers of every answer, and how often."""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from collections import OrderedDict
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException, TooManyRequestsException
from litestar.handlers.base import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from streamguard.serving.api.keys import Keyring, Principal
from streamguard.serving.api.sessions import Access, Sessions
from streamguard.serving.masking.roles import RIGHTS, Right
from streamguard.serving.peers.group import PATH as PEER_PATH

COOKIE = "streamguard_session"
MAX_CALLERS = 10_000
"""Callers whose rates are remembered; those that have been quiet for the longest time are forgotten."""
MAX_BODY_BYTES = 64 << 10
"""Size of a request's body: the largest is a decision about a thousand incidents."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Headers of every answer. Incidents hold texts of attackers, so the page runs no inline script and loads nothing from
elsewhere."""
TRANSPORT_SECURITY = "max-age=31536000"
"""`Strict-Transport-Security` of answers over https: the browser asks by http no more for a year."""
_SAFE = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/sign-in", "/static/")
"""Paths that need no key: the form in which one enters it, and what that form shows."""


class Authentication(AbstractAuthenticationMiddleware):
    """Recognises the caller by the header `Authorization: Bearer KEY` or by the cookie of a session."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        """The caller; an unknown one is refused except on `OPEN_PATHS`."""
        if connection.scope["path"].startswith(
            PEER_PATH
        ):  # a peer states for whom it asks, and has counted it
            return AuthenticationResult(user=connection.app.state.peer_access.caller(connection), auth=None)
        keyring: Keyring = connection.app.state.keyring
        sessions: Sessions = connection.app.state.sessions
        scheme, _, key = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            access = Access(lambda: keyring.principal(key.strip()))
            found = access.current()
        else:
            cookie = connection.cookies.get(COOKIE, "")
            access = Access(lambda: sessions.principal(cookie) if cookie else None)
            found = access.current()
            if found is not None and connection.scope.get("method") not in _SAFE:
                _require_same_origin(connection)
        if found is None and not connection.scope["path"].startswith(OPEN_PATHS):
            raise NotAuthorizedException(
                "send a valid key as `Authorization: Bearer KEY`, or sign in on the page; keys expire"
            )
        if found is not None:
            connection.app.state.rates.count(found.name)
        return AuthenticationResult(user=found, auth=access)


def _require_same_origin(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Refuse a request that another site's page has sent with the cookie of this one."""
    origin = connection.headers.get("origin", "")
    if connection.headers.get("sec-fetch-site", "same-origin") != "same-origin" or (
        origin and urlsplit(origin).netloc != connection.headers.get("host", "")
    ):
        raise PermissionDeniedException("the request comes from a page of another site")


def requires(right: Right) -> Any:
    """A guard of a route that lets callers pass whose role has a right."""

    def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        caller: Principal = connection.user
        if not caller.may(right):
            raise PermissionDeniedException(
                f"the role {caller.role} may not do this; these may: {', '.join(RIGHTS[right])}"
            )

    return guard


class Rates:
    """Counts requests of each caller in a bucket that refills steadily.

    Parameters
    ----------
    per_minute
        Requests that a caller may make in a minute; all of them at once at most.

    Examples
    --------
    >>> rates = Rates(2)
    >>> rates.count("ann"), rates.count("ann")
    (None, None)
    >>> rates.count("ann")
    Traceback (most recent call last):
    litestar.exceptions.http_exceptions.TooManyRequestsException: 429: more than 2 requests a minute: wait 30 s
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def count(self, caller: str) -> None:
        """Count one request.

        Raises
        ------
        TooManyRequestsException
            If the caller has used all of them; with the header `Retry-After`.
        """
        now = time.monotonic()
        left, since = self._left.pop(caller, (float(self._per_minute), now))
        left = min(left + (now - since) * self._per_minute / 60.0, float(self._per_minute))
        allowed = left >= 1.0
        self._left[caller] = left - allowed, now
        if len(self._left) > MAX_CALLERS:
            self._left.popitem(last=False)
        if not allowed:
            seconds = math.ceil((1.0 - left) * 60.0 / self._per_minute)
            raise TooManyRequestsException(
                f"more than {self._per_minute} requests a minute: wait {seconds} s",
                headers={"Retry-After": str(seconds)},
            )


class Outermost:
    """Refuses foreign hosts and large bodies before anything else, and adds `HEADERS` to every answer.

    A page of another site can have its own name resolved to this machine's address and read answers in a browser (DNS
    rebinding). The name then stands in the header Host, so only known names and addresses are served.
    """

    def __init__(self, app: ASGIApp, allowed: str) -> None:
        self._app = app
        self._names = {"localhost", socket.gethostname().lower()} | {
            name.strip().lower() for name in allowed.split(",") if name.strip()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                answer = MutableScopeHeaders.from_message(message)
                for name, value in HEADERS.items():
                    answer.setdefault(name, value)
                if scope["scheme"] == "https":
                    answer.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)
            await send(message)

        refused = self._refused(headers)
        if refused is None:
            await self._app(scope, receive, sending)
            return
        status, text = refused
        body = f'{{"title":"{text}","status":{status}}}'.encode()
        await sending(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"application/problem+json"), (b"connection", b"close")],
            }
        )
        await sending({"type": "http.response.body", "body": body, "more_body": False})

    def _refused(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        try:
            host = urlsplit("//" + headers.get(b"host", b"").decode("latin-1")).hostname or ""
        except ValueError:
            host = ""
        if host not in self._names and not _is_address(host):
            return 421, "this host is not served here: add its name to serve.allowed_hosts"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES or b"transfer-encoding" in headers:
            return 413, f"the body is larger than {MAX_BODY_BYTES} bytes, or its length is not stated"
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
