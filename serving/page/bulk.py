"""Forms by which people act on a whole list: the page asks, acts on what was confirmed, and offers the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery
from litestar.response import Redirect

from streamguard.errors import StreamGuardError
from streamguard.serving.api.actions import desk
from streamguard.serving.api.parameters import Id, incident_filter
from streamguard.serving.api.security import requires
from streamguard.serving.decisions.record import new_id
from streamguard.serving.page import forms
from streamguard.serving.page.forms import Form
from streamguard.serving.page.incidents import parameters, shown_list
from streamguard.serving.page.render import html
from streamguard.serving.query.answers import BulkPreview
from streamguard.serving.query.bulk import ChangedListError, bulk_text
from streamguard.serving.query.filters import IncidentFilter, Sort
from streamguard.serving.query.requests import ActionRequest, ConflictError
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.views import View, viewed
from streamguard.text import counted

FIRST_ROWS = 5
"""Rows of the list that a question shows."""
MAX_BACK = 8_000
"""Characters of the address of a list."""
MAX_DIGITS = 9
"""Digits of a number of incidents."""


@post(
    "/act", dependencies={"wanted": Provide(incident_filter)}, sync_to_thread=True, include_in_schema=False,
    guards=[requires("act")], status_code=200,
)  # fmt: skip
def act_on_list(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    data: Form,
    view: FromQuery[View] = "raised",
) -> Response[str]:
    """Ask whether to act on all incidents of a list; once this is confirmed, act, and say what was done."""
    listed, action = viewed(wanted, view), forms.action_id(data) or new_id()
    confirmed = data.get("confirmed", "")
    try:
        asked = forms.action_of_form(data)
        if not confirmed:
            return _question(request, service, listed, data, asked, _previewed(service, listed, asked))
        answer = desk(service).act_on_list(listed, asked, request.user.name, action, confirmed=confirmed)
    except ChangedListError as error:
        form = forms.refused_form("confirm", data, error)
        if not error.found.incidents:
            return _list_again(request, service, wanted, view, form, error)
        return _question(request, service, listed, data, asked, error.found, form)
    except StreamGuardError as error:
        form = forms.refused_form(f"all-{data.get('kind', '')}", data, error, action)
        if (
            form.action and confirmed
        ):  # it may be done: the same question, and the answer repeats the same action
            return _question(request, service, listed, data, asked, _asked_before(data), form)
        return _list_again(request, service, wanted, view, form, error)
    return _done(request, data, "Done", bulk_text(answer), answer.action if answer.accepted else "")


@post(
    "/act/{action:str}/undo", sync_to_thread=True, include_in_schema=False, guards=[requires("act")], status_code=200,
)  # fmt: skip
def undo_on_list(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], action: Id, data: Form
) -> Response[str]:
    """Undo the action on a list that a page has confirmed."""
    try:
        answer = desk(service).undo_on_list(action, request.user.name)
    except ConflictError as error:
        form = forms.refused_form("undo", data, error)
        return form.on(_done(request, data, "Not undone", form.message))
    return _done(request, data, "Undone", f"undo: {bulk_text(answer)}")


@get("/act", dependencies={"wanted": Provide(incident_filter)}, sync_to_thread=False, include_in_schema=False)
def question_opened_again(
    request: Request[Any, Any, Any],
    wanted: NamedDependency[IncidentFilter],  # noqa: ARG001 - the parameters that the address may have
    view: FromQuery[View] = "raised",  # noqa: ARG001
) -> Redirect:
    """The list, for a browser that opens the address of a question about it again."""
    return Redirect("/?" + urlencode(parameters(request)), status_code=303)


def _previewed(service: QueryService, listed: IncidentFilter, asked: ActionRequest) -> BulkPreview:
    found = desk(service).preview_list(listed, asked)
    if not found.incidents:
        raise ConflictError("the list has no incident any more, so there is nothing to do")
    return found


def _asked_before(data: Mapping[str, str]) -> BulkPreview:
    """What the question was about that a form has answered."""
    count = data.get("count", "")[:MAX_DIGITS]
    return BulkPreview(int(count) if count.isascii() and count.isdigit() else 0, data["confirmed"])


def _question(
    request: Request[Any, Any, Any],
    service: QueryService,
    listed: IncidentFilter,
    data: Mapping[str, str],
    asked: ActionRequest,
    found: BulkPreview,
    refused: forms.Refused | None = None,
) -> Response[str]:
    """How many incidents, which action, and the first rows, with a button that does it."""
    own = {name: value for name, value in data.items() if name not in ("action", "confirmed", "count")}
    before = _asked_before(data).incidents if refused is not None else 0
    sort: Sort = "time" if ("sort", "time") in _pairs(data) else "evidence"
    answer = html(
        "confirm_list.html",
        caller=request.user,
        as_of=service.as_of(),
        deed=_deed(asked, found.incidents),
        reason=asked.reason,
        found=found,
        before=before,
        list=service.incidents.page(listed, sort, FIRST_ROWS),
        sort=sort,
        grouped=listed.grouped,
        refused=refused,
        changed=refused is not None and refused.form == "confirm",
        act="/act?" + urlencode(parameters(request)),
        fields={
            **own,
            "confirmed": found.fingerprint,
            "count": found.incidents,
            "action": (refused.action if refused is not None else "") or new_id(),
        },
        list_address=_address(data),
    )
    return refused.on(answer) if refused is not None else answer


def _list_again(
    request: Request[Any, Any, Any],
    service: QueryService,
    wanted: IncidentFilter,
    view: View,
    form: forms.Refused,
    error: StreamGuardError,
) -> Response[str]:
    """The list with the form as it was filled in; the error alone if the list cannot be shown."""
    order = _pairs(form.given)
    sort: Sort = "time" if ("sort", "time") in order else "evidence"
    given = [*parameters(request), *(pair for pair in order if pair[0] == "sort")]
    try:
        return shown_list(request, service, wanted, view, given, sort, refused=form)
    except StreamGuardError:
        raise error from None


def _done(
    request: Request[Any, Any, Any], data: Mapping[str, str], title: str, text: str, undo: str = ""
) -> Response[str]:
    return html(
        "done.html",
        caller=request.user,
        title=title,
        text=text,
        undo=undo,
        back=data.get("back", ""),
        list_address=_address(data),
    )


def _deed(asked: ActionRequest, number: int) -> str:
    """What is about to be done, in words.

    Examples
    --------
    >>> _deed(ActionRequest(kind="close", classification="false_positive"), 1200)
    'close 1,200 incidents as false positive'
    """
    what = f"{asked.kind} {counted(number, 'incident')}"
    if asked.kind == "close":
        return f"{what} as {asked.classification.replace('_', ' ')}"
    return f"{what}, and assign to {asked.assignee}" if asked.assignee else what


def _pairs(data: Mapping[str, str]) -> list[tuple[str, str]]:
    """The parameters of the list from which a form was sent."""
    return parse_qsl(data.get("back", "")[:MAX_BACK])


def _address(data: Mapping[str, str]) -> str:
    """The address of the list from which a form was sent: a path of this page, whatever the form says."""
    return "/?" + urlencode(_pairs(data))


ROUTES = (Router("/", route_handlers=[act_on_list, question_opened_again, undo_on_list]),)
"""The routes, see those of `acting`."""
