"""Routes of what retrains have written, of refused records, and of the events of an incident."""

from __future__ import annotations

from typing import Annotated, TypeVar

from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from streamguard.errors import TemporaryError
from streamguard.serving.api.parameters import MAX_OFFSET, Id, Limit
from streamguard.serving.query.compare import TotalsAnswer
from streamguard.serving.query.events import IncidentEvents
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.service import QueryService
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.dead_letters import DeadLetterSummary
from streamguard.serving.results.models import ModelList
from streamguard.serving.results.run_answers import (
    AnomalyCursor,
    AnomalyPage,
    BatchRun,
    BatchTotals,
    BatchUserAnswer,
    RunEntry,
)
from streamguard.serving.results.users import Place

T = TypeVar("T")


def available(found: T | Unavailable) -> T:
    """The answer, if the results can be read.

    Raises
    ------
    NotFoundError
        If nothing was written, or this server has no directory of results.
    TemporaryError
        If the results cannot be read now.
    """
    if not isinstance(found, Unavailable):
        return found
    if found.why in ("not_configured", "none", "gone"):
        raise NotFoundError(found.message)
    raise TemporaryError(found.message)


@get("/batch/runs", sync_to_thread=True, tags=["Batch"], operation_id="listRuns")
def list_runs(service: NamedDependency[QueryService]) -> tuple[RunEntry, ...]:
    """List the runs of retrains, the latest first."""
    return available(service.asked_batch().runs())


@get("/batch/report", sync_to_thread=True, tags=["Batch"], operation_id="showReport")
def show_report(service: NamedDependency[QueryService]) -> BatchRun:
    """Show the report of the latest run."""
    return available(service.asked_batch().latest())


@get("/batch/statistics", sync_to_thread=True, tags=["Batch"], operation_id="showBatchStatistics")
def show_batch_statistics(service: NamedDependency[QueryService]) -> BatchTotals:
    """Show the totals of the latest run."""
    return available(service.asked_batch().totals())


@get("/batch/anomalies", sync_to_thread=True, tags=["Batch"], operation_id="listUsersAtRisk")
def list_users_at_risk(
    service: NamedDependency[QueryService],
    limit: Limit = 50,
    run: Annotated[
        str | None, QueryParameter(max_length=40, description="`next.run_id` of the page before")
    ] = None,
    after_bits: Annotated[float | None, QueryParameter(description="`next.place.evidence_bits`")] = None,
    after_user: Annotated[str, QueryParameter(max_length=256, description="`next.place.user`")] = "",
    after_partition: Annotated[
        int, QueryParameter(gt=-1, le=MAX_OFFSET, description="`next.place.partition`")
    ] = 0,
) -> AnomalyPage:
    """List the users that the latest run marks as at risk, the most evidence first."""
    after = None
    if run is not None and after_bits is not None:
        after = AnomalyCursor(run, Place(after_bits, after_user, after_partition))
    return available(service.asked_batch().anomalies(limit, after))


@get("/batch/users/{name:str}", sync_to_thread=True, tags=["Batch"], operation_id="showBatchUser")
def show_batch_user(service: NamedDependency[QueryService], name: Id) -> BatchUserAnswer:
    """Show what the latest run says of a user."""
    return available(service.asked_batch().user(name))


@get("/compare", sync_to_thread=True, tags=["Batch"], operation_id="compareTotals")
def compare_totals(service: NamedDependency[QueryService]) -> TotalsAnswer:
    """Compare what the speed layer and the latest run have counted: events, users and incidents."""
    return available(service.asked_compare().totals())


@get("/models", sync_to_thread=True, tags=["Models"], operation_id="listModels")
def list_models(service: NamedDependency[QueryService]) -> ModelList:
    """List the versions of the model registry with the judgements of the gate."""
    return available(service.asked_models().versions())


@get("/dead-letters", sync_to_thread=True, tags=["System"], operation_id="showDeadLetters")
def show_dead_letters(service: NamedDependency[QueryService]) -> DeadLetterSummary:
    """Show the records that could not be scored, by reason, with the newest of each."""
    return available(service.dead_letters())


@get("/incidents/{id:str}/events", sync_to_thread=True, tags=["Incidents"], operation_id="showEvents")
def show_events(service: NamedDependency[QueryService], id: Id) -> IncidentEvents:
    """Show the raw events of an incident, from Kafka or from the archive."""
    return service.asked_events().of_incident(id)


def router() -> Router:
    """The routes."""
    return Router(
        "/v1",
        route_handlers=[
            list_runs,
            show_report,
            show_batch_statistics,
            list_users_at_risk,
            show_batch_user,
            compare_totals,
            list_models,
            show_dead_letters,
            show_events,
        ],
    )
