"""Pages of incidents: the list with its filters, and one incident, each with a form that was refused if any."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, Parameter

from streamguard.events.event_time import epoch_ms
from streamguard.serving.api.parameters import (
    After,
    Id,
    Limit,
    TimeError,
    incident_filter,
    lenient_filter,
    milliseconds,
)
from streamguard.serving.decisions.wording import deeds
from streamguard.serving.page.forms import Refused, refused_form
from streamguard.serving.page.render import html
from streamguard.serving.query.answers import Facets, Incidents
from streamguard.serving.query.detection import DetectionPreview, DetectionRequest
from streamguard.serving.query.filters import OPEN, IncidentFilter, Sort
from streamguard.serving.query.reading import MAX_PAGE
from streamguard.serving.query.requests import ConflictError
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.views import View, viewed
from streamguard.text import printable

Shown = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=200)]] | None,
    Parameter(max_items=MAX_PAGE, description="Ids of the rows that are shown"),
]

TIMES = ("since", "until")
"""Parameters of the list that people write by hand."""
NO_COUNTS = Facets(0, (), (), (), (), (), (), ())
"""Counts of a list that is not shown."""
NOT_UNDONE = ("undo", "unmask", "unmask_answer")
"""Kinds of actions that stay."""
_ORDER = ("sort", "limit")
"""Parameters that say how a list is shown, and not what is in it."""
_SHOWN_IN_FORM = {"text", "event", "since", "until", "sort", "view", "cursor"}


@get("/", dependencies={"wanted": Provide(lenient_filter)}, sync_to_thread=True, include_in_schema=False)
def incidents_page(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    sort: FromQuery[Sort] = "evidence",
    view: FromQuery[View] = "raised",
    limit: Limit = 50,
    after: After = None,
) -> Response[str]:
    """The list of incidents with its filters."""
    given = [pair for pair in parameters(request) if pair[0] != "cursor"]
    for name in TIMES:
        try:
            milliseconds(name, request.query_params.get(name))
        except TimeError as error:
            form = refused_form("filter", dict(request.query_params), error, field=name)
            return shown_list(request, service, wanted, view, given, sort, refused=form)
    return shown_list(request, service, wanted, view, given, sort, limit, after)


def shown_list(
    request: Request[Any, Any, Any],
    service: QueryService,
    wanted: IncidentFilter,
    view: View,
    given: list[tuple[str, str]],
    sort: Sort = "evidence",
    limit: int = 50,
    after: str | None = None,
    refused: Refused | None = None,
) -> Response[str]:
    """The list of incidents, with a form that was refused if there is one.

    Parameters
    ----------
    given
        The parameters of the address of the list, without the cursor.
    refused
        The form. If it is that of the filters, no rows are shown: they would not be those that were asked for.
    """
    listed = viewed(wanted, view)
    if refused is not None and refused.form == "filter":
        page, facets = Incidents((), None, service.as_of()), NO_COUNTS
    else:
        page, facets = service.incidents.page(listed, sort, limit, after), service.incidents.facets(listed)

    # Who sees pseudonyms has a field for one instead of a search.
    in_form = _SHOWN_IN_FORM if request.user.may("see_people") else _SHOWN_IN_FORM | {"entity"}

    def with_filter(name: str, value: str) -> str:
        """The address of this list with one more value of a filter, or without it if it has the value."""
        pairs = [pair for pair in given if pair != (name, value)]
        return "/?" + urlencode(pairs if len(pairs) < len(given) else [*given, (name, value)])

    answer = html(
        "incidents.html",
        caller=request.user,
        as_of=page.as_of,
        list=page,
        facets=facets,
        wanted=wanted,
        query={name: request.query_params.get(name, "") for name in TIMES},
        sort=sort,
        view=view,
        kept=[(name, value) for name, value in given if name not in in_form],
        chosen=set(given),
        filtered=bool(given),
        with_filter=with_filter,
        act="/act?" + urlencode([pair for pair in given if pair[0] not in _ORDER]),
        back=urlencode(given),
        export="/v1/incidents.csv?" + urlencode(_exported(given, view)),
        next_page="/?" + urlencode([*given, ("cursor", page.next)]) if page.next else None,
        refused=refused,
    )
    return refused.on(answer) if refused is not None else answer


@get("/rows", dependencies={"wanted": Provide(incident_filter)}, sync_to_thread=True, include_in_schema=False)
def rows_fragment(
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    sort: FromQuery[Sort] = "evidence",
    view: FromQuery[View] = "raised",
    limit: Limit = 50,
    after: After = None,
    shown: Shown = None,
) -> Response[str]:
    """The rows of a list alone, with which a browser updates the list that it shows.

    Of the rows that it shows, those that are on a later page now follow as a second part. A row that is in neither part
    is no longer in the list.
    """
    listed = viewed(wanted, view)
    page = service.incidents.page(listed, sort, limit, after)
    first = {row.id for row in page.incidents}
    missing = tuple(id for id in shown or () if id not in first)
    later = (
        service.incidents.page(msgspec.structs.replace(listed, id=missing), sort, len(missing)).incidents
        if missing
        else ()
    )
    return html("changed_rows.html", list=page, later=later)


@get("/incidents/{id:str}", sync_to_thread=True, include_in_schema=False)
def incident_page(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], id: Id
) -> Response[str]:
    """One incident."""
    return shown_incident(request, service, id)


def shown_incident(
    request: Request[Any, Any, Any], service: QueryService, id: str, refused: Refused | None = None
) -> Response[str]:
    """One incident, with a form that was refused if there is one."""
    found = service.incidents.incident(id)
    points = [(epoch_ms(one.incident.last_seen) or 0, one.incident.evidence_bits) for one in found.updates]
    event = msgspec.json.format(msgspec.json.encode(found.incident.event), indent=2).decode()
    preview = None if found.masked else _preview(service, id)
    answer = html(
        "incident.html",
        caller=request.user,
        as_of=found.as_of,
        found=found,
        points=sorted(points),
        preview=preview,
        missing_key=service.asked_detection().missing_key() if preview is not None else "",
        event=printable(event, keep="\n"),
        asked=service.names.of_incident(id),
        earlier=service.incidents.earlier(id).earlier,
        undoable=[
            one
            for one in found.case.history
            if not one.rejected and not one.undone_by and one.kind not in NOT_UNDONE
        ],
        deeds=deeds(found.case),
        refused=refused,
    )
    return refused.on(answer) if refused is not None else answer


def _preview(service: QueryService, id: str) -> DetectionPreview | None:
    """What "expected" would have changed; None if the incident has no value of a user."""
    if service.sources is None or service.incidents.incident(id).row.entity.kind == "crowd":
        return None  # a crowd has no values of its own
    try:
        return service.asked_detection().preview(id, DetectionRequest(decision="expected"))
    except ConflictError:
        return None


def parameters(request: Request[Any, Any, Any]) -> list[tuple[str, str]]:
    """The parameters of an address that have a value, in its order: `multi_items` of Litestar has none."""
    return parse_qsl(request.url.query)


def _exported(given: list[tuple[str, str]], view: View) -> list[tuple[str, str]]:
    """The parameters of the API for the list that a page shows, see `viewed`."""
    pairs = [pair for pair in given if pair[0] not in ("view", "limit")]
    named = {name for name, _ in pairs}
    if view != "all":
        pairs = [pair for pair in pairs if pair[0] != "muted"] + [("muted", "false")]
        pairs += [] if "status" in named else [("status", one) for one in OPEN]
    if view == "raised":
        pairs = [pair for pair in pairs if pair[0] not in ("raised", "grouped")]
        pairs += [("raised", "true"), ("grouped", "true")]
    return pairs


ROUTES = (incidents_page, rows_fragment, incident_page)
"""The routes."""
