"""Pages of everything else: users, models, techniques, and the system."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, PathParameter

from streamguard.events.event_time import DAY_MS
from streamguard.pictures.drawing import Bar
from streamguard.pictures.tactics import rows
from streamguard.serving.page.render import html
from streamguard.serving.query.filters import EntityKind, IncidentFilter
from streamguard.serving.query.service import QueryService
from streamguard.serving.replica.replica import ReplicaNotReadyError
from streamguard.serving.results.answers import Unavailable

MAX_DAYS = 366
"""Longest time of a ranking other than all."""


@get("/ranking", sync_to_thread=True, include_in_schema=False)
def ranking_page(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    kind: FromQuery[EntityKind] = "user",
    days: FromQuery[int] = 0,
) -> Response[str]:
    """Users or addresses by risk, by all their incidents or by those of the latest days."""
    days = max(0, min(days, MAX_DAYS))
    since = int(time.time() * 1000) - days * DAY_MS
    ranked = service.totals.ranked(kind, wanted=IncidentFilter(since=since) if days else None)
    return html("ranking.html", caller=request.user, as_of=ranked.as_of, ranked=ranked, kind=kind, days=days)


@get("/users/{name:str}", sync_to_thread=True, include_in_schema=False)
def user_page(
    request: Request[Any, Any, Any],
    service: NamedDependency[QueryService],
    name: Annotated[str, PathParameter(max_length=256)],
) -> Response[str]:
    """One user."""
    users = service.asked_users()
    found = users.user(name, request.user)
    return html(
        "user.html",
        caller=request.user,
        as_of=found.as_of,
        found=found,
        list=found,
        timeline=users.timeline(name),
        has_archive=request.app.state.has_archive,
    )


@get("/models", sync_to_thread=True, include_in_schema=False)
def models_page(request: Request[Any, Any, Any], service: NamedDependency[QueryService]) -> Response[str]:
    """Models, the judgements of the gate, and the latest run of the batch layer."""
    models, batch = service.asked_models().versions(), service.asked_batch()
    totals = batch.totals()
    # The users at risk are a ranking of people.
    anomalies = batch.anomalies(50) if request.user.may("see_people") else None
    known = not isinstance(totals, Unavailable) and not isinstance(anomalies, Unavailable)
    try:
        compared = service.asked_compare().totals()
    except ReplicaNotReadyError as error:
        compared = Unavailable("busy", str(error))
    return html(
        "models.html",
        caller=request.user,
        as_of=None if isinstance(compared, Unavailable) else compared.as_of,
        compared=None if isinstance(compared, Unavailable) else compared,
        compared_missing=compared.message if isinstance(compared, Unavailable) else "",
        models=None if isinstance(models, Unavailable) else models,
        models_missing=models.message if isinstance(models, Unavailable) else "",
        totals=totals if known else None,
        anomalies=anomalies,
        totals_missing=next((one.message for one in (totals, anomalies) if isinstance(one, Unavailable)), ""),
    )


@get("/techniques", sync_to_thread=True, include_in_schema=False)
def techniques_page(request: Request[Any, Any, Any], service: NamedDependency[QueryService]) -> Response[str]:
    """The ATT&CK matrix of what our patterns can show."""
    counts, as_of = service.totals.techniques()
    matrix = rows(counts, lambda technique: f"/?view=all&technique={quote(technique, safe='')}")
    return html("techniques.html", caller=request.user, as_of=as_of, matrix=matrix)


@get("/system", sync_to_thread=True, include_in_schema=False)
def system_page(request: Request[Any, Any, Any], service: NamedDependency[QueryService]) -> Response[str]:
    """Totals, and how far the server has followed its topics."""
    found = service.totals.statistics()
    days = [Bar(one.value, one.count) for one in found.by_day]
    letters = service.dead_letters() if service.sources is not None else None
    known = letters is not None and not isinstance(letters, Unavailable)
    return html(
        "system.html",
        caller=request.user,
        as_of=found.as_of,
        found=found,
        days=days,
        coverage=service.asked_users().profiles.coverage() if service.sources is not None else None,
        letters=letters if known else None,
        letters_missing=letters.message if isinstance(letters, Unavailable) else "",
    )


ROUTES = (ranking_page, user_page, models_page, techniques_page, system_page)
"""The routes."""
