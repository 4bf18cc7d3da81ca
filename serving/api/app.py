"""The web application: the API, the page, and what both share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from litestar import Litestar, Request, Response
from litestar.config.compression import CompressionConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

import streamguard
from streamguard.serving.api import (
    actions,
    archived,
    docs,
    incidents,
    peers,
    problems,
    results,
    sources,
    stream,
    unmasking,
    users,
)
from streamguard.serving.api.document import Document
from streamguard.serving.api.keys import Keyring, Principal
from streamguard.serving.api.limits import Limited
from streamguard.serving.api.measure import Measured
from streamguard.serving.api.names import KeepsSlashes, RestoresNames
from streamguard.serving.api.security import Authentication, Outermost, Rates
from streamguard.serving.api.sessions import PrintedAddress, Sessions
from streamguard.serving.api.unknown import refuse_unknown
from streamguard.serving.masking.seen import SeenService
from streamguard.serving.masking.viewer import Viewer
from streamguard.serving.query.service import QueryService
from streamguard.settings.schema import Serve

DESCRIPTION = (
    "Incidents, campaigns, users and batch results of StreamGuard. Every answer says in `as_of` where it comes from, "
    "how far it has followed its source, and how old it may be. Errors are problem details (RFC 9457)."
)

COMPRESSION = CompressionConfig(
    "gzip", minimum_size=1000, gzip_compress_level=5, exclude=["^/v1/stream", "^/sign-"]
)
"""How answers are compressed; events of a stream must not wait for more of it.

The length of a compressed answer can reveal what it contains to somebody who listens on the network and can make it
contain guesses (BREACH). No answer has a secret that opens something: no key, no token against forged requests
(cookies are strict, and origins are checked), and signing in is not compressed. A page of another site cannot ask with
a person's cookie. What remains is that somebody who writes log texts and listens guesses at another text of the same
list, while the list changes all the time."""


def seen_by(request: Request[Any, Any, Any]) -> QueryService:
    """The service as the caller of a request sees it."""
    caller: Principal = request.user
    service: QueryService = request.app.state.service
    path = request.scope["path_template"]
    viewer = Viewer(
        service.privacy,
        service.names,
        caller.name,
        caller.role,
        f"{request.method} {path}",
        repeated=path == "/rows",  # with which a list that is open follows its changes
    )
    return SeenService(service, viewer)


def application(
    service: QueryService,
    keyring: Keyring,
    settings: Serve,
    page: Sequence[Any] = (),
    problem_page: Callable[[problems.Problem], Response[Any]] | None = None,
    *,
    sessions: Sessions | None = None,
    peer_access: peers.PeerAccess | None = None,
    state: Mapping[str, Any] | None = None,
) -> Measured:
    """The ASGI application.

    Parameters
    ----------
    service
        What is asked.
    keyring
        Who may ask.
    settings
        Allowed hosts and rates.
    page
        Routes of the page.
    problem_page
        Shows a problem to a person; None: only programs ask.
    sessions
        Who is signed in; None: sessions of this server only.
    peer_access
        Recognises other servers; None: none may ask.
    state
        What else the page needs.
    """
    streams = stream.Streams()
    app = Litestar(
        route_handlers=[
            incidents.router(),
            actions.router(),
            users.router(),
            peers.router(),
            results.router(),
            unmasking.router(),
            archived.router(),
            sources.router(),
            stream.stream_changes,
            docs.documentation,
            docs.documentation_file,
            *page,
        ],
        dependencies={
            "service": Provide(seen_by, sync_to_thread=False),
            "streams": Provide(lambda: streams, sync_to_thread=False),
        },
        middleware=[DefineMiddleware(RestoresNames), DefineMiddleware(Authentication)],
        exception_handlers={Exception: problems.answer},
        state=State(
            {
                "service": service,
                "keyring": keyring,
                "sessions": sessions or Sessions(keyring),
                "printed": PrintedAddress(),
                "rates": Rates(settings.requests_per_minute),
                "problem_page": problem_page,
                "peer_access": peer_access or peers.PeerAccess(None),
                "has_archive": bool(settings.archive_dir),
                **(state or {}),
            }
        ),
        compression_config=COMPRESSION,
        before_request=refuse_unknown,
        openapi_config=OpenAPIConfig(
            title="StreamGuard",
            version=streamguard.__version__,
            description=DESCRIPTION,
            path="/v1/openapi",
            use_handler_docstrings=True,
            render_plugins=[Document(path="/document.json")],
            components=Components(
                security_schemes={
                    "key": SecurityScheme(type="http", scheme="bearer", description="An access key"),
                }
            ),
            security=[{"key": []}],
        ),
        logging_config=None,
        debug=False,
    )
    return Measured(Outermost(Limited(KeepsSlashes(app)), peers.with_peers(settings)))
