"""Routes of source addresses and of the crowd: what is known of one address, which need attention, and everybody."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.params import PathParameter

from streamguard.serving.api.parameters import Limit, Staleness, Token
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.sources import CrowdAnswer, SourceAnswer, SourceList

Address = Annotated[str, PathParameter(max_length=256, description="The address, in any spelling")]


@get("/sources", sync_to_thread=True, tags=["Sources"], operation_id="listSources")
def list_sources(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    limit: Limit = 50,
    max_staleness: Staleness = None,
    at_least: Token = None,
) -> SourceList:
    """List addresses with incidents by risk, and addresses that fail now."""
    service.require_fresh(max_staleness, at_least)
    return service.asked_sources().listed(limit, request.user)


@get("/sources/{address:str}", sync_to_thread=True, tags=["Sources"], operation_id="showSource")
def show_source(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    address: Address,
    max_staleness: Staleness = None,
    at_least: Token = None,
) -> SourceAnswer:
    """Show one address: its failures now, its users, its incidents, and the attacks in which it takes part."""
    service.require_fresh(max_staleness, at_least)
    return service.asked_sources().source(address, request.user)


@get("/crowd", sync_to_thread=True, tags=["Sources"], operation_id="showCrowd")
def show_crowd(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    max_staleness: Staleness = None,
    at_least: Token = None,
) -> CrowdAnswer:
    """Show everybody together: what happens now against what is usual, hours of the week, incidents of crowds."""
    service.require_fresh(max_staleness, at_least)
    return service.asked_sources().crowd(request.user)


def router() -> Router:
    """The routes."""
    return Router("/v1", route_handlers=[list_sources, show_source, show_crowd])
