"""Routes by which people ask for the names of an incident, and grant or refuse that."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from streamguard.serving.api.parameters import Id, Limit
from streamguard.serving.api.security import requires
from streamguard.serving.audit.record import AuditRecord
from streamguard.serving.decisions.record import MAX_TEXT
from streamguard.serving.decisions.unmasking import State, Unmasking
from streamguard.serving.query.answers import Unmaskings
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.requests import ConflictError
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.unmasking import UnmaskDesk

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]


class UnmaskRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why somebody needs the names of an incident."""

    reason: Reason


class UnmaskDecision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to a request for names.

    Attributes
    ----------
    granted
        Whether the names are shown, for eight hours from now; of an incident that was unmasked at once, whether that
        was right. If not, its names are masked again.
    reason
        Why, for the person who has asked.
    """

    granted: bool
    reason: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = ""


def unmask_desk(service: QueryService) -> UnmaskDesk:
    """The desk at which names are asked for; a service that only answers questions has none."""
    if service.unmasking is None:
        raise ConflictError("this server only answers questions")
    return service.unmasking


@post(
    "/incidents/{id:str}/unmask", sync_to_thread=True, guards=[requires("ask_unmask")], tags=["Privacy"],
    operation_id="askForNames", status_code=200,
)  # fmt: skip
def ask_for_names(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    id: Id,
    data: JSONBody[UnmaskRequest],
) -> Unmasking:
    """Ask for the names of one incident; a critical one is unmasked at once, and looked at afterwards."""
    return unmask_desk(service).ask(id, data.reason, request.user.name, masked=True)


@get("/unmaskings", sync_to_thread=True, tags=["Privacy"], operation_id="listRequestsForNames")
def list_requests_for_names(
    service: NamedDependency[QueryService],
    states: Annotated[
        list[State] | None,
        QueryParameter(name="state", max_items=4, description="Repeat the parameter for alternatives"),
    ] = None,
    limit: Limit = 100,
) -> Unmaskings:
    """List requests for names, the latest first: all of them for those who answer, and otherwise the own ones."""
    return service.names.listed(tuple(states or ()), limit)


@post(
    "/unmaskings/{id:str}", sync_to_thread=True, guards=[requires("answer_unmask")], tags=["Privacy"],
    operation_id="answerRequestForNames", status_code=200,
)  # fmt: skip
def answer_request_for_names(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    id: Id,
    data: JSONBody[UnmaskDecision],
) -> Unmasking:
    """Grant or refuse what somebody else has asked for."""
    return unmask_desk(service).answer(id, data.granted, data.reason, request.user.name, masked=True)


class AuditLogAnswer(msgspec.Struct, frozen=True):
    """The latest records of the audit log, the latest first."""

    records: tuple[AuditRecord, ...]


@get(
    "/audit-log", sync_to_thread=True, guards=[requires("read_audit")], tags=["Privacy"],
    operation_id="showAuditLog",
)  # fmt: skip
def show_audit_log(service: NamedDependency[QueryService], limit: Limit = 100) -> AuditLogAnswer:
    """Show to whom the names of which incident or user were shown, and by whom they were granted."""
    return AuditLogAnswer(audit_records(service, limit))


def audit_records(service: QueryService, limit: int) -> tuple[AuditRecord, ...]:
    """The latest records of the audit log."""
    if service.audit_log is None:
        raise NotFoundError("this server keeps no audit log")
    return service.audit_log(limit)


def router() -> Router:
    """The routes."""
    return Router(
        "/v1",
        route_handlers=[ask_for_names, list_requests_for_names, answer_request_for_names, show_audit_log],
    )
