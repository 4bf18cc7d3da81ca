"""Pages of one source address, and of the crowd."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from streamguard.serving.api.sources import Address
from streamguard.serving.page.render import html
from streamguard.serving.query.service import QueryService


@get("/sources/{address:str}", sync_to_thread=True, include_in_schema=False)
def source_page(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], address: Address
) -> Response[str]:
    """One address."""
    found = service.asked_sources().source(address, request.user)
    return html("source.html", caller=request.user, as_of=found.as_of, found=found, list=found)


@get("/crowd", sync_to_thread=True, include_in_schema=False)
def crowd_page(request: Request[Any, Any, Any], service: NamedDependency[QueryService]) -> Response[str]:
    """Everybody together."""
    found = service.asked_sources().crowd(request.user)
    return html("crowd.html", caller=request.user, as_of=found.as_of, found=found, list=found)


ROUTES = (source_page, crowd_page)
"""The routes."""
