"""Pages of incidents: the list with its filters, one incident, and the forms by which people act."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, unquote, urlencode

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromQuery, Parameter
from litestar.response import Redirect

from streamguard.events.event_time import epoch_ms
from streamguard.serving.api.actions import desk
from streamguard.serving.api.parameters import After, Id, Limit, incident_filter
from streamguard.serving.api.security import requires
from streamguard.serving.page.render import html
from streamguard.serving.query.cases import bulk_text
from streamguard.serving.query.detection import DetectionPreview, DetectionRequest
from streamguard.serving.query.filters import IncidentFilter, Sort
from streamguard.serving.query.reading import MAX_PAGE
from streamguard.serving.query.requests import ActionRequest, ConflictError
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.views import OPEN, View, viewed
from streamguard.text import printable

Shown = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=200)]] | None,
    Parameter(max_items=MAX_PAGE, description="Ids of the rows that are shown"),
]

NOT_UNDONE = ("undo", "unmask", "unmask_answer")
"""Kinds of actions that stay."""
_ORDER = ("sort", "limit")
"""Parameters that say how a list is shown, and not what is in it."""
_SHOWN_IN_FORM = {"text", "event", "since", "until", "sort", "view", "cursor"}


@get("/", dependencies={"wanted": Provide(incident_filter)}, sync_to_thread=True, include_in_schema=False)
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
    listed = viewed(wanted, view)
    page = service.incidents.page(listed, sort, limit, after)
    given = [
        (name, value) for name, value in request.query_params.multi_items() if name != "cursor" and value
    ]

    # Who sees pseudonyms has a field for one instead of a search.
    in_form = _SHOWN_IN_FORM if request.user.may("see_people") else _SHOWN_IN_FORM | {"entity"}

    def with_filter(name: str, value: str) -> str:
        """The address of this list with one more value of a filter, or without it if it has the value."""
        pairs = [pair for pair in given if pair != (name, value)]
        return "/?" + urlencode(pairs if len(pairs) < len(given) else [*given, (name, value)])

    return html(
        "incidents.html",
        caller=request.user,
        as_of=page.as_of,
        list=page,
        facets=service.incidents.facets(listed),
        wanted=wanted,
        query={name: request.query_params.get(name, "") for name in ("since", "until")},
        sort=sort,
        view=view,
        kept=[(name, value) for name, value in given if name not in in_form],
        chosen=set(given),
        filtered=bool(given),
        with_filter=with_filter,
        act="/act?" + urlencode([pair for pair in given if pair[0] not in _ORDER]),
        export="/v1/incidents.csv?" + urlencode(_exported(given, view)),
        next_page="/?" + urlencode([*given, ("cursor", page.next)]) if page.next else None,
    )


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
    found = service.incidents.incident(id)
    points = [(epoch_ms(one.incident.last_seen) or 0, one.incident.evidence_bits) for one in found.updates]
    event = msgspec.json.format(msgspec.json.encode(found.incident.event), indent=2).decode()
    asked = service.names.of_incident(id)
    return html(
        "incident.html",
        caller=request.user,
        as_of=found.as_of,
        found=found,
        points=sorted(points),
        preview=None if found.masked else _preview(service, id),
        event=printable(event, keep="\n"),
        asked=asked,
        earlier=service.incidents.earlier(id).earlier,
        undoable=[
            one
            for one in found.case.history
            if not one.rejected and not one.undone_by and one.kind not in NOT_UNDONE
        ],
    )


@post("/incidents/{id:str}/act", sync_to_thread=True, include_in_schema=False, guards=[requires("act")])
def act_on_incident(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    id: Id,
    data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Redirect:
    """Act on the incident of a page, and show it again."""
    desk(service).act(id, _wanted(data), request.user.name)
    return Redirect(f"/incidents/{quote(id, safe='')}", status_code=303)


@post("/incidents/{id:str}/decide", sync_to_thread=True, include_in_schema=False, guards=[requires("act")])
def decide(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    id: Id,
    data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Redirect:
    """Decide about a value of the user, and show the incident again."""
    fields = {name: value for name, value in data.items() if value}
    # The value that the person saw: that of the latest publication may have changed meanwhile.
    field, _, value = fields.pop("field", "").partition("=")
    if not value:
        raise ConflictError("choose a value of the list")
    fields |= {"field": field, "value": unquote(value)}
    try:
        wanted = msgspec.convert(fields, DetectionRequest, strict=False)
    except msgspec.ValidationError as error:
        raise ConflictError(f"the form is not complete: {error}") from None
    service.asked_detection().decide(id, wanted, request.user.name)
    return Redirect(f"/incidents/{quote(id, safe='')}", status_code=303)


def _preview(service: QueryService, id: str) -> DetectionPreview | None:
    """What "expected" would have changed; None if the incident has no value of a user."""
    if service.sources is None or service.incidents.incident(id).row.entity.kind == "crowd":
        return None  # a crowd has no values of its own
    try:
        return service.asked_detection().preview(id, DetectionRequest(decision="expected"))
    except ConflictError:
        return None


@post(
    "/act", dependencies={"wanted": Provide(incident_filter)}, sync_to_thread=True, include_in_schema=False,
    guards=[requires("act")], status_code=200,
)  # fmt: skip
def act_on_list(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)],
    view: FromQuery[View] = "raised",
) -> Response[str]:
    """Act on all incidents of a list, and say what was done."""
    answer = desk(service).act_on_list(viewed(wanted, view), _wanted(data), request.user.name)
    return html(
        "done.html", caller=request.user, text=bulk_text(answer), undo=answer.accepted and answer.action
    )


@post(
    "/act/{action:str}/undo", sync_to_thread=True, include_in_schema=False, guards=[requires("act")], status_code=200,
)  # fmt: skip
def undo_on_list(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], action: Id
) -> Response[str]:
    """Undo the action on a list that a page has confirmed."""
    answer = desk(service).undo_on_list(action, request.user.name)
    return html("done.html", caller=request.user, text=f"undo: {bulk_text(answer)}", undo=None)


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


def _wanted(form: dict[str, str]) -> ActionRequest:
    """The action that a form describes; empty fields are left out."""
    fields: dict[str, Any] = {name: value for name, value in form.items() if value}
    # An id is copied from the address of the other incident, or is that address.
    if "duplicate_of" in fields:
        fields["duplicate_of"] = unquote(fields["duplicate_of"].strip().rpartition("/")[2])
        fields["classification"] = "duplicate"
    if "expected" in form:
        fields["expected"] = form["expected"]
    try:
        return msgspec.convert(fields, ActionRequest, strict=False)
    except msgspec.ValidationError as error:
        raise ConflictError(f"the form is not complete: {error}") from None


ROUTES = (incidents_page, rows_fragment, incident_page, act_on_incident, decide, act_on_list, undo_on_list)
"""The routes."""
