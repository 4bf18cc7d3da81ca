"""The page of requests for names: forms to answer them, notices, and the audit log."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.response import Redirect

from streamguard.errors import StreamGuardError
from streamguard.serving.api.parameters import Id
from streamguard.serving.api.security import requires
from streamguard.serving.api.unmasking import audit_records, unmask_desk
from streamguard.serving.audit.record import AuditRecord
from streamguard.serving.page import forms
from streamguard.serving.page.forms import Form, Refused
from streamguard.serving.page.render import html
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.service import QueryService

MAX_RECORDS = 200
"""Records of the end of the audit log that are looked at for the page."""


@get("/privacy", sync_to_thread=True, include_in_schema=False)
def privacy_page(request: Request[Any, Any, Any], service: NamedDependency[QueryService]) -> Response[str]:
    """Requests for names: those to answer, notices, the others; and the audit log for those who may read it."""
    return _shown(request, service)


def _shown(
    request: Request[Any, Any, Any], service: QueryService, refused: Refused | None = None
) -> Response[str]:
    found = service.names.listed()
    records: tuple[AuditRecord, ...] = ()
    missing = ""
    if request.user.may("read_audit"):
        try:
            records = audit_records(service, MAX_RECORDS)
        except StreamGuardError as error:  # the requests are shown, whatever the topic does
            missing = str(error)
    answer = html(
        "privacy.html",
        caller=request.user,
        as_of=found.as_of,
        waiting=[one for one in found.requests if one.state == "open"],
        notices=[one for one in found.requests if one.state == "at_once"],
        others=[one for one in found.requests if one.state in ("granted", "refused")],
        records=records,
        records_missing=missing,
        refused=refused,
    )
    return refused.on(answer) if refused is not None else answer


@post("/privacy/{id:str}", sync_to_thread=True, include_in_schema=False, guards=[requires("answer_unmask")])
def answer(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], id: Id, data: Form
) -> Response[str] | Redirect:
    """Answer a request, and show the others."""
    granted = data.get("granted") == "yes"
    try:
        unmask_desk(service).answer(id, granted, data.get("reason", ""), request.user.name, masked=True)
    except NotFoundError:
        raise
    except StreamGuardError as error:
        return _shown(request, service, forms.refused_form(id, data, error))
    return Redirect("/privacy", status_code=303)


ROUTES = (privacy_page, answer)
"""The routes."""
