"""Errors as problem details (RFC 9457): what was wrong, and what to do."""

from __future__ import annotations

import http
import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from streamguard.errors import ConfigurationError, StreamGuardError, TemporaryError, UnavailableError
from streamguard.serving.api.parameters import TimeError
from streamguard.serving.audit.record import AuditError
from streamguard.serving.decisions.codec import RecordError
from streamguard.serving.masking.viewer import MaskedError
from streamguard.serving.peers.client import PeerRefusedError
from streamguard.serving.peers.holders import PartitionUnavailableError
from streamguard.serving.projection.reader import TooCostlyError
from streamguard.serving.query.cases import NotUpToBoundError
from streamguard.serving.query.cursor import CursorError
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.requests import ConflictError, PreconditionError
from streamguard.serving.query.service import TooStaleError

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "1"
"""`Retry-After` of an answer that does not know better: a server is behind, or Kafka is away, for seconds."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem detail.

    Attributes
    ----------
    type
        Which kind of problem it is, as a relative address; `about:blank` says no more than the status.
    title
        The kind in words.
    status
        HTTP status.
    detail
        What was wrong here, and what to do.
    errors
        What was wrong with each part of the request.
    """

    title: str
    status: int
    detail: str = ""
    type: str = "about:blank"
    errors: tuple[dict[str, Any], ...] = ()


_KINDS: tuple[tuple[type[StreamGuardError], int, str], ...] = (
    (NotFoundError, 404, "not-found"),
    (CursorError, 400, "wrong-cursor"),
    (TimeError, 400, "wrong-time"),
    (PreconditionError, 412, "precondition"),
    (ConflictError, 409, "conflict"),
    (MaskedError, 403, "masked"),
    (AuditError, 503, "no-audit"),
    (RecordError, 400, "wrong-action"),
    (NotUpToBoundError, 503, "not-up-to-bound"),
    (TooStaleError, 503, "too-stale"),
    (PartitionUnavailableError, 503, "partition-unavailable"),
    (TooCostlyError, 503, "too-costly"),
    (ConfigurationError, 501, "not-configured"),
    (TemporaryError, 503, "try-again"),
    (UnavailableError, 503, "kafka-unavailable"),
    (StreamGuardError, 500, "error"),
)


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The answer for an exception: problem details for a program, and a page for a browser."""
    problem, headers = described(error)
    shown = request.app.state.get("problem_page")
    if (
        shown is not None
        and not request.url.path.startswith("/v1")
        and "text/html" in request.headers.get("accept", "")
    ):
        page: Response[Any] = shown(problem)
        page.headers.update(headers or {})
        return page
    return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def described(error: Exception) -> tuple[Problem, dict[str, str] | None]:
    """The problem that an exception is, and headers; an unexpected one is logged and its text stays here."""
    headers = None
    if isinstance(error, HTTPException):
        errors: tuple[dict[str, Any], ...] = ()
        if isinstance(error, ValidationException) and isinstance(error.extra, list):
            errors = tuple(one for one in error.extra if isinstance(one, dict))
        headers = error.headers
        problem = Problem(_title(error.status_code), error.status_code, error.detail, errors=errors)
    elif isinstance(error, PeerRefusedError):  # as if this server had refused it
        kind = f"/problems/{error.kind}" if error.kind else "about:blank"
        problem = Problem(_title(error.status), error.status, str(error), kind)
    elif isinstance(error, StreamGuardError):
        status, kind = next((status, kind) for known, status, kind in _KINDS if isinstance(error, known))
        problem = Problem(_title(status), status, str(error), f"/problems/{kind}")
    else:
        _log.error("a request could not be answered: report this traceback", exc_info=error)
        problem = Problem(_title(500), 500, "an unexpected error: the log of the server has its traceback")
    if problem.status in (429, 503):
        headers = {"Retry-After": RETRY_SECONDS} | (headers or {})
    return problem, headers


def _title(status: int) -> str:
    return http.HTTPStatus(status).phrase
