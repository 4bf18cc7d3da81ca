"""Signing in and out, the files of the page, and problems as a person sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.enums import RequestEncodingType
from litestar.exceptions import PermissionDeniedException
from litestar.params import Body, Parameter, QueryParameter
from litestar.response import Redirect

from streamguard.pictures.templates import STYLE
from streamguard.serving.api.keys import Keyring
from streamguard.serving.api.problems import Problem
from streamguard.serving.api.security import COOKIE
from streamguard.serving.api.sessions import SESSION_SECONDS, Sessions
from streamguard.serving.page.render import html, text

STATIC = Path(__file__).parent / "static"
_SHARED = {STYLE.name: STYLE}
"""Files that the report of a retrain contains, too."""
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class SignIn(msgspec.Struct, frozen=True):
    """The form in which a person enters a key."""

    key: Annotated[str, msgspec.Meta(max_length=200)]


@get("/sign-in", sync_to_thread=False, include_in_schema=False)
def sign_in_page(
    request: Request[Any, Any, Any],
    key: Annotated[str | None, QueryParameter(name="key", max_length=200)] = None,
) -> Response[str] | Redirect:
    """The form, or with the key in the address that the server has printed, the session at once."""
    if key is None:
        return _form(request)
    keyring: Keyring = request.app.state.keyring
    if not keyring.is_given(key):
        return _form(request, 403, "in_address")
    if not request.app.state.printed.use():
        return _form(request, 403, "used")
    return _signed_in(request, key)


@post("/sign-in", sync_to_thread=False, include_in_schema=False, status_code=200)
def sign_in(
    request: Request[Any, Any, Any], data: Annotated[SignIn, Body(media_type=RequestEncodingType.URL_ENCODED)]
) -> Response[str] | Redirect:
    """Begin a session."""
    return _signed_in(request, data.key)


def _signed_in(request: Request[Any, Any, Any], key: str) -> Response[str] | Redirect:
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise PermissionDeniedException("the request comes from a page of another site")
    sessions: Sessions = request.app.state.sessions
    session = sessions.begin(key)
    return _form(request, 403, "wrong") if session is None else begun(request, session)


def begun(request: Request[Any, Any, Any], session: str) -> Response[str]:
    """The answer that gives the browser its session and leads on to the page.

    It is a page and no redirection: the browser sends a strict cookie only to a page of the same site.
    """
    secure = request.url.scheme == "https"
    cookie = Cookie(
        COOKIE, value=session, httponly=True, samesite="strict", secure=secure, max_age=SESSION_SECONDS
    )
    return Response(
        text("problem.html", problem={"title": "Signed in", "detail": "The session ends in twelve hours."}),
        media_type="text/html; charset=utf-8",
        headers={"Refresh": "0; url=/"},
        cookies=[cookie],
    )


@post("/sign-out", sync_to_thread=False, include_in_schema=False, status_code=200)
def sign_out(request: Request[Any, Any, Any]) -> Response[str]:
    """End the session, and with it every copy of its cookie."""
    request.app.state.sessions.end(request.cookies.get(COOKIE, ""))
    answer = _form(request)
    answer.set_cookie(Cookie(COOKIE, value="", httponly=True, samesite="strict", max_age=0))
    return answer


def _form(request: Request[Any, Any, Any], status: int = 200, notice: str = "") -> Response[str]:
    flow = request.app.state.get("flow")
    return html("sign_in.html", status=status, notice=notice, provider=flow.host if flow else "")


@get("/static/{name:str}", sync_to_thread=False, include_in_schema=False)
def static_file(name: Annotated[str, Parameter(pattern=r"^[a-z]{1,20}\.(css|js|svg)$")]) -> Response[bytes]:
    """A file of the page."""
    path = _SHARED.get(name, STATIC / name)
    if not path.is_file():
        return Response(b"", status_code=404, media_type=MediaType.TEXT)
    return Response(
        path.read_bytes(),
        media_type=f"{_TYPES[path.suffix]}; charset=utf-8",
        headers={"Cache-Control": "no-cache"},
    )


def problem_page(problem: Problem, provider: str = "") -> Response[str]:
    """A problem as a person sees it; who is not signed in sees the form, with the provider if there is one."""
    if problem.status == 401:
        return html("sign_in.html", status=401, notice="", provider=provider)
    return html("problem.html", status=problem.status, problem=problem)


ROUTES = (sign_in_page, sign_in, sign_out, static_file)
"""The routes."""
