"""Forms by which people act on one incident: a mute is shown before it is made, and a mistake loses nothing."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.response import Redirect

from streamguard.errors import StreamGuardError
from streamguard.serving.api.actions import desk
from streamguard.serving.api.parameters import Id
from streamguard.serving.api.security import requires
from streamguard.serving.api.unmasking import unmask_desk
from streamguard.serving.decisions.mute import MARGIN_BITS
from streamguard.serving.decisions.record import new_id
from streamguard.serving.page import forms
from streamguard.serving.page.forms import Form
from streamguard.serving.page.incidents import shown_incident
from streamguard.serving.page.render import html
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.requests import ActionRequest
from streamguard.serving.query.service import QueryService


@post("/incidents/{id:str}/act", sync_to_thread=True, include_in_schema=False, guards=[requires("act")])
def act_on_incident(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], id: Id, data: Form
) -> Response[str] | Redirect:
    """Act on the incident of a page, and show it again; of a mute, show first what it would hide."""
    action = forms.action_id(data) or new_id()
    try:
        wanted = forms.action_of_form(data)
        if wanted.kind == "mute" and "confirmed" not in data:
            return _mute(request, service, id, wanted)
        desk(service).act(id, wanted, request.user.name, action)
    except StreamGuardError as error:
        return _again(
            request, service, id, forms.refused_form(forms.name_of(data), data, error, action), error
        )
    return _back(id)


@post("/incidents/{id:str}/decide", sync_to_thread=True, include_in_schema=False, guards=[requires("act")])
def decide(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], id: Id, data: Form
) -> Response[str] | Redirect:
    """Decide about a value of the user, and show the incident again."""
    action = forms.action_id(data) or new_id()
    try:
        wanted = forms.decision_of_form(data)
        service.asked_detection().decide(id, wanted, request.user.name, action)
    except StreamGuardError as error:
        name = data.get("decision", "")
        return _again(request, service, id, forms.refused_form(name, data, error, action), error)
    return _back(id)


@post(
    "/incidents/{id:str}/unmask",
    sync_to_thread=True,
    include_in_schema=False,
    guards=[requires("ask_unmask")],
)
def ask_for_names(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], id: Id, data: Form
) -> Response[str] | Redirect:
    """Ask for the names of the incident of a page, and show it again."""
    try:
        unmask_desk(service).ask(id, data.get("reason", ""), request.user.name, masked=True)
    except StreamGuardError as error:
        return _again(request, service, id, forms.refused_form("unmask", data, error), error)
    return _back(id)


@get(
    ["/incidents/{id:str}/act", "/incidents/{id:str}/decide", "/incidents/{id:str}/unmask"],
    sync_to_thread=False,
    include_in_schema=False,
)
def form_opened_again(id: Id) -> Redirect:
    """The incident, for a browser that opens the address of an answer to a form again."""
    return _back(id)


def _mute(
    request: Request[Any, Any, Any], service: QueryService, id: str, wanted: ActionRequest
) -> Response[str]:
    """What a mute would hide, with a button that makes it."""
    found = service.incidents.incident(id)
    seen = found.row.alerts if wanted.seen is None else wanted.seen
    preview = service.mutes.preview(id, wanted.until, seen)
    rows = service.incidents.page(IncidentFilter(id=preview.incidents), "time", len(preview.incidents) or 1)
    return html(
        "confirm_mute.html",
        caller=request.user,
        as_of=preview.as_of,
        found=found,
        preview=preview,
        list=rows if preview.incidents else msgspec.structs.replace(rows, incidents=()),
        margin=MARGIN_BITS,
        # What is shown is what is done: the end as a time, and the incident as the person saw it.
        fields={
            "kind": "mute",
            "until": preview.until,
            "reason": wanted.reason,
            "seen": seen,
            "expected": found.case.last_action if wanted.expected is None else wanted.expected,
            "confirmed": "yes",
        },
    )


def _again(
    request: Request[Any, Any, Any],
    service: QueryService,
    id: str,
    form: forms.Refused,
    error: StreamGuardError,
) -> Response[str]:
    """The incident with the form as it was filled in; the error alone if the incident cannot be shown."""
    try:
        return shown_incident(request, service, id, form)
    except StreamGuardError:
        raise error from None


def _back(id: str) -> Redirect:
    return Redirect(f"/incidents/{quote(id, safe='')}", status_code=303)


ROUTES = (Router("/", route_handlers=[act_on_incident, decide, ask_for_names, form_opened_again]),)
"""The routes. A router combines those of one address, which an application cannot: it would wrap a function twice."""
