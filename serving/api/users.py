"""Routes of users: what is usual for one, how it went, and whom there is."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from streamguard.serving.api.parameters import Limit, Staleness, Token
from streamguard.serving.peers.answers import Coverage
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.users import Timeline, UserAnswer, UserNames

Name = Annotated[str, PathParameter(max_length=256, description="Name of the user, letter by letter")]


@get("/users", sync_to_thread=True, tags=["Users"], operation_id="listUsers")
def list_users(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    after: Annotated[str, QueryParameter(max_length=256, description="`next` of the page before")] = "",
    limit: Limit = 100,
) -> UserNames:
    """List the names of users with a profile, in alphabetical order."""
    return service.asked_users().names(after, limit, request.user)


@get(
    "/users/{name:str}",
    sync_to_thread=True,
    tags=["Users"],
    operation_id="showUser",
)
def show_user(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    name: Name,
    max_staleness: Staleness = None,
    at_least: Token = None,
) -> UserAnswer:
    """Show one user: what is usual, what is unusual now, speed against batch, and the latest incidents."""
    service.require_fresh(max_staleness, at_least)
    return service.asked_users().user(name, request.user)


@get("/users/{name:str}/timeline", sync_to_thread=True, tags=["Users"], operation_id="showTimeline")
def show_timeline(service: NamedDependency[QueryService], name: Name) -> Timeline:
    """Show how the incidents of a user followed each other, and what people did with them."""
    return service.asked_users().timeline(name)


@get("/partitions", sync_to_thread=True, tags=["Users"], operation_id="listPartitions")
def list_partitions(service: NamedDependency[QueryService]) -> Coverage:
    """Show which server answers for which partitions of the profiles, and for which none can."""
    return service.asked_users().profiles.coverage()


def router() -> Router:
    """The routes."""
    return Router("/v1", route_handlers=[list_users, show_user, show_timeline, list_partitions])
