"""Routes of incidents, campaigns and totals."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, Parameter

from streamguard.serving.api.actions import tag
from streamguard.serving.api.parameters import (
    After,
    Id,
    Limit,
    Names,
    Staleness,
    Time,
    Token,
    incident_filter,
    milliseconds,
)
from streamguard.serving.api.revalidation import Known, unless_known
from streamguard.serving.api.table import next_link, table
from streamguard.serving.query.answers import (
    CampaignAnswer,
    EarlierIncidents,
    Facets,
    IncidentAnswer,
    Incidents,
    RankedUsers,
    Statistics,
)
from streamguard.serving.query.filters import EntityKind, IncidentFilter, Severity, Sort, Status
from streamguard.serving.query.incidents import MAX_EXPORT
from streamguard.serving.query.service import QueryService

_FILTERS = {"wanted": Provide(incident_filter)}


@get(
    "/incidents", dependencies=_FILTERS, sync_to_thread=True, tags=["Incidents"], operation_id="listIncidents"
)
def list_incidents(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    sort: FromQuery[Sort] = "evidence",
    limit: Limit = 50,
    after: After = None,
    max_staleness: Staleness = None,
    at_least: Token = None,
    known: Known = "",
) -> Response[Incidents]:
    """List incidents, the strongest or the latest first."""
    service.require_fresh(max_staleness, at_least)
    return unless_known(request, service, known, lambda: service.incidents.page(wanted, sort, limit, after))


@get(
    "/incidents/facets",
    dependencies=_FILTERS,
    sync_to_thread=True,
    tags=["Incidents"],
    operation_id="countIncidents",
)
def count_incidents(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    max_staleness: Staleness = None,
    at_least: Token = None,
    known: Known = "",
) -> Response[Facets]:
    """Count the incidents of a list, in total and by value."""
    service.require_fresh(max_staleness, at_least)
    return unless_known(request, service, known, lambda: service.incidents.facets(wanted))


@get(
    "/incidents.csv",
    dependencies=_FILTERS,
    sync_to_thread=True,
    tags=["Incidents"],
    operation_id="exportIncidents",
    media_type="text/csv",
)
def export_incidents(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    sort: FromQuery[Sort] = "evidence",
    after: After = None,
    max_staleness: Staleness = None,
    at_least: Token = None,
) -> Response[bytes]:
    """Export a list as CSV, 10,000 rows at most; the header `Link` has the address of the rest."""
    service.require_fresh(max_staleness, at_least)
    found = service.incidents.page(wanted, sort, MAX_EXPORT, after)
    headers = {"Content-Disposition": 'attachment; filename="incidents.csv"'}
    if found.next:
        headers["Link"] = next_link(request.url.path, request.query_params.multi_items(), found.next)
    return Response(table(found.incidents), media_type="text/csv", headers=headers)


@get("/incidents/{id:str}", sync_to_thread=True, tags=["Incidents"], operation_id="showIncident")
def show_incident(
    service: NamedDependency[QueryService], id: Id, max_staleness: Staleness = None, at_least: Token = None
) -> Response[IncidentAnswer]:
    """Show one incident with every publication of it, its campaign, and what people have made of it."""
    service.require_fresh(max_staleness, at_least)
    answer = service.incidents.incident(id)
    return Response(answer, headers={"ETag": tag(answer)})


@get(
    "/incidents/{id:str}/earlier",
    sync_to_thread=True,
    tags=["Incidents"],
    operation_id="listEarlierIncidents",
)
def list_earlier(
    service: NamedDependency[QueryService], id: Id, max_staleness: Staleness = None, at_least: Token = None
) -> EarlierIncidents:
    """List how earlier incidents of the entity, or with the same strongest pattern or reason, were closed."""
    service.require_fresh(max_staleness, at_least)
    return service.incidents.earlier(id)


@get("/campaigns/{id:str}", sync_to_thread=True, tags=["Incidents"], operation_id="showCampaign")
def show_campaign(
    service: NamedDependency[QueryService], id: Id, max_staleness: Staleness = None, at_least: Token = None
) -> CampaignAnswer:
    """Show one campaign; its incidents are listed by `/v1/incidents?campaign=`."""
    service.require_fresh(max_staleness, at_least)
    return service.incidents.campaign(id)


@get("/ranking", sync_to_thread=True, tags=["Users"], operation_id="rankEntities")
def rank_entities(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    kind: Annotated[EntityKind, Parameter(description="What is ranked")] = "user",
    limit: Limit = 50,
    since: Time = None,
    until: Time = None,
    entity: Names = None,
    severity: Annotated[list[Severity] | None, Parameter(max_items=4)] = None,
    status: Annotated[list[Status] | None, Parameter(max_items=3)] = None,
    max_staleness: Staleness = None,
    at_least: Token = None,
    known: Known = "",
) -> Response[RankedUsers]:
    """Rank users, addresses or crowds by the risk of their incidents; filters select the incidents that count."""
    service.require_fresh(max_staleness, at_least)
    wanted = IncidentFilter(
        since=milliseconds("since", since),
        until=milliseconds("until", until),
        entity=tuple(entity or ()),
        severity=tuple(severity or ()),
        status=tuple(status or ()),
    )
    return unless_known(request, service, known, lambda: service.totals.ranked(kind, limit, wanted))


@get("/statistics", sync_to_thread=True, tags=["System"], operation_id="showStatistics")
def show_statistics(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    max_staleness: Staleness = None,
    at_least: Token = None,
    known: Known = "",
) -> Response[Statistics]:
    """Show the totals of the live results."""
    service.require_fresh(max_staleness, at_least)
    return unless_known(request, service, known, service.totals.statistics)


def router() -> Router:
    """The routes."""
    return Router(
        "/v1",
        route_handlers=[
            list_incidents,
            count_incidents,
            export_incidents,
            show_incident,
            list_earlier,
            show_campaign,
            rank_entities,
            show_statistics,
        ],
    )
