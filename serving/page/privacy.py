"""The page of requests for names: forms to ask and to answer, notices, and the audit log."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Redirect

from streamguard.errors import StreamGuardError
from streamguard.serving.api.parameters import Id
from streamguard.serving.api.security import requires
from streamguard.serving.api.unmasking import audit_records, unmask_desk
from streamguard.serving.audit.record import AuditRecord
from streamguard.serving.page.render import html
from streamguard.serving.query.service import QueryService

MAX_RECORDS = 200
"""Records of the end of the audit log that are looked at for the page."""

Form = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]


@get("/privacy", sync_to_thread=True, include_in_schema=False)
def privacy_page(request: Request[Any, Any, Any], service: NamedDependency[QueryService]) -> Response[str]:
    """Requests for names: those to answer, notices, the others; and the audit log for those who may read it."""
    found = service.names.listed()
    records: tuple[AuditRecord, ...] = ()
    missing = ""
    if request.user.may("read_audit"):
        try:
            records = audit_records(service, MAX_RECORDS)
        except StreamGuardError as error:  # the requests are shown, whatever the topic does
            missing = str(error)
    return html(
        "privacy.html",
        caller=request.user,
        as_of=found.as_of,
        waiting=[one for one in found.requests if one.state == "open"],
        notices=[one for one in found.requests if one.state == "at_once"],
        others=[one for one in found.requests if one.state in ("granted", "refused")],
        records=records,
        records_missing=missing,
    )


@post(
    "/incidents/{id:str}/unmask",
    sync_to_thread=True,
    include_in_schema=False,
    guards=[requires("ask_unmask")],
)
def ask(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], id: Id, data: Form
) -> Redirect:
    """Ask for the names of the incident of a page, and show it again."""
    unmask_desk(service).ask(id, data.get("reason", ""), request.user.name, masked=True)
    return Redirect(f"/incidents/{quote(id, safe='')}", status_code=303)


@post("/privacy/{id:str}", sync_to_thread=True, include_in_schema=False, guards=[requires("answer_unmask")])
def answer(
    request: Request[Any, Any, Any], service: NamedDependency[QueryService], id: Id, data: Form
) -> Redirect:
    """Answer a request, and show the others."""
    granted = data.get("granted") == "yes"
    unmask_desk(service).answer(id, granted, data.get("reason", ""), request.user.name, masked=True)
    return Redirect("/privacy", status_code=303)


ROUTES = (privacy_page, ask, answer)
"""The routes."""
