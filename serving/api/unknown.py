"""Refuses query parameters that a route does not have: with a typing error, a filter would select everything."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from litestar import Request
from litestar.exceptions import ValidationException
from litestar.handlers import HTTPRouteHandler

_KNOWN = "known_parameters"
_SHOWN = 60
"""Characters of a name in the answer."""


class _Kind(NamedTuple):
    """Whether a parameter may be repeated, and whether its values are texts."""

    repeatable: bool
    textual: bool


def refuse_unknown(request: Request[Any, Any, Any]) -> None:
    """Check the names of the query parameters of a request to a route that the OpenAPI document describes.

    Raises
    ------
    ValidationException
        If a name is none of the route, or has several values where the route takes one.
    """
    handler = request.route_handler
    if not isinstance(handler, HTTPRouteHandler) or not request.query_params:
        return
    known = _known(request).get(str(handler.operation_id))
    if known is None:
        return
    unknown = sorted(set(request.query_params) - known.keys())
    if unknown:
        raise ValidationException(
            f"{request.url.path} has no parameter {unknown[0][:_SHOWN]!r}: it has {', '.join(sorted(known)) or 'none'}"
        )
    for name, kind in known.items():
        values = request.query_params.getall(name, [])
        if not kind.repeatable and len(values) > 1:
            raise ValidationException(f"`{name}` has several values: state one")
        if not kind.textual and any(value.lower() in ("null", "none") for value in values):
            raise ValidationException(f"`{name}` has no value: leave it out")


def _known(request: Request[Any, Any, Any]) -> dict[str, dict[str, _Kind]]:
    """The query parameters of each operation of the document, by name."""
    state = request.app.state
    if _KNOWN not in state:
        state[_KNOWN] = {
            operation["operationId"]: {
                one["name"]: _Kind(
                    *(f'"{kind}"' in json.dumps(one["schema"]) for kind in ("array", "string"))
                )
                for one in operation.get("parameters", ())
                if one["in"] == "query"
            }
            for path in request.app.openapi_schema.to_schema()["paths"].values()
            for operation in path.values()
        }
    found: dict[str, dict[str, _Kind]] = state[_KNOWN]
    return found
