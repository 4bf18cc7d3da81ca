"""Signing in with a provider: the way there, the way back, and what went wrong as a person sees it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Annotated, Any

from litestar import Request, Response, get
from litestar.datastructures import Cookie
from litestar.exceptions import NotFoundException
from litestar.params import QueryParameter
from litestar.response import Redirect

from streamguard.serving.oidc.errors import ProviderError, SignInError
from streamguard.serving.page.render import html
from streamguard.serving.page.session import begun

if TYPE_CHECKING:  # a server without a provider does not load what talks to one
    from streamguard.serving.oidc.flow import Flow

BEGUN_COOKIE = "streamguard_sign_in"
"""Binds a sign-in to the browser that began it. It is `Lax`, since the browser comes back from another site."""
CALLBACK = "/sign-in/oidc/callback"
"""The address to which the provider sends the browser back, which has to be registered there."""
_CODE = re.compile(r"[a-z_]{1,40}")
_log = logging.getLogger(__name__)


@get("/sign-in/oidc", sync_to_thread=True, include_in_schema=False)
def to_provider(request: Request[Any, Any, Any]) -> Response[Any]:
    """Send the browser to the provider. The form leads here by a link, because its policy permits no form elsewhere."""
    try:
        flow = _flow(request)
        address, begun_cookie = flow.begin(_callback(request))
    except ProviderError as error:
        return _problem(request, error)
    answer = Redirect(address, status_code=302)
    answer.set_cookie(_begun(request, begun_cookie, flow.begun_seconds))
    return answer


@get(CALLBACK, sync_to_thread=True, include_in_schema=False)
def from_provider(
    request: Request[Any, Any, Any],
    returned: Annotated[str, QueryParameter(name="state", max_length=200)] = "",
    code: Annotated[str, QueryParameter(name="code", max_length=4000)] = "",
    refusal: Annotated[str, QueryParameter(name="error", max_length=200)] = "",
) -> Response[Any]:
    """Begin the session of the person whom the provider names."""
    try:
        if refusal:
            # The text is the sender's; only codes of the protocol are shown.
            word = refusal if _CODE.fullmatch(refusal) else "an unknown reason"
            raise SignInError(f"the provider has not signed you in ({word}): sign in again")
        person = _flow(request).finish(
            request.cookies.get(BEGUN_COOKIE, ""), returned, code, _callback(request)
        )
    except (SignInError, ProviderError) as error:
        return _problem(request, error)
    _log.info("%s signed in with the provider as %s", person.name, person.role)
    answer = begun(request, request.app.state.sessions.begin_for(person))
    answer.set_cookie(_begun(request, "", 0))
    return answer


def _problem(request: Request[Any, Any, Any], error: SignInError | ProviderError) -> Response[str]:
    _log.warning("a sign-in with the provider has failed: %s", ascii(str(error))[1:-1])
    answer = html("sign_in_problem.html", status=error.status, title=error.title, detail=str(error))
    answer.set_cookie(_begun(request, "", 0))
    return answer


def _flow(request: Request[Any, Any, Any]) -> Flow:
    flow: Flow | None = request.app.state.get("flow")
    if flow is None:
        raise NotFoundException("no provider is set: sign in with an access key")
    return flow


def _callback(request: Request[Any, Any, Any]) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}{CALLBACK}"


def _begun(request: Request[Any, Any, Any], value: str, seconds: int) -> Cookie:
    return Cookie(
        BEGUN_COOKIE,
        value=value,
        path="/sign-in",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        max_age=seconds,
    )


ROUTES = (to_provider, from_provider)
"""The routes."""
