"""Names in paths: an encoded slash is part of a name, although servers decode it into one that separates segments."""

from __future__ import annotations

from urllib.parse import unquote

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

_ESCAPE = "\ufdd0"
"""A noncharacter of Unicode, which texts do not contain. One in a name is escaped, too."""
_SLASH, _ITSELF = _ESCAPE + "1", _ESCAPE + "0"


def kept(raw_path: bytes) -> str:
    r"""A decoded path in which an encoded slash stays apart from one that separates segments.

    Examples
    --------
    >>> kept(b"/users/ann")
    '/users/ann'
    >>> kept(b"/users/a%2Fb%252F").split("/")[2] == "a" + "\ufdd0" + "1b%2F"
    True
    """
    return "/".join(
        unquote(segment).replace(_ESCAPE, _ITSELF).replace("/", _SLASH)
        for segment in raw_path.decode("latin-1").split("/")
    )


def restored(segment: str) -> str:
    r"""The name in a segment of a `kept` path.

    Examples
    --------
    >>> [restored(one) for one in kept(b"/users/a%2Fb%252F").split("/")]
    ['', 'users', 'a/b%2F']
    """
    return segment.replace(_SLASH, "/").replace(_ITSELF, _ESCAPE)


class KeepsSlashes:
    """Routes requests by the path as it was sent; without it, the name `a/b` would be two segments.

    It needs `RestoresNames` behind the routing, which gives handlers the names.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        raw = scope.get("raw_path") or b""
        if scope["type"] == ScopeType.HTTP and (b"%2f" in raw.lower() or _ESCAPE in scope["path"]):
            scope["path"] = kept(raw.partition(b"?")[0])
        await self._app(scope, receive, send)


class RestoresNames:
    """A middleware behind the routing: handlers get path parameters as the names that they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == ScopeType.HTTP:
            scope["path_params"] = {
                name: restored(value) if isinstance(value, str) else value
                for name, value in scope["path_params"].items()
            }
            scope["path"] = restored(scope["path"])
        await self._app(scope, receive, send)
