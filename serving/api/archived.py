"""Routes of events that an archive keeps: those of a user, page by page."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import Parameter, QueryParameter

from streamguard.serving.api.parameters import Time, milliseconds
from streamguard.serving.api.results import available
from streamguard.serving.api.users import Name
from streamguard.serving.query.archived import PLACE, UserEvents
from streamguard.serving.query.service import QueryService
from streamguard.serving.results.archive import MAX_EVENTS


@get("/users/{name:str}/events", sync_to_thread=True, tags=["Users"], operation_id="listUserEvents")
def list_user_events(
    service: NamedDependency[QueryService],
    name: Name,
    since: Time = None,
    until: Time = None,
    limit: Annotated[int, Parameter(ge=1, le=MAX_EVENTS, description="Events of a page")] = 50,
    after: Annotated[
        str | None, QueryParameter(name="cursor", pattern=PLACE, description="`next` of the page before")
    ] = None,
) -> UserEvents:
    """List the archived events of a user, the latest first; each names the incidents that were published for it."""
    times = milliseconds("since", since), milliseconds("until", until)
    return available(service.asked_archived().of_user(name, *times, limit, after))


def router() -> Router:
    """The routes."""
    return Router("/v1", route_handlers=[list_user_events])
