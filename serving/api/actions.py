"""Routes by which people act on incidents, and the audit trail."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, HeaderParameter, JSONBody, QueryParameter

from streamguard.events.decision import Field
from streamguard.serving.api.keys import Principal
from streamguard.serving.api.parameters import MAX_OFFSET, Id, Limit, incident_filter
from streamguard.serving.api.security import requires
from streamguard.serving.query.answers import Audit, BulkAnswer, IncidentAnswer
from streamguard.serving.query.cases import CaseDesk
from streamguard.serving.query.detection import (
    DetectionAnswer,
    DetectionPreview,
    DetectionRequest,
    Verdict,
)
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.mutes import MutePreview
from streamguard.serving.query.requests import ActionRequest, ConflictError, PreconditionError
from streamguard.serving.query.service import QueryService

_TAG = re.compile(r'"(\d{1,15})\.([!-~]{0,200})"')

IdempotencyKey = Annotated[
    str,
    HeaderParameter(
        name="Idempotency-Key",
        pattern=r"^$|^[A-Za-z0-9_-]{8,64}$",
        description="Id of the action: a repeated request with the same key acts once",
    ),
]


def tag(answer: IncidentAnswer) -> str:
    """The ETag of an incident: its alerts and the last action on it."""
    return f'"{answer.row.alerts}.{answer.case.last_action}"'


def desk(service: QueryService) -> CaseDesk:
    """The desk at which people act; a service that only answers questions has none."""
    if service.cases is None:
        raise ConflictError("this server only answers questions")
    return service.cases


@post(
    "/incidents/{id:str}/actions", sync_to_thread=True, guards=[requires("act")], tags=["Actions"],
    operation_id="actOnIncident", status_code=200,
)  # fmt: skip
def act_on_incident(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    id: Id,
    data: JSONBody[ActionRequest],
    if_match: Annotated[str, HeaderParameter(name="If-Match", max_length=300)] = "",
    idempotency_key: IdempotencyKey = "",
) -> Response[IncidentAnswer]:
    """Acknowledge, assign, comment, snooze, mute, close, reopen or undo; the answer has the action.

    With `If-Match`, the ETag of the incident as the person saw it, the action is refused if somebody else was faster.
    """
    if if_match:
        found, seen = service.incidents.incident(id), _TAG.fullmatch(if_match)
        again = any(one.id == idempotency_key for one in found.case.history)
        if seen is None or (not again and tag(found) != if_match):
            raise PreconditionError(f"the incident is {tag(found)} now: look at it again")
        data = msgspec.structs.replace(data, seen=int(seen[1]), expected=seen[2])
    answer = desk(service).act(id, data, request.user.name, idempotency_key)
    return Response(answer, headers={"ETag": tag(answer)})


@post(
    "/incidents/actions", dependencies={"wanted": Provide(incident_filter)}, sync_to_thread=True,
    guards=[requires("act")], tags=["Actions"], operation_id="actOnList", status_code=200,
)  # fmt: skip
def act_on_list(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    wanted: NamedDependency[IncidentFilter],
    data: JSONBody[ActionRequest],
    idempotency_key: IdempotencyKey = "",
) -> BulkAnswer:
    """Act on every incident of a list, as the filters select it now, and say on how many it has an effect.

    A request that is repeated with the same `Idempotency-Key` acts on the incidents of the first one, and once.
    """
    return desk(service).act_on_list(wanted, data, request.user.name, idempotency_key)


@post(
    "/actions/{action:str}/undo", sync_to_thread=True, guards=[requires("act")], tags=["Actions"],
    operation_id="undoOnList", status_code=200,
)  # fmt: skip
def undo_on_list(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    action: Id,
    reason: Annotated[str, QueryParameter(max_length=2000)] = "",
    idempotency_key: IdempotencyKey = "",
) -> BulkAnswer:
    """Undo an action on a list; it has no effect on incidents on which somebody has acted since."""
    return desk(service).undo_on_list(action, request.user.name, reason, idempotency_key)


@get(
    "/audit",
    sync_to_thread=True,
    guards=[requires("read_audit")],
    tags=["Actions"],
    operation_id="listActions",
)
def list_actions(
    service: NamedDependency[QueryService],
    limit: Limit = 100,
    before: Annotated[
        int | None,
        QueryParameter(gt=-1, le=MAX_OFFSET, description="Offset of the last action of the page before"),
    ] = None,
) -> Audit:
    """List what people did with incidents, the latest first."""
    return service.actions.audit(limit, before)


@get("/incidents/{id:str}/mute", sync_to_thread=True, tags=["Actions"], operation_id="previewMute")
def preview_mute(
    service: NamedDependency[QueryService],
    id: Id,
    until: Annotated[
        str,
        QueryParameter(
            max_length=40,
            description="Event time, or a duration such as `7d`; 30 days after the incident without it",
        ),
    ] = "",
) -> MutePreview:
    """Show which incidents of the last 30 days a mute would hide."""
    return service.mutes.preview(id, until)


@get("/me", sync_to_thread=False, tags=["Actions"], operation_id="showCaller")
def show_caller(request: Request[Any, Any, Any]) -> Principal:
    """Show the name and the role of the caller; actions carry this name."""
    caller: Principal = request.user
    return caller


@get(
    "/incidents/{id:str}/detection", sync_to_thread=True, tags=["Actions"], operation_id="previewDecision",
)  # fmt: skip
def preview_decision(
    service: NamedDependency[QueryService],
    id: Id,
    decision: FromQuery[Verdict] = "expected",
    field: FromQuery[Field | None] = None,
    value: Annotated[str, QueryParameter(max_length=256)] = "",
) -> DetectionPreview:
    """Show what a decision about the incident would have changed in the last 30 days."""
    return service.asked_detection().preview(
        id, DetectionRequest(decision=decision, field=field, value=value)
    )


@post(
    "/incidents/{id:str}/detection", sync_to_thread=True, guards=[requires("act")], tags=["Actions"],
    operation_id="decide", status_code=200,
)  # fmt: skip
def decide(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    id: Id,
    data: JSONBody[DetectionRequest],
    idempotency_key: IdempotencyKey = "",
) -> DetectionAnswer:
    """Expect a value of the user, or call it part of an attack; detection changes from the next event on."""
    return service.asked_detection().decide(id, data, request.user.name, idempotency_key)


@post(
    "/detection/{decision:str}/revoke", sync_to_thread=True, guards=[requires("act")], tags=["Actions"],
    operation_id="revokeDecision", status_code=200,
)  # fmt: skip
def revoke_decision(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    decision: Id,
    reason: Annotated[str, QueryParameter(max_length=1000)] = "",
) -> DetectionAnswer:
    """End a decision that changes detection; what was learned meanwhile remains."""
    return service.asked_detection().revoke(decision, reason, request.user.name)


def router() -> Router:
    """The routes."""
    return Router(
        "/v1",
        route_handlers=[
            act_on_incident,
            act_on_list,
            undo_on_list,
            preview_mute,
            show_caller,
            preview_decision,
            decide,
            revoke_decision,
            list_actions,
        ],
    )
